"""The wire: routes, the pipeline they run through, and the documents that describe them."""
