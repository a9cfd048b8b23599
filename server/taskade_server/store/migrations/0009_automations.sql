-- Automations: rules, what each of them said when, their runs with steps, and what waits for a time.
CREATE TABLE automations (
    n {{identity}},
    id {{text}} NOT NULL UNIQUE,
    workspace_id {{text}} NOT NULL,
    user_id {{text}},
    project_id {{text}},
    name {{text}} NOT NULL,
    name_folded {{text}} NOT NULL,
    name_sort {{text}},
    description {{text}},
    enabled {{bigint}} NOT NULL,
    disabled_at {{bigint}},
    disabled_reason {{text}},
    api_key_id {{text}},
    timezone {{text}},
    mode {{bigint}} NOT NULL,
    "key" {{bigint}} NOT NULL,
    on_error {{bigint}} NOT NULL,
    reentrant {{bigint}} NOT NULL,
    catch_up {{bigint}} NOT NULL,
    created_by {{text}},
    created_at {{bigint}} NOT NULL,
    updated_at {{bigint}} NOT NULL,
    version {{bigint}} NOT NULL,
    doc {{text}} NOT NULL
);
-- only: sqlite
CREATE VIRTUAL TABLE automations_fts USING fts5(words, content='', contentless_delete=1, tokenize='ascii');
-- end
-- only: postgresql
ALTER TABLE automations ADD COLUMN search tsvector;
CREATE INDEX automations_search ON automations USING gin (search);
-- end
CREATE INDEX automations_by_workspace_id ON automations (workspace_id, n);

-- What an automation said when: the definition that holds for the events behind `since`, up to `until` (null while it
-- holds). A run goes on with the version that it began with. `reads_log` is 0 for those that no event concerns.
CREATE TABLE automation_versions (
    automation_id {{text}} NOT NULL,
    version {{bigint}} NOT NULL,
    workspace_id {{text}} NOT NULL,
    reads_log {{bigint}} NOT NULL,
    since {{bigint}} NOT NULL,
    until {{bigint}},
    doc {{text}} NOT NULL,
    PRIMARY KEY (automation_id, version)
);
CREATE INDEX automation_versions_by_workspace_id ON automation_versions (workspace_id, until);

-- What runs have told about an automation: no change of it, so that it has no event.
CREATE TABLE automation_states (
    automation_id {{text}} PRIMARY KEY,
    workspace_id {{text}} NOT NULL,
    failures {{bigint}} NOT NULL DEFAULT 0,
    last_run_at {{bigint}},
    last_failure_at {{bigint}}
);

-- `cause` names what started it (`event:17`, `schedule:1700000000000`), once for each automation. `lane` is what runs of
-- which only one goes on at a time have in common, and `shard` which share of the executors it belongs to. `position`,
-- `memory` (JSON) and `wake_at` say where it goes on, with which values, and when.
CREATE TABLE automation_runs (
    n {{identity}},
    id {{text}} NOT NULL UNIQUE,
    workspace_id {{text}} NOT NULL,
    automation_id {{text}} NOT NULL,
    version {{bigint}} NOT NULL,
    cause {{text}} NOT NULL,
    event_seq {{bigint}},
    event_id {{text}},
    object_id {{text}},
    project_id {{text}},
    lane {{text}} NOT NULL,
    shard {{bigint}} NOT NULL,
    state {{text}} NOT NULL,
    reason {{text}},
    detail {{text}},
    position {{bigint}} NOT NULL,
    memory {{text}} NOT NULL,
    chain {{text}} NOT NULL,
    request_id {{text}} NOT NULL,
    steps {{bigint}} NOT NULL,
    attempts {{bigint}} NOT NULL,
    wake_at {{bigint}},
    created_at {{bigint}} NOT NULL,
    started_at {{bigint}},
    finished_at {{bigint}},
    UNIQUE (automation_id, cause)
);
CREATE INDEX automation_runs_by_wake ON automation_runs (shard, wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX automation_runs_by_lane ON automation_runs (lane, n) WHERE finished_at IS NULL;
CREATE INDEX automation_runs_by_automation ON automation_runs (automation_id, created_at);
CREATE INDEX automation_runs_by_workspace ON automation_runs (workspace_id, created_at);
CREATE INDEX automation_runs_by_object ON automation_runs (object_id, automation_id, created_at);
CREATE INDEX automation_runs_by_end ON automation_runs (finished_at) WHERE finished_at IS NOT NULL;

-- `action` is where the action stands in the definition, as a JSON Pointer; `first_seq` and `last_seq` are the events that
-- it led to; `detail` (JSON) what it did.
CREATE TABLE automation_steps (
    run_id {{text}} NOT NULL,
    number {{bigint}} NOT NULL,
    workspace_id {{text}} NOT NULL,
    action {{text}} NOT NULL,
    kind {{text}} NOT NULL,
    state {{text}} NOT NULL,
    at {{bigint}} NOT NULL,
    duration_ms {{real}} NOT NULL,
    first_seq {{bigint}},
    last_seq {{bigint}},
    error {{text}},
    detail {{text}} NOT NULL,
    PRIMARY KEY (run_id, number)
);

-- What waits for a time: one row for each automation with a schedule (`object_id` is ''), and for each object that one
-- with another timed trigger waits for. `due_at` is when to look at it, `since` from when on it counts (what was due up
-- to then is over), `seq` the event that it counts from, `pending` (JSON) what is left of a firing that takes several
-- units.
CREATE TABLE automation_timers (
    automation_id {{text}} NOT NULL,
    object_id {{text}} NOT NULL,
    workspace_id {{text}} NOT NULL,
    version {{bigint}} NOT NULL,
    due_at {{bigint}} NOT NULL,
    since {{bigint}} NOT NULL,
    seq {{bigint}},
    pending {{text}},
    PRIMARY KEY (automation_id, object_id)
);
CREATE INDEX automation_timers_by_due ON automation_timers (due_at);

-- Automations whose timers are being set, from behind `position` (a cursor) of the objects that there were when they
-- began, at `begun_at`; and timers of earlier versions, which are removed first. `existing` is 1 if what was due already
-- runs, too.
CREATE TABLE automation_scans (
    automation_id {{text}} PRIMARY KEY,
    workspace_id {{text}} NOT NULL,
    version {{bigint}} NOT NULL,
    existing {{bigint}} NOT NULL,
    begun_at {{bigint}} NOT NULL,
    turn {{bigint}} NOT NULL,
    position {{text}}
);
