"""The way of a request from its bytes to its answer."""
