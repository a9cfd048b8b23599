"""Paths outside /v1: pages, forms and applications that are mounted there, asked through the pipeline."""

import asyncio
import json
from typing import Any

import pytest
from taskade_server.http.admission.credentials import Credentials
from taskade_server.http.admission.limits import Limits
from taskade_server.http.pages.mounts import Mount, Mounts
from taskade_server.http.pipeline.pipeline import Pipeline
from taskade_server.http.pipeline.services import Services
from taskade_server.http.wire.body import read_body
from taskade_server.http.wire.reply import Reply
from taskade_server.http.wire.request import Receive, Request
from taskade_server.store.database import Database

from tests.unit.test_guard import Client

SECRET = b"x" * 32


async def page(request: Request) -> Reply:
    return Reply(200, f"the page {request.path}")


async def form(request: Request, receive: Receive) -> Reply:
    body = await read_body(request, receive, 1000)
    return Reply(200, f"{request.method} {body.decode()}")


async def application(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 299, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


MOUNTS = (
    Mount("/sign-in", page, forms={"POST": form}),
    Mount("/only-forms", forms={"POST": form, "DELETE": form}),
    Mount("/console/", page, below=True),
    Mount("/console/app/", application=application, below=True),
)


def ask(db: Database, method: str, path: str, *pieces: bytes) -> Client:
    """The client that asked, with its answer."""
    limits = Limits()
    pipeline = Pipeline(Services(db, SECRET, limits, Credentials(db, SECRET, limits)), Mounts(MOUNTS))
    client = Client("", method, path, *pieces)
    asyncio.run(pipeline(client.scope, client.receive, client.send))
    return client


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("GET", "/sign-in", 200, b"the page /sign-in"),
        ("HEAD", "/sign-in", 200, b""),
        ("POST", "/sign-in", 200, b"POST a=1&b=2"),
        ("DELETE", "/only-forms", 200, b"DELETE a=1&b=2"),
        ("GET", "/console/a/b", 200, b"the page /console/a/b"),
        ("GET", "/console/app/x", 299, b"/console/app/x"),
        ("BREW", "/console/app/x", 299, b"/console/app/x"),
    ],
)
def test_a_mount_answers(sqlite_db, method, path, status, body):
    client = ask(sqlite_db, method, path, b"a=1&", b"b=2")
    assert (client.status, client.body) == (status, body)


@pytest.mark.parametrize(
    ("method", "path", "status", "says", "allow"),
    [
        ("PUT", "/sign-in", 405, "/sign-in supports GET, HEAD and POST.", b"GET, HEAD, POST, OPTIONS"),
        ("GET", "/only-forms", 405, "/only-forms supports DELETE and POST.", b"DELETE, POST, OPTIONS"),
        ("POST", "/console/", 405, "/console/ supports GET and HEAD.", b"GET, HEAD, OPTIONS"),
        ("GET", "/sign-in/", 404, "There is no path /sign-in/. Did you mean /sign-in?", None),
        ("GET", "/console", 404, "There is no path /console.", None),
    ],
)
def test_what_is_not_mounted_is_refused(sqlite_db, method, path, status, says, allow):
    client = ask(sqlite_db, method, path)
    assert client.status == status
    assert json.loads(client.body)["detail"].startswith(says)
    assert dict(client.sent[0]["headers"]).get(b"allow") == allow


def test_options_of_a_mount_are_its_methods(sqlite_db):
    client = ask(sqlite_db, "OPTIONS", "/sign-in")
    assert (client.status, dict(client.sent[0]["headers"])[b"allow"]) == (204, b"GET, HEAD, POST, OPTIONS")


@pytest.mark.parametrize("mounts", [[Mount("/v1/x", page)], [Mount("/a", page), Mount("/a", page)]])
def test_a_mount_that_could_not_answer_is_refused(mounts):
    with pytest.raises(ValueError, match=r"/v1/|Two mounts"):
        Mounts(mounts)
