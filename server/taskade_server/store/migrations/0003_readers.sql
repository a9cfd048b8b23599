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
