"""The AsyncAPI document: current, valid, and about everything that a stream can say."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from taskade_server.consumers import presence
from taskade_server.engine import events
from taskade_server.http.documents import asyncapi, openapi
from taskade_server.http.live import websocket as realtime
from taskade_server.http.live import websocket_schema as socket_schema

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT: dict[str, Any] = json.loads(asyncapi.render())
MESSAGES = DOCUMENT["components"]["messages"]


def walk(node: Any) -> Any:
    if isinstance(node, dict):
        yield node
        for item in node.values():
            yield from walk(item)
    elif isinstance(node, list):
        for item in node:
            yield from walk(item)


def test_the_committed_document_is_current():
    committed = (ROOT / "asyncapi.json").read_text(encoding="utf-8")
    assert committed == asyncapi.render(pretty=True), "the document has changed: run `make openapi`"


def test_the_document_is_valid_asyncapi():
    path = ROOT / "tests/story/node/node_modules/@asyncapi/specs/schemas/3.1.0-without-$id.json"
    if not path.exists():
        pytest.fail("@asyncapi/specs is not installed: run the tests with `make test`")
    validator = jsonschema_rs.Draft7Validator(json.loads(path.read_text(encoding="utf-8")))
    assert [f"{error.instance_path}: {error.message[:200]}" for error in validator.iter_errors(DOCUMENT)] == []
    assert not validator.is_valid({**DOCUMENT, "channels": {"events": {"adress": "/events"}}})


def test_every_reference_leads_somewhere():
    """Within the document: tools read it alone."""
    found = [node["$ref"] for node in walk(DOCUMENT) if isinstance(node.get("$ref"), str)]
    assert len(found) > len(MESSAGES)
    for reference in found:
        place: Any = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]


def test_schemas_are_those_of_the_openapi_document_as_far_as_events_have_their_members():
    """Copies without what only `include` adds, so that none refers to itself by way of another."""
    known = openapi.document()["components"]["schemas"]
    copies = DOCUMENT["components"]["schemas"]
    assert {"Event", "TaskEvent", "Task", "Problem"} <= set(copies) < set(known)
    assert list(copies["Task"]["properties"]) == known["Task"]["required"]
    assert copies["Task"]["properties"]["priority"] == known["Task"]["properties"]["priority"]
    assert [node for node in walk(DOCUMENT) if "discriminator" in node] == []
    for name in copies:
        assert name not in reached(copies, name), name


def reached(schemas: dict[str, Any], name: str) -> set[str]:
    """The schemas that one refers to, in any number of steps. A batch tells of problems within a problem."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        place = waiting.pop()
        for node in walk(schemas[place]):
            other = str(node.get("$ref", "")).rpartition("/")[2]
            if other and other not in found and (place, other) != ("BatchFailure", "Problem"):
                found.add(other)
                waiting.append(other)
    return found


def test_every_type_of_event_is_a_message():
    assert set(events.catalogue()) < set(MESSAGES)
    for channel in DOCUMENT["channels"].values():
        assert channel["description"].endswith(".")


@pytest.mark.parametrize("name", MESSAGES)
def test_examples_satisfy_their_schemas(name):
    message = MESSAGES[name]
    payload = message["payload"]
    registry = jsonschema_rs.Registry([("urn:document", DOCUMENT)])
    text = json.dumps(payload).replace('"#/', '"urn:document#/')
    validator = jsonschema_rs.Draft202012Validator(json.loads(text), registry=registry, validate_formats=True)
    for example in message.get("examples", []):
        assert [error.message for error in validator.iter_errors(example["payload"])] == []
    assert message["summary"].endswith(".")
    assert not validator.is_valid({})


def test_whatever_the_socket_can_say_or_be_asked_is_a_message():
    """Read from the code: the types of what is sent, and those that are understood."""
    sent = {"added", "changed", "removed", "resync", "access.revoked", "error", "end"}
    for module in (realtime, presence):
        sent |= set(re.findall(r'"type": ?"([a-z.]+)"', Path(str(module.__file__)).read_text(encoding="utf-8")))
    assert len(sent) > 12, "messages are made differently now: mend this test"
    sent = {name for name in sent if not name.startswith("websocket.")}
    assert sent - set(realtime.KINDS) - set(socket_schema.FROM_SERVER) == set()
    asked = {name.partition(".")[0] for name in socket_schema.FROM_CLIENT}
    assert asked == set(realtime.KINDS)
