-- The tasks of one place in their order. Without these, a task that is moved reads its whole project, once for each side.
-- Two, because PostgreSQL takes no order from an index behind a column that IS NULL; a task is in one of them.
CREATE INDEX tasks_by_project_id_position ON tasks (project_id, position, n)
WHERE parent_id IS NULL AND deleted_at IS NULL;
CREATE INDEX tasks_by_parent_id_position ON tasks (parent_id, position, n)
WHERE parent_id IS NOT NULL AND deleted_at IS NULL;
