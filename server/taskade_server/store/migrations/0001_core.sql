-- The core: logs and their events, and one table for each resource.
-- Every resource table has typed columns for filters and sorts, and `doc`, the public JSON rendered on write.
-- `n` counts rows in the order of creation. `*_values` holds multi-valued members and custom fields, one row a value.

CREATE TABLE counters (
    name {{text}} PRIMARY KEY,
    value {{bigint}} NOT NULL
);
-- Rises with every change that may alter what somebody sees; cached principals are good for one value of it.
INSERT INTO counters (name, value) VALUES ('grants', 0);

CREATE TABLE settings (
    name {{text}} PRIMARY KEY,
    value {{text}} NOT NULL
);

CREATE TABLE last_used (
    id {{text}} PRIMARY KEY,
    at {{bigint}} NOT NULL
);

CREATE TABLE log_heads (
    workspace_id {{text}} PRIMARY KEY,
    seq {{bigint}} NOT NULL
);

CREATE TABLE events (
    workspace_id {{text}} NOT NULL,
    seq {{bigint}} NOT NULL,
    id {{text}} NOT NULL,
    type {{text}} NOT NULL,
    resource {{text}} NOT NULL,
    object_id {{text}} NOT NULL,
    project_id {{text}},
    actor_id {{text}},
    key_id {{text}},
    request_id {{text}},
    at {{bigint}} NOT NULL,
    data {{text}} NOT NULL,
    previous {{text}},
    PRIMARY KEY (workspace_id, seq)
);

CREATE TABLE workspaces (
    n {{identity}},
    id {{text}} NOT NULL UNIQUE,
    workspace_id {{text}},
    name {{text}} NOT NULL,
    name_folded {{text}} NOT NULL,
    created_by {{text}},
    created_at {{bigint}} NOT NULL,
    updated_at {{bigint}} NOT NULL,
    version {{bigint}} NOT NULL,
    deleted_at {{bigint}},
    trash_root {{text}},
    doc {{text}} NOT NULL
);

-- only: sqlite
CREATE VIRTUAL TABLE workspaces_fts USING fts5(words, content='', contentless_delete=1, tokenize='ascii');
-- end
-- only: postgresql
ALTER TABLE workspaces ADD COLUMN search tsvector;
CREATE INDEX workspaces_search ON workspaces USING gin (search);
-- end

CREATE INDEX workspaces_by_trash_root ON workspaces (trash_root) WHERE trash_root IS NOT NULL;

CREATE TABLE users (
    n {{identity}},
    id {{text}} NOT NULL UNIQUE,
    workspace_id {{text}} NOT NULL,
    name {{text}} NOT NULL,
    name_folded {{text}} NOT NULL,
    email {{text}},
    handle {{text}},
    kind {{bigint}} NOT NULL,
    avatar_url {{text}},
    created_by {{text}},
    created_at {{bigint}} NOT NULL,
    updated_at {{bigint}} NOT NULL,
    version {{bigint}} NOT NULL,
    deleted_at {{bigint}},
    trash_root {{text}},
    doc {{text}} NOT NULL
);

-- only: sqlite
CREATE VIRTUAL TABLE users_fts USING fts5(words, content='', contentless_delete=1, tokenize='ascii');
-- end
-- only: postgresql
ALTER TABLE users ADD COLUMN search tsvector;
CREATE INDEX users_search ON users USING gin (search);
-- end

CREATE UNIQUE INDEX users_by_email ON users (email);
CREATE UNIQUE INDEX users_by_handle ON users (handle);
CREATE INDEX users_by_trash_root ON users (trash_root) WHERE trash_root IS NOT NULL;

CREATE TABLE members (
    n {{identity}},
    id {{text}} NOT NULL UNIQUE,
    workspace_id {{text}} NOT NULL,
    project_id {{text}},
    "user" {{text}} NOT NULL,
    role {{bigint}} NOT NULL,
    created_by {{text}},
    created_at {{bigint}} NOT NULL,
    updated_at {{bigint}} NOT NULL,
    version {{bigint}} NOT NULL,
    doc {{text}} NOT NULL
);

