"""Measures the server beside its peers on one machine. Ratios travel between machines; requests per second do not."""
