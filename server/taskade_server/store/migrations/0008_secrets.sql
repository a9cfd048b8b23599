-- Credentials of other systems. `sealed` is the value, encrypted and bound to the id; it is nowhere else.
CREATE TABLE secrets (
    n {{identity}},
    id {{text}} NOT NULL UNIQUE,
    workspace_id {{text}} NOT NULL,
    name {{text}} NOT NULL,
    user_id {{text}} NOT NULL,
    value_set_at {{bigint}} NOT NULL,
    created_by {{text}},
    created_at {{bigint}} NOT NULL,
    updated_at {{bigint}} NOT NULL,
    version {{bigint}} NOT NULL,
    sealed {{text}} NOT NULL,
    doc {{text}} NOT NULL
);

CREATE UNIQUE INDEX secrets_by_workspace_id_name ON secrets (workspace_id, name);
CREATE INDEX secrets_by_workspace_id ON secrets (workspace_id, n);
