-- What the readers of the log may see: what is not known about a place is not shown.

-- Projects that were removed for good while every member of their workspace could see them: members may go on reading
-- their history. Of any other purged project nothing is kept, so that only owners and admins see what happened in it.
CREATE TABLE purged_projects (
    id {{text}} PRIMARY KEY,
    workspace_id {{text}} NOT NULL
);
INSERT INTO purged_projects (id, workspace_id)
SELECT object_id, MAX(workspace_id) FROM events
WHERE resource = 'project' AND type = 'project.purged'
AND NOT EXISTS (SELECT 1 FROM projects p WHERE p.id = events.object_id)
GROUP BY object_id
HAVING MAX(CASE WHEN data LIKE '%"visibility":"private"%' THEN 1 ELSE 0 END) = 0;

-- Events about a user from a time when the user was no member of the workspace in whose log they are.
CREATE TABLE absent_users (
    event_id {{text}} PRIMARY KEY
);
INSERT INTO absent_users (event_id)
SELECT e.id FROM events e
WHERE e.resource = 'user' AND (
    SELECT m.type FROM events m
    WHERE m.workspace_id = e.workspace_id AND m.resource = 'member' AND m.project_id IS NULL AND m.seq < e.seq
    AND m.type IN ('member.added', 'member.removed') AND m.data LIKE '%"user":"' || e.object_id || '"%'
    ORDER BY m.seq DESC LIMIT 1
) = 'member.removed';
