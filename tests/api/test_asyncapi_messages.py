"""What streams and sockets really say, held against the AsyncAPI document; and what it says that one may ask."""

import json
from typing import Any

import jsonschema_rs
import pytest
from taskade_server.http.documents import asyncapi

from tests.api.asking import create
from tests.support.listening import Listener
from tests.support.websocket import WebSocket

DOCUMENT: dict[str, Any] = json.loads(asyncapi.render())


def faults(name, message):
    """What is wrong with a message, by its schema, which is taken to name every member."""
    payload = DOCUMENT["components"]["messages"][name]["payload"]
    text = json.dumps(payload).replace('"#/', '"urn:document#/')
    registry = jsonschema_rs.Registry([("urn:document", DOCUMENT)])
    validator = jsonschema_rs.Draft202012Validator(json.loads(text), registry=registry)
    return [f"{name}: {error.message[:200]}" for error in validator.iter_errors(message)]


def test_what_a_stream_says(server, api, a_project):
    with Listener(server.url, server.key, project_id=a_project["id"], after=0) as listener:
        create(api, "tasks", name="x", project_id=a_project["id"])
        messages = listener.until(lambda found: any(item.type == "task.created" for item in found))
    kinds = [item.type for item in messages]
    assert kinds[0] == "ready" and "project.created" in kinds
    assert [fault for item in messages for fault in faults(item.type, item.data)] == []


def test_what_a_socket_says(server, api, a_project):
    project = a_project["id"]
    asked = [
        {"type": "subscribe", "id": "events", "events": ["task.*"], "project_id": project},
        {"type": "subscribe", "id": "list", "query": {"resource": "tasks", "filter": {"project_id": project}}},
        {"type": "presence", "project_id": project, "state": {"place": "board"}},
        {"type": "ping", "id": "1"},
    ]
    with WebSocket(server.url, server.key) as socket:
        for message in asked:
            socket.send(**message)
        socket.until_type("snapshot")
        task = create(api, "tasks", name="x", project_id=project)["id"]
        socket.until_type("added")
        api.patch(f"/v1/tasks/{task}", json={"name": "y"})
        socket.until_type("changed")
        api.delete(f"/v1/tasks/{task}")
        socket.until_type("removed")
        socket.send(type="unsubscribe", id="events")
        socket.until_type("unsubscribed")
        socket.send(type="subscrib")
        socket.until_type("error")
        socket.until_type("presence")
        socket.until_type("pong")
        messages = list(socket.messages)
    kinds = {message["type"] for message in messages}
    assert kinds >= {
        "hello",
        "subscribed",
        "event",
        "snapshot",
        "added",
        "changed",
        "removed",
        "ready",
        "presence",
        "pong",
        "unsubscribed",
        "error",
    }
    assert [fault for message in messages for fault in faults(f"socket.{message['type']}", message)] == []
    for message, name in zip(asked, ("subscribe.events", "subscribe.list", "presence", "ping"), strict=True):
        assert faults(f"client.{name}", message) == []


@pytest.mark.parametrize("name", [name for name in DOCUMENT["components"]["messages"] if name.startswith("client.")])
def test_every_example_of_what_a_client_says_is_understood(server, a_project, a_task, name):
    """Nothing is answered with an error, once the ids of the example are those of something that is there."""
    text = json.dumps(DOCUMENT["components"]["messages"][name]["examples"][0]["payload"])
    sample = text.replace("proj_01j9zq3v5kfg8wt2m4n6p8r0s2", a_project["id"])
    message = json.loads(sample.replace("task_01j9zq3v5kfg8wt2m4n6p8r0s2", a_task["id"]))
    message.pop("after", None)
    with WebSocket(server.url, server.key) as socket:
        if name == "client.unsubscribe":
            socket.send(type="subscribe", id=message["id"])
        socket.send(**message)
        socket.send(type="ping", id="done")
        socket.until_type("pong", id="done")
        assert [item for item in socket.messages if item["type"] == "error"] == []
