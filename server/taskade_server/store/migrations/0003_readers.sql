-- What the readers of the log need: who asked and from where, finding an event or an object's history, and how far each
-- reader has come.

-- `address` and `user_agent` are those of the request; `origin` (JSON) says what led to a change that nobody asked for
-- directly: the event that was reverted, the rule that ran.
ALTER TABLE events ADD COLUMN address {{text}};
ALTER TABLE events ADD COLUMN user_agent {{text}};
ALTER TABLE events ADD COLUMN origin {{text}};
CREATE UNIQUE INDEX events_by_id ON events (id);
CREATE INDEX events_by_object_id ON events (object_id, seq);

-- A reader has done everything up to `seq`; it moves in the transaction of what it did.
CREATE TABLE cursors (
    reader {{text}} NOT NULL,
    workspace_id {{text}} NOT NULL,
    seq {{bigint}} NOT NULL,
    PRIMARY KEY (reader, workspace_id)
);

-- Webhooks. `secrets` are the webhook's keys, encrypted; `rights` what the key that made it may reach;
-- `spans` (JSON) the parts of the log it is told of, each behind one seq and up to another; `until` the end of the last
-- one, null while it is enabled.
CREATE TABLE webhooks (
    n {{identity}},
    id {{text}} NOT NULL UNIQUE,
    workspace_id {{text}} NOT NULL,
    user_id {{text}},
    project_id {{text}},
    url {{text}} NOT NULL,
    description {{text}},
    enabled {{bigint}} NOT NULL,
    disabled_at {{bigint}},
    disabled_reason {{text}},
    rate_limit {{bigint}},
    max_concurrency {{bigint}} NOT NULL,
    payload {{bigint}} NOT NULL,
    public_key {{text}},
    created_by {{text}},
    created_at {{bigint}} NOT NULL,
    updated_at {{bigint}} NOT NULL,
    version {{bigint}} NOT NULL,
    secrets {{text}},
    rights {{text}},
    spans {{text}},
    until {{bigint}},
    doc {{text}} NOT NULL
);
CREATE INDEX webhooks_by_workspace_id ON webhooks (workspace_id, n);

-- What deliveries have told about an endpoint: no change of the webhook, so that it has no event.
CREATE TABLE webhook_states (
    webhook_id {{text}} PRIMARY KEY,
    workspace_id {{text}} NOT NULL,
    last_seq {{bigint}},
    last_success_at {{bigint}},
    last_failure_at {{bigint}},
    failing_since {{bigint}},
    paused_until {{bigint}}
);

-- One event for one webhook. `next_at` is when the next attempt is due; null while an earlier event about the same
-- object is pending, and when there is nothing left to do. `base` is how many attempts there had been when somebody last
-- asked to send it: the schedule begins anew behind them. `replay_id` is the replay that sends it.
CREATE TABLE deliveries (
    n {{identity}},
    id {{text}} NOT NULL UNIQUE,
    webhook_id {{text}} NOT NULL,
    workspace_id {{text}} NOT NULL,
    seq {{bigint}} NOT NULL,
    event_id {{text}} NOT NULL,
    type {{text}} NOT NULL,
    object_id {{text}} NOT NULL,
    previous_seq {{bigint}},
    state {{text}} NOT NULL,
    attempts {{bigint}} NOT NULL,
    base {{bigint}} NOT NULL,
    next_at {{bigint}},
    created_at {{bigint}} NOT NULL,
    finished_at {{bigint}},
    last_status {{bigint}},
    last_error {{text}},
    replay_id {{text}}
);
CREATE UNIQUE INDEX deliveries_by_webhook_id_seq ON deliveries (webhook_id, seq, event_id);
CREATE INDEX deliveries_by_replay_id ON deliveries (replay_id, state) WHERE replay_id IS NOT NULL;
CREATE INDEX deliveries_by_webhook_id_next_at ON deliveries (webhook_id, next_at, seq) WHERE next_at IS NOT NULL;
CREATE INDEX deliveries_by_webhook_id_object_id ON deliveries (webhook_id, object_id, seq) WHERE state = 'pending';
CREATE INDEX deliveries_by_finished_at ON deliveries (finished_at) WHERE finished_at IS NOT NULL;

