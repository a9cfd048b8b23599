"""A fuzzer that plays many hostile clients at once, and judges the answers without the server's own code."""
