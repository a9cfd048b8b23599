"""The operations under /v1: the routes of each resource with the functions that answer them."""