CREATE TABLE attempts (
    delivery_id {{text}} NOT NULL,
    number {{bigint}} NOT NULL,
    workspace_id {{text}} NOT NULL,
    at {{bigint}} NOT NULL,
    duration_ms {{real}} NOT NULL,
    address {{text}},
    request_headers {{text}} NOT NULL,
    status {{bigint}},
    response_headers {{text}} NOT NULL,
    response_body {{text}} NOT NULL,
    error {{text}},
    detail {{text}},
    PRIMARY KEY (delivery_id, number)
);

-- Sending again: what has failed (`kind` recover) or whatever fits (`kind` replay), between two places in the log.
-- `position` is the seq up to which that is done, `queued` how many deliveries that were.
CREATE TABLE webhook_replays (
    id {{text}} PRIMARY KEY,
    webhook_id {{text}} NOT NULL,
    workspace_id {{text}} NOT NULL,
    kind {{text}} NOT NULL,
    state {{text}} NOT NULL,
    from_seq {{bigint}} NOT NULL,
    to_seq {{bigint}} NOT NULL,
    position {{bigint}} NOT NULL,
    patterns {{text}} NOT NULL,
    missing_only {{bigint}} NOT NULL,
    since {{bigint}},
    queued {{bigint}} NOT NULL,
    created_by {{text}},
    created_at {{bigint}} NOT NULL,
    finished_at {{bigint}}
);
CREATE INDEX webhook_replays_by_webhook_id ON webhook_replays (webhook_id, created_at);
CREATE INDEX webhook_replays_running ON webhook_replays (id) WHERE state = 'running';

-- Where the log of a workspace begins: events before `first_seq` are no longer kept, and who asks for them starts anew.
ALTER TABLE log_heads ADD COLUMN first_seq {{bigint}} NOT NULL DEFAULT 1;

-- What was refused, and secrets that were read: no change of anything, so that the workspace's log has no event of it.
-- `times` counts the same thing between `at` and `last_at`. The installation's own log has the workspace ''.
CREATE TABLE accesses (
    workspace_id {{text}} NOT NULL,
    seq {{bigint}} NOT NULL,
    id {{text}} NOT NULL,
    action {{text}} NOT NULL,
    outcome {{text}} NOT NULL,
    status {{bigint}},
    reason {{text}},
    operation {{text}},
    resource {{text}},
    object_id {{text}},
    actor_id {{text}},
    key_id {{text}},
    request_id {{text}},
    at {{bigint}} NOT NULL,
    last_at {{bigint}} NOT NULL,
    times {{bigint}} NOT NULL,
    address {{text}},
    user_agent {{text}},
    PRIMARY KEY (workspace_id, seq)
);
CREATE UNIQUE INDEX accesses_by_id ON accesses (id);
CREATE TABLE access_heads (
    workspace_id {{text}} PRIMARY KEY,
    seq {{bigint}} NOT NULL
);
CREATE INDEX events_by_request_id ON events (request_id) WHERE request_id IS NOT NULL;

-- Who looks at which project now. A row is a lease of a connection, and belongs to no history.
CREATE TABLE presence (
    connection_id {{text}} NOT NULL,
    project_id {{text}} NOT NULL,
    workspace_id {{text}} NOT NULL,
    user_id {{text}} NOT NULL,
    state {{text}} NOT NULL,
    since {{bigint}} NOT NULL,
    expires_at {{bigint}} NOT NULL,
    PRIMARY KEY (connection_id, project_id)
);
CREATE INDEX presence_by_project_id ON presence (project_id, since);
CREATE INDEX presence_by_expires_at ON presence (expires_at);
-- Who could see what at an earlier moment: the few events that change rights, without a walk through the whole log.
CREATE INDEX events_of_rights ON events (workspace_id, seq) WHERE resource IN ('member', 'project', 'workspace');

-- The Merkle trees over both logs of each workspace (RFC 9162), 256 hashes a row, and the checkpoints that were signed.
CREATE TABLE tree_tiles (
    workspace_id {{text}} NOT NULL,
    log {{text}} NOT NULL,
    height {{bigint}} NOT NULL,
    number {{bigint}} NOT NULL,
    hashes {{blob}} NOT NULL,
    PRIMARY KEY (workspace_id, log, height, number)
);
CREATE TABLE checkpoints (
    workspace_id {{text}} NOT NULL,
    log {{text}} NOT NULL,
    size {{bigint}} NOT NULL,
    at {{bigint}} NOT NULL,
    note {{text}} NOT NULL,
    PRIMARY KEY (workspace_id, log, size)
);
