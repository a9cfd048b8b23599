"""SQL for the layers above: units of work on SQLite or PostgreSQL, and the migrations of their schema."""
