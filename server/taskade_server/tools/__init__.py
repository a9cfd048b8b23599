"""Tools for people who build on the API; they know a server by its address and a key, never by its database."""
