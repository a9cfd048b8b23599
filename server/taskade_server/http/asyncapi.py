"""The AsyncAPI document: what a client receives over connections that stay open, from the same catalogue of events.

Why its schemas are references into the OpenAPI document beside it: an event is the same wherever it is read, and a copy
of its schema would be a second promise.
"""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from taskade_server import __version__
from taskade_server.consumers.follower import RESYNC, REVOKED
from taskade_server.engine import event_schema, events
from taskade_server.engine.schema import Schema, sample_id
from taskade_server.http import openapi
from taskade_server.http.socket_schema import BESIDE, FROM_CLIENT, FROM_SERVER, Said, payload

_FORMAT: Final = "application/vnd.oai.openapi+json;version=3.1.0"
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
    followed = {name: _event(name) for name in events.catalogue()} | _about_the_stream()
    heard = {f"socket.{name}": _of_socket(name, said, closed=False) for name, said in FROM_SERVER.items()}
    asked = {f"client.{name}": _of_socket(name, said, closed=True) for name, said in FROM_CLIENT.items()}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Taskade API: events",
            "version": __version__,
            "description": _ABOUT,
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "stream": _server("http", "A server of your own; https behind a proxy that has a certificate."),
            "socket": _server("ws", "The same by WebSocket; wss behind a proxy."),
        },
        "channels": {"events": _stream_channel(followed), "realtime": _socket_channel({**asked, **heard})},
        "operations": {
            "followEvents": {
                **_operation("send", "events", followed),
                "title": "Follow what happens",
                "summary": "The server sends the events that the parameters choose, as far as the key may see them.",
                "bindings": {"http": {"method": "GET", "query": _query(), "bindingVersion": "0.3.0"}},
            },
            "ask": {
                **_operation("receive", "realtime", asked),
                "title": "Ask",
                "summary": "The server takes subscriptions to events and to lists, and who is looking.",
            },
            "tell": {
                **_operation("send", "realtime", heard),
                "title": "Tell",
                "summary": "The server sends what was subscribed to, and what became of what was asked.",
            },
        },
        "components": {
            "messages": {**followed, **asked, **heard},
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key; browsers, which cannot send the header, take a ticket of"
                    " `POST /v1/stream-tickets` as the parameter `ticket`.",
                }
            },
        },
    }


def _operation(action: str, channel: str, messages: Mapping[str, Schema]) -> Schema:
    listed = [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in messages]
    return {"action": action, "channel": {"$ref": f"#/channels/{channel}"}, "messages": listed}


def _stream_channel(messages: Mapping[str, Schema]) -> Schema:
    return {
        "address": _STREAM,
        "title": "Server-Sent Events",
        "description": "`event:` is the type, `id:` the `seq`, `data:` the JSON text of a message. A comment comes"
        " every 15 seconds without one. `Last-Event-ID` or `after` say where to go on.",
        "servers": [{"$ref": "#/servers/stream"}],
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
    }


def _socket_channel(messages: Mapping[str, Schema]) -> Schema:
    return {
        "address": "/realtime",
        "title": "WebSocket",
        "description": "Messages are JSON objects in text frames; `type` says which. Many subscriptions share one"
        " connection, each with a name and a place of its own.",
        "servers": [{"$ref": "#/servers/socket"}],
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        "bindings": {"ws": {"method": "GET", "bindingVersion": "0.1.0"}},
    }


def _of_socket(name: str, said: Said, *, closed: bool) -> Schema:
    schema = {"schemaFormat": _FORMAT, "schema": payload(name, said, closed=closed)}
    return _message(name, said.summary, schema, said.example or None)


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
        "payload": {"schemaFormat": _FORMAT, "schema": {"$ref": BESIDE + event_schema.name_of(kind.resource)}},
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
    end = {"schemaFormat": _FORMAT, "schema": {"$ref": f"{BESIDE}Problem"}}
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
