"""Mechanisms without business nouns: the resource model, the query engine, the access predicate and the log."""
