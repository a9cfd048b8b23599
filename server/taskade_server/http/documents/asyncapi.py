"""The AsyncAPI document: the messages of connections that stay open, from the same catalogue of events.

It holds copies of the schemas of the OpenAPI document that it needs, so that tools can read it alone. Two things are
left out of the copies. Members that only `include` adds, which no event has, would make every schema refer to every
other. `discriminator` is an object in OpenAPI and a text in AsyncAPI.
"""

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final

from taskade_server import __version__
from taskade_server.consumers.follower import RESYNC, REVOKED
from taskade_server.engine import event_schema, events
from taskade_server.engine.model import REGISTRY
from taskade_server.engine.schema import Schema, ref, sample_id, title
from taskade_server.http.documents import openapi
from taskade_server.http.live.websocket_schema import FROM_CLIENT, FROM_SERVER, MessageType, payload

_STREAM: Final = "/events/stream"
_ABOUT: Final = """\
The events of a workspace as they happen. `seq` numbers them without gaps. A client that reconnects says which was the
last one it received, and misses nothing. Schemas of objects are the same as in the OpenAPI document, `/openapi.json`.
"""


@cache
def render(*, pretty: bool = False) -> str:
    """The document as JSON text: without spaces, as the server sends it, or indented for people."""
    if pretty:
        return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"
    return json.dumps(document(), separators=(",", ":"), ensure_ascii=False)


_BEARER: Final = {
    "type": "http",
    "scheme": "bearer",
    "description": "An API key. Browsers cannot send the header: they put a ticket from"
    " `POST /v1/stream-tickets` into the parameter `ticket`.",
}


def document() -> Schema:
    """The whole document."""
    known = openapi.document()
    followed = {name: _event(name) for name in events.catalogue()} | _about_the_stream()
    heard = {f"socket.{name}": _of_socket(name, said, closed=False) for name, said in FROM_SERVER.items()}
    asked = {f"client.{name}": _of_socket(name, said, closed=True) for name, said in FROM_CLIENT.items()}
    return {
        "asyncapi": "3.1.0",
        "info": {
            "title": "Taskade API: events",
            "version": __version__,
            "description": _ABOUT,
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "stream": _server("http", "A server of your own. Behind a proxy with a certificate: https."),
            "socket": _server("ws", "The same server by WebSocket. Behind a proxy with a certificate: wss."),
        },
        "channels": {"events": _stream_channel(followed), "realtime": _socket_channel({**asked, **heard})},
        "operations": {
            "followEvents": {
                **_operation("send", "events", followed),
                "title": "Follow what happens",
                "summary": "The server sends the events that the parameters select and that the key may see.",
                "bindings": {"http": {"method": "GET", "query": _query(known), "bindingVersion": "0.3.0"}},
            },
            "subscribe": {
                **_operation("receive", "realtime", asked),
                "title": "Subscribe",
                "summary": "The server receives subscriptions to events and to lists, and who is looking at a project.",
            },
            "receive": {
                **_operation("send", "realtime", heard),
                "title": "Receive",
                "summary": "The server sends what was subscribed to, and the result of each request.",
            },
        },
        "components": {
            "messages": {**followed, **asked, **heard},
            "schemas": _needed([followed, asked, heard], known["components"]["schemas"]),
            "securitySchemes": {"bearer": _BEARER},
        },
    }


def _operation(action: str, channel: str, messages: Mapping[str, Schema]) -> Schema:
    listed = [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in messages]
    return {"action": action, "channel": {"$ref": f"#/channels/{channel}"}, "messages": listed}


def _stream_channel(messages: Mapping[str, Schema]) -> Schema:
    return {
        "address": _STREAM,
        "title": "Server-Sent Events",
        "description": "In each message, `event:` is the type, `id:` is the `seq`, and `data:` is the JSON text. A"
        " comment comes after 15 seconds without a message. `Last-Event-ID` or `after` says where to continue.",
        "servers": [{"$ref": "#/servers/stream"}],
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
    }


