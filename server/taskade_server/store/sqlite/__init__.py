"""The SQLite database: one writer that commits in groups, and readers beside it."""
