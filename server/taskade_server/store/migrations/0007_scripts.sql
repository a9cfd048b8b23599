-- What names are sorted by: without case and accents, numbers by their size. NULL where that is what `name_folded` holds.
ALTER TABLE workspaces ADD COLUMN name_sort {{text}};
ALTER TABLE users ADD COLUMN name_sort {{text}};
ALTER TABLE projects ADD COLUMN name_sort {{text}};
ALTER TABLE templates ADD COLUMN name_sort {{text}};
ALTER TABLE tasks ADD COLUMN name_sort {{text}};
ALTER TABLE api_keys ADD COLUMN name_folded {{text}} NOT NULL DEFAULT '';
ALTER TABLE api_keys ADD COLUMN name_sort {{text}};

-- The rows that are here by now get their keys, and their words by today's rules, from the program: page by page, and
-- this is where it notes how far it has come. An empty database has nothing to bring up to date.
INSERT INTO settings (name, value) SELECT 'texts_to_renew', '' WHERE EXISTS (SELECT 1 FROM users);
