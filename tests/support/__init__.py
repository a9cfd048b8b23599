"""Helpers that start real things: a PostgreSQL, a server, the other languages' tools."""