CREATE UNIQUE INDEX members_by_workspace_id_user_project_id ON members (workspace_id, "user", project_id) WHERE project_id IS NOT NULL;
CREATE UNIQUE INDEX members_by_workspace_id_user_only ON members (workspace_id, "user") WHERE project_id IS NULL;
CREATE INDEX members_by_user ON members ("user");
CREATE INDEX members_by_project_id ON members (project_id, n) WHERE project_id IS NOT NULL;

CREATE TABLE api_keys (
    n {{identity}},
    id {{text}} NOT NULL UNIQUE,
    workspace_id {{text}},
    user_id {{text}},
    name {{text}} NOT NULL,
    prefix {{text}},
    rate_limit {{bigint}},
    expires_at {{bigint}},
    created_by {{text}},
    created_at {{bigint}} NOT NULL,
    updated_at {{bigint}} NOT NULL,
    version {{bigint}} NOT NULL,
    hash {{text}},
    doc {{text}} NOT NULL
);

CREATE INDEX api_keys_by_user_id ON api_keys (user_id, n);

CREATE TABLE projects (
    n {{identity}},
    id {{text}} NOT NULL UNIQUE,
    workspace_id {{text}} NOT NULL,
    name {{text}} NOT NULL,
    name_folded {{text}} NOT NULL,
    type {{bigint}} NOT NULL,
    visibility {{bigint}} NOT NULL,
    color {{text}},
    start_date {{bigint}},
    due_date {{bigint}},
    archived_at {{bigint}},
    template_id {{text}},
    created_by {{text}},
    created_at {{bigint}} NOT NULL,
    updated_at {{bigint}} NOT NULL,
    version {{bigint}} NOT NULL,
    deleted_at {{bigint}},
    trash_root {{text}},
    inbox_of {{text}},
    doc {{text}} NOT NULL
);

-- only: sqlite
CREATE VIRTUAL TABLE projects_fts USING fts5(words, content='', contentless_delete=1, tokenize='ascii');
-- end
-- only: postgresql
ALTER TABLE projects ADD COLUMN search tsvector;
CREATE INDEX projects_search ON projects USING gin (search);
-- end

CREATE TABLE project_values (
    workspace_id {{text}} NOT NULL,
    field {{text}} NOT NULL,
    value {{text}} NOT NULL,
    number {{real}},
    n {{bigint}} NOT NULL,
    PRIMARY KEY (workspace_id, field, value, n)
)
-- only: sqlite
WITHOUT ROWID
-- end
;
CREATE INDEX project_values_by_row ON project_values (n, field, number);
CREATE INDEX project_values_by_number ON project_values (workspace_id, field, number, n) WHERE number IS NOT NULL;

CREATE INDEX projects_by_workspace_id ON projects (workspace_id, n) WHERE deleted_at IS NULL;
CREATE INDEX projects_by_workspace_id_inbox_of ON projects (workspace_id, inbox_of) WHERE inbox_of IS NOT NULL;
CREATE INDEX projects_by_trash_root ON projects (trash_root) WHERE trash_root IS NOT NULL;

CREATE TABLE templates (
    n {{identity}},
    id {{text}} NOT NULL UNIQUE,
    workspace_id {{text}} NOT NULL,
    name {{text}} NOT NULL,
    name_folded {{text}} NOT NULL,
    created_by {{text}},
    created_at {{bigint}} NOT NULL,
    updated_at {{bigint}} NOT NULL,
    version {{bigint}} NOT NULL,
    deleted_at {{bigint}},
    trash_root {{text}},
    doc {{text}} NOT NULL
);

-- only: sqlite
CREATE VIRTUAL TABLE templates_fts USING fts5(words, content='', contentless_delete=1, tokenize='ascii');
-- end
-- only: postgresql
ALTER TABLE templates ADD COLUMN search tsvector;
CREATE INDEX templates_search ON templates USING gin (search);
-- end

CREATE INDEX templates_by_workspace_id ON templates (workspace_id, n) WHERE deleted_at IS NULL;
CREATE INDEX templates_by_trash_root ON templates (trash_root) WHERE trash_root IS NOT NULL;

