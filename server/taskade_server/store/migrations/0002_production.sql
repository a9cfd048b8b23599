-- What keeps promises across crashes, restarts and processes.

-- Answers to writes that carried an Idempotency-Key, written in the same transaction as their effect. `key` is a keyed
-- hash of what the client sent, `digest` one of the whole request; `places` says what has to be visible for a replay.
CREATE TABLE replies (
    owner {{text}} NOT NULL,
    key {{text}} NOT NULL,
    digest {{text}} NOT NULL,
    status {{bigint}} NOT NULL,
    headers {{text}} NOT NULL,
    body {{text}},
    places {{text}} NOT NULL,
    at {{bigint}} NOT NULL,
    PRIMARY KEY (owner, key)
);
CREATE INDEX replies_by_at ON replies (at);

-- Who does a piece of background work at the moment, until when (epoch ms).
CREATE TABLE leases (
    name {{text}} PRIMARY KEY,
    holder {{text}} NOT NULL,
    until {{bigint}} NOT NULL
);
