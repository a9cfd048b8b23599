"""Tables that are no resources: one file for each."""
