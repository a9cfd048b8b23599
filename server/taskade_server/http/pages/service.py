"""What is served outside /v1: the welcome, health, the documents of the API and a page for every error code.

Why an error page in the server itself: the `type` of a problem then leads somewhere on every installation,
online or not.
"""

from collections.abc import Callable, Mapping
from typing import Final

from taskade_server import __version__
from taskade_server.http.pages.mounts import Mount
from taskade_server.http.wire.reply import Reply
from taskade_server.http.wire.request import Request
from taskade_server.kit import json
from taskade_server.kit.errors import NotFound, Problem, Unavailable, did_you_mean, problem_classes
from taskade_server.store.database import Database, StoreError

PROBLEMS: Final[dict[str, type[Problem]]] = {cls.code: cls for cls in problem_classes()}


def mounts(db: Database, documents: Mapping[str, str], stays: Callable[[], bool]) -> list[Mount]:
    """The pages, among them `documents` by their path. `stays` says whether this process is not about to end."""

    async def welcome(request: Request) -> Reply:
        links = {
            "api": "/v1",
            "openapi": "/openapi.json",
            "asyncapi": "/asyncapi.json",
            "errors": "/problems",
            "health": "/health",
            "ready": "/ready",
        }
        return Reply(200, json.encode({"name": "Taskade API server", "version": __version__, "links": links}))

    async def health(request: Request) -> Reply:
        return Reply(200, '{"status":"ok"}')

    async def ready(request: Request) -> Reply:
        if not stays():
            raise Unavailable("This process is about to end.", headers={"retry-after": "1"})
        try:
            await db.read(
                lambda tx: tx.one("SELECT value FROM counters WHERE name = 'grants'"), caller=request.claimed_caller
            )
        except StoreError as error:
            raise Unavailable("The database does not answer.", headers={"retry-after": "1"}) from error
        return Reply(200, '{"status":"ready"}')

    async def document(request: Request) -> Reply:
        return Reply(200, documents[request.path], [(b"cache-control", b"no-cache")])

    async def problems(request: Request) -> Reply:
        return Reply(200, json.encode([describe(cls) for cls in PROBLEMS.values()]))

    return [
        Mount("/", welcome),
        Mount("/v1", welcome),
        Mount("/health", health),
        Mount("/ready", ready),
        Mount("/problems", problems),
        *(Mount(path, document) for path in documents),
        Mount("/problems/", _problem, below=True),
    ]


async def _problem(request: Request) -> Reply:
    code = request.path.removeprefix("/problems/")
    if not code:
        raise NotFound("Name an error, as in /problems/not-found. GET /problems lists them all.")
    if code not in PROBLEMS:
        raise NotFound(f'There is no error "{code[:80]}".{did_you_mean(code, PROBLEMS)} GET /problems lists them all.')
    return Reply(200, json.encode(describe(PROBLEMS[code])))


def describe(cls: type[Problem]) -> dict[str, object]:
    """An error code for people: what it means and what to do."""
    return {
        "code": cls.code,
        "status": cls.status,
        "title": cls.title,
        "meaning": (cls.__doc__ or "").strip(),
        "what_to_do": cls.advice,
    }
