"""The AsyncAPI document: what a client receives over connections that stay open, from the same catalogue of events.

Why its schemas are references into the OpenAPI document beside it: an event is the same wherever it is read, and a copy
of its schema would be a second promise.
"""

import json
from functools import cache
from typing import Any, Final

from taskade_server import __version__
from taskade_server.consumers.follower import RESYNC, REVOKED
from taskade_server.engine import event_schema, events
from taskade_server.engine.schema import Schema, sample_id
from taskade_server.http import openapi

_FORMAT: Final = "application/vnd.oai.openapi+json;version=3.1.0"
_BESIDE: Final = "./openapi.json#/components/schemas/"
_STREAM: Final = "/events/stream"
_ABOUT: Final = """\
Events of a workspace as they happen. Each is numbered by its `seq`, without gaps; a client that comes back says how far
it is, and misses nothing. Schemas are those of the OpenAPI document, `/openapi.json`.
"""


@cache
def render() -> str:
    """The document as JSON text."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


def document() -> Schema:
    """The document."""
    messages = {name: _event(name) for name in events.catalogue()} | _about_the_stream()
    listed = {name: {"$ref": f"#/components/messages/{name}"} for name in messages}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Taskade API: events",
            "version": __version__,
            "description": _ABOUT,
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "servers": {"own": _server("http", "A server of your own.")},
        "channels": {
            "events": {
                "address": _STREAM,
                "title": "Server-Sent Events",
                "description": "`event:` is the type, `id:` the `seq`, `data:` the JSON text of a message. A comment"
                " comes every 15 seconds without one. `Last-Event-ID` or `after` say where to go on.",
                "messages": listed,
            }
        },
        "operations": {
            "followEvents": {
                "action": "send",
                "channel": {"$ref": "#/channels/events"},
                "title": "Follow what happens",
                "summary": "The server sends the events that the parameters choose, as far as the key may see them.",
                "bindings": {"http": {"method": "GET", "query": _query(), "bindingVersion": "0.3.0"}},
                "messages": [{"$ref": f"#/channels/events/messages/{name}"} for name in messages],
            }
        },
        "components": {
            "messages": messages,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "description": "An API key."}},
        },
    }


def _server(protocol: str, description: str) -> Schema:
    return {
        "host": "{address}",
        "pathname": "/v1",
        "protocol": protocol,
        "description": description,
        "variables": {"address": {"default": "127.0.0.1:8000", "description": "Host and port."}},
        "security": [{"$ref": "#/components/securitySchemes/bearer"}],
    }


def _event(name: str) -> Schema:
    kind = events.catalogue()[name]
    return {
        "name": name,
        "title": name,
        "summary": kind.summary,
        "contentType": "application/json",
        "payload": {"schemaFormat": _FORMAT, "schema": {"$ref": _BESIDE + event_schema.name_of(kind.resource)}},
        "examples": [{"payload": event_schema.sample(kind)}],
    }


def _about_the_stream() -> dict[str, Schema]:
    """The messages that are no events."""
    text, seq = {"type": "string"}, {"type": "integer", "minimum": 0}
    workspace = {"workspace_id": {**text, "description": "The workspace."}}
    place = {**workspace, "seq": {**seq, "description": "Whatever is behind this position will be told."}}
    lost = {
        **place,
        "reason": {
            **text,
            "description": "`log`: the log no longer reaches back so far; `access`: the key may see less by now.",
        },
    }
    gone = {
        **workspace,
        "resource": {**text, "description": "What kind of object."},
        "id": {**text, "description": "Which one."},
        "seq": {"type": ["integer", "null"], "description": "The event by which it went, if it was one."},
    }
    home, task = sample_id("ws"), sample_id("task")
    end = {"schemaFormat": _FORMAT, "schema": {"$ref": f"{_BESIDE}Problem"}}
    return {
        "ready": _message(
            "ready",
            "The first message: from here on nothing is missed.",
            _object(place),
            {"workspace_id": home, "seq": 123},
        ),
        RESYNC: _message(
            RESYNC,
            "What is shown has to be read anew.",
            _object(lost),
            {"workspace_id": home, "seq": 123, "reason": "log"},
        ),
        REVOKED: _message(
            REVOKED,
            "An object cannot be seen any more, nor what is in it: forget it.",
            _object(gone),
            {"workspace_id": home, "resource": "task", "id": task, "seq": 124},
        ),
        "end": _message("end", "Why there is nothing more, as a problem document (RFC 9457).", end, None),
    }


def _message(name: str, summary: str, payload: Schema, example: Any) -> Schema:
    found = {"name": name, "title": name, "summary": summary, "contentType": "application/json", "payload": payload}
    return found if example is None else {**found, "examples": [{"payload": example}]}


def _object(properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _query() -> Schema:
    """The parameters of the stream, as the OpenAPI document has them."""
    found = openapi.document()["paths"][_STREAM]["get"]["parameters"]
    shared = openapi.document()["components"]["parameters"]
    whole = [item if "name" in item else shared[item["$ref"].rpartition("/")[2]] for item in found]
    chosen = {item["name"]: {"type": "string", "description": item["description"]} for item in whole
              if item["in"] == "query"}  # fmt: skip
    return {"type": "object", "properties": chosen}