CREATE TABLE tasks (
    n {{identity}},
    id {{text}} NOT NULL UNIQUE,
    workspace_id {{text}} NOT NULL,
    project_id {{text}},
    parent_id {{text}},
    name {{text}} NOT NULL,
    name_folded {{text}} NOT NULL,
    status {{text}},
    priority {{bigint}} NOT NULL,
    assignee {{text}},
    start_date {{bigint}},
    due_date {{bigint}},
    completed_at {{bigint}},
    position {{text}},
    estimate {{real}},
    recurrence {{text}},
    created_by {{text}},
    created_at {{bigint}} NOT NULL,
    updated_at {{bigint}} NOT NULL,
    version {{bigint}} NOT NULL,
    deleted_at {{bigint}},
    trash_root {{text}},
    doc {{text}} NOT NULL
);

-- only: sqlite
CREATE VIRTUAL TABLE tasks_fts USING fts5(words, content='', contentless_delete=1, tokenize='ascii');
-- end
-- only: postgresql
ALTER TABLE tasks ADD COLUMN search tsvector;
CREATE INDEX tasks_search ON tasks USING gin (search);
-- end

CREATE TABLE task_values (
    workspace_id {{text}} NOT NULL,
    field {{text}} NOT NULL,
    value {{text}} NOT NULL,
    number {{real}},
    n {{bigint}} NOT NULL,
    PRIMARY KEY (workspace_id, field, value, n)
)
-- only: sqlite
WITHOUT ROWID
-- end
;
CREATE INDEX task_values_by_row ON task_values (n, field, number);
CREATE INDEX task_values_by_number ON task_values (workspace_id, field, number, n) WHERE number IS NOT NULL;

CREATE INDEX tasks_by_workspace_id ON tasks (workspace_id, n, status, assignee, priority) WHERE deleted_at IS NULL;
CREATE INDEX tasks_by_workspace_id_created_at ON tasks (workspace_id, created_at, n) WHERE deleted_at IS NULL;
CREATE INDEX tasks_by_workspace_id_updated_at ON tasks (workspace_id, updated_at, n) WHERE deleted_at IS NULL;
CREATE INDEX tasks_by_workspace_id_due_date ON tasks (workspace_id, due_date, n, priority, status) WHERE deleted_at IS NULL;
CREATE INDEX tasks_by_project_id ON tasks (project_id, n) WHERE deleted_at IS NULL;
CREATE INDEX tasks_by_project_id_due_date ON tasks (project_id, due_date, n, status) WHERE deleted_at IS NULL;
CREATE INDEX tasks_by_workspace_id_assignee_due_date ON tasks (workspace_id, assignee, due_date, n) WHERE deleted_at IS NULL AND assignee IS NOT NULL;
CREATE INDEX tasks_by_workspace_id_completed_at ON tasks (workspace_id, completed_at, n) WHERE deleted_at IS NULL AND completed_at IS NOT NULL;
CREATE INDEX tasks_by_parent_id ON tasks (parent_id, n) WHERE deleted_at IS NULL AND parent_id IS NOT NULL;
CREATE INDEX tasks_by_trash_root ON tasks (trash_root) WHERE trash_root IS NOT NULL;

CREATE TABLE comments (
    n {{identity}},
    id {{text}} NOT NULL UNIQUE,
    workspace_id {{text}} NOT NULL,
    task_id {{text}} NOT NULL,
    project_id {{text}},
    author {{text}},
    created_by {{text}},
    created_at {{bigint}} NOT NULL,
    updated_at {{bigint}} NOT NULL,
    version {{bigint}} NOT NULL,
    deleted_at {{bigint}},
    trash_root {{text}},
    doc {{text}} NOT NULL
);

-- only: sqlite
CREATE VIRTUAL TABLE comments_fts USING fts5(words, content='', contentless_delete=1, tokenize='ascii');
-- end
-- only: postgresql
ALTER TABLE comments ADD COLUMN search tsvector;
CREATE INDEX comments_search ON comments USING gin (search);
-- end

CREATE INDEX comments_by_task_id ON comments (task_id, n);
CREATE INDEX comments_by_workspace_id ON comments (workspace_id, n) WHERE deleted_at IS NULL;
CREATE INDEX comments_by_project_id ON comments (project_id, n);
CREATE INDEX comments_by_trash_root ON comments (trash_root) WHERE trash_root IS NOT NULL;
