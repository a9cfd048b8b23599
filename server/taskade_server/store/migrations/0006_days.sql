-- Days are somebody's days: time zones of people, workspaces and recurring tasks, and dates that are told from times.

-- Documents get their new members behind the id. The log keeps those of then: what they lack has its default.
ALTER TABLE workspaces ADD COLUMN timezone {{text}} NOT NULL DEFAULT 'UTC';
UPDATE workspaces SET doc = substr(doc, 1, 8 + length(id)) || ',"timezone":"UTC"' || substr(doc, 9 + length(id));

ALTER TABLE users ADD COLUMN timezone {{text}};
UPDATE users SET doc = substr(doc, 1, 8 + length(id)) || ',"timezone":null' || substr(doc, 9 + length(id));

-- A column of dates and times holds twice the epoch milliseconds, and one more for a time.
-- only: sqlite
UPDATE projects SET
    start_date = 2 * start_date + (length(json_extract(doc, '$.start_date')) > 10),
    due_date = 2 * due_date + (length(json_extract(doc, '$.due_date')) > 10)
WHERE start_date IS NOT NULL OR due_date IS NOT NULL;
UPDATE tasks SET
    start_date = 2 * start_date + (length(json_extract(doc, '$.start_date')) > 10),
    due_date = 2 * due_date + (length(json_extract(doc, '$.due_date')) > 10),
    doc = substr(doc, 1, 8 + length(id)) || ',"recurrence_from":"due_date","timezone":null' || substr(doc, 9 + length(id));
-- end
-- only: postgresql
UPDATE projects SET
    start_date = 2 * start_date + (length(doc::json ->> 'start_date') > 10)::int,
    due_date = 2 * due_date + (length(doc::json ->> 'due_date') > 10)::int
WHERE start_date IS NOT NULL OR due_date IS NOT NULL;
UPDATE tasks SET
    start_date = 2 * start_date + (length(doc::json ->> 'start_date') > 10)::int,
    due_date = 2 * due_date + (length(doc::json ->> 'due_date') > 10)::int,
    doc = substr(doc, 1, 8 + length(id)) || ',"recurrence_from":"due_date","timezone":null' || substr(doc, 9 + length(id));
-- end
