"""Responses that last: event streams and the WebSocket."""
