"""HTTP as the handlers see it: requests, bodies and replies, and their translation from and to ASGI."""