def _socket_channel(messages: Mapping[str, Schema]) -> Schema:
    return {
        "address": "/realtime",
        "title": "WebSocket",
        "description": "Messages are JSON objects in text frames, whose `type` says what they are. One connection can"
        " have many subscriptions, each with a name and a position of its own.",
        "servers": [{"$ref": "#/servers/socket"}],
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        "bindings": {"ws": {"method": "GET", "bindingVersion": "0.1.0"}},
    }


def _of_socket(name: str, said: MessageType, *, closed: bool) -> Schema:
    return _message(name, said.summary, payload(name, said, closed=closed), said.example or None)


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
        "payload": ref(event_schema.name_of(kind.resource)),
    }


def _about_the_stream() -> dict[str, Schema]:
    """The messages of a stream that are not events."""
    text, seq = {"type": "string"}, {"type": "integer", "minimum": 0}
    workspace = {"workspace_id": {**text, "description": "The workspace."}}
    place = {**workspace, "seq": {**seq, "description": "Everything after this position will be sent."}}
    lost = {
        **place,
        "reason": {
            **text,
            "description": "`log`: the log no longer reaches back that far. `access`: the key may see less now.",
        },
    }
    gone = {
        **workspace,
        "resource": {**text, "description": "The kind of object."},
        "id": {**text, "description": "The object."},
        "seq": {"type": ["integer", "null"], "description": "The event that took it away, if there was one."},
    }
    home, task = sample_id("ws"), sample_id("task")
    return {
        "ready": _message(
            "ready",
            "The first message: nothing is missed from here on.",
            _object(place),
            {"workspace_id": home, "seq": 123},
        ),
        RESYNC: _message(
            RESYNC,
            "Read everything again: events are missing.",
            _object(lost),
            {"workspace_id": home, "seq": 123, "reason": "log"},
        ),
        REVOKED: _message(
            REVOKED,
            "An object, and what belongs to it, can no longer be seen: remove it.",
            _object(gone),
            {"workspace_id": home, "resource": "task", "id": task, "seq": 124},
        ),
        "end": _message("end", "Why the stream ends, as a problem document (RFC 9457).", ref("Problem"), None),
    }


def _message(name: str, summary: str, payload: Schema, example: Any) -> Schema:
    found = {"name": name, "title": name, "summary": summary, "contentType": "application/json", "payload": payload}
    return found if example is None else {**found, "examples": [{"payload": example}]}


def _object(properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _query(known: Schema) -> Schema:
    """The parameters of the stream, as the OpenAPI document has them."""
    shared = known["components"]["parameters"]
    found = [shared[item["$ref"].rpartition("/")[2]] for item in known["paths"][_STREAM]["get"]["parameters"]]
    chosen = {
        item["name"]: {"type": "string", "description": item["description"]} for item in found if item["in"] == "query"
    }
    return {"type": "object", "properties": chosen}


# ---- schemas of the OpenAPI document ---------------------------------------------------------------------------------

_EITHER: Final = re.compile(r"(#/components/schemas/\w+)OrId")
"""The id of an object or the whole object, if `include` asks for it."""


def _needed(messages: list[dict[str, Schema]], known: Schema) -> Schema:
    """The schemas that messages refer to, and those that these refer to."""
    found: Schema = {}
    waiting = list(_references(messages))
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = _copy(name, known)
            waiting += _references(found[name])
    return dict(sorted(found.items()))


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str) and "/schemas/" in node["$ref"]:
            yield node["$ref"].rpartition("/")[2]
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            yield from _references(item)


def _copy(name: str, known: Schema) -> Schema:
    """A schema without examples, without `discriminator`, and without what only `include` adds."""
    found: Schema = _plain(known[name])
    if name in map(title, REGISTRY):
        found["properties"] = {member: found["properties"][member] for member in found["required"]}
    return found


def _plain(node: Any) -> Any:
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    either = _EITHER.fullmatch(str(node.get("$ref", "")))
    if either is not None:
        return {**node, "$ref": f"{either[1]}Id"}
    return {name: _plain(value) for name, value in node.items() if name not in ("discriminator", "examples")}
