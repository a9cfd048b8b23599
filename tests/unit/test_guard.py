"""The guard before the pipeline: what requests hold is counted, shared out and given back, whatever becomes of them."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from taskade_server.engine.access import Principal
from taskade_server.http.admission import guard as module
from taskade_server.http.admission.credentials import Credentials
from taskade_server.http.admission.guard import Guard
from taskade_server.http.admission.limits import Limits
from taskade_server.http.observe.requests import Observer
from taskade_server.http.pages.mounts import Mount, Mounts
from taskade_server.http.pipeline.pipeline import Pipeline
from taskade_server.http.pipeline.services import Services
from taskade_server.http.wire.call import Call
from taskade_server.http.wire.reply import Reply
from taskade_server.http.wire.request import Request, check_headers
from taskade_server.http.wire.send import LENGTH, WHOLE_BYTES
from taskade_server.kit.errors import Malformed, Unavailable

from tests.unit.test_observe import Log

KIB = 1024
LARGE = b"x" * (200 * KIB)


class Client:
    """The other end: `pieces` are its body, `sent` is what it got. A `stalled` one takes nothing."""

    def __init__(self, key: str = "ana", method: str = "POST", path: str = "/v1/tasks", *pieces: bytes) -> None:
        self.scope = {
            "type": "http", "method": method, "path": path, "query_string": b"", "client": ("127.0.0.1", "5000"),
            "headers": [(b"host", b"x"), *([(b"authorization", key.encode())] if key else [])],
        }  # fmt: skip
        self.pieces = [*pieces]
        self.sent: list[Any] = []
        self.stalled = False

    async def receive(self) -> Any:
        piece = self.pieces.pop(0) if self.pieces else b""
        return {"type": "http.request", "body": piece, "more_body": bool(self.pieces)}

    async def send(self, message: Any) -> None:
        if self.stalled and message.get("body"):
            await asyncio.Event().wait()
        self.sent.append(message)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


def answering(
    body: bytes = b"ok", *, reads: bool = True, meanwhile: Callable[[], Awaitable[None]] | None = None
) -> Any:
    """An application that reads the whole body and answers so, if there is room."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        while reads and (await receive())["more_body"]:
            pass
        if meanwhile is not None:
            await meanwhile()
        start = {"type": "http.response.start", "status": 200, "headers": []}
        await send({**start, LENGTH: len(body)} if len(body) > WHOLE_BYTES else start)
        await send({"type": "http.response.body", "body": body})

    return application


def serve(guard: Guard, *clients: Client) -> None:
    async def all_of_them() -> None:
        await asyncio.gather(*(guard(client.scope, client.receive, client.send) for client in clients))

    asyncio.run(all_of_them())


def test_a_body_is_counted_while_the_request_is_under_way():
    held = []

    async def look() -> None:
        held.append(guard.bytes_held)

    guard = Guard(answering(meanwhile=look))
    client = Client("ana", "POST", "/v1/tasks", b"a" * 100, b"b" * 50)
    serve(guard, client)
    assert (held, guard.bytes_held, client.body) == ([150], 0, b"ok")
    assert guard.stats() == {"guard_held_bytes": 0, "guard_refused_total": 0, "guard_cut_off_total": 0}


@pytest.mark.parametrize(("pieces", "counted"), [([4096], 0), ([4097], 4097), ([9, 9], 18)])
def test_a_small_body_need_not_be_counted(pieces, counted):
    held = []

    async def look() -> None:
        held.append(guard.bytes_held)

    guard = Guard(answering(meanwhile=look))
    serve(guard, Client("ana", "POST", "/v1/tasks", *[b"x" * size for size in pieces]))
    assert (held, guard.bytes_held) == ([counted], 0)


@pytest.mark.parametrize("credential", ["Bearer ana", "Bearer  ana", "Bearer \t ana", " Bearer ana "])
def test_however_a_credential_is_spaced_it_is_one_caller(credential):
    seen: list[Any] = []

    async def look() -> None:
        seen.extend(exchange.caller() for exchange in guard._under_way)

    guard = Guard(answering(meanwhile=look))
    client = Client(credential.strip(), "GET")
    serve(guard, client)
    assert seen == [b"Bearer ana"] == [Request(client.scope).claimed_caller]


def test_what_a_failing_request_held_is_given_back():
    async def fail() -> None:
        raise RuntimeError

    guard = Guard(answering(meanwhile=fail))
    with pytest.raises(RuntimeError):
        serve(guard, Client("ana", "POST", "/v1/tasks", b"a"))
    assert guard.bytes_held == 0 and guard.clients() == set()


@pytest.mark.parametrize(("size", "fits"), [(500, True), (501, False)])
def test_one_caller_gets_half_of_the_room(size, fits):
    guard = Guard(answering(), held_bytes=1000)
    client = Client("ana", "POST", "/v1/tasks", b"x" * size)
    if fits:
        serve(guard, client)
        assert client.body == b"ok"
    else:
        with pytest.raises(Unavailable) as refusal:  # which the pipeline answers
            serve(guard, client)
        assert refusal.value.headers["retry-after"] == "1"
        assert guard.refused == 1


def test_all_callers_together_get_no_more_than_there_is():
    async def crowd() -> list[str]:
        everybody_is_in = asyncio.Barrier(3)

        async def wait() -> None:
            await everybody_is_in.wait()

        guard = Guard(answering(meanwhile=wait), held_bytes=1000)
        clients = [Client(key, "POST", "/v1/tasks", b"x" * 400) for key in ("ana", "tom", "eva")]
        ends = asyncio.gather(
            *(guard(client.scope, client.receive, client.send) for client in clients), return_exceptions=True
        )
        while guard.refused == 0:
            await asyncio.sleep(0)
        await everybody_is_in.wait()
        return [type(end).__name__ for end in await ends]

    assert asyncio.run(crowd()) == ["NoneType", "NoneType", "Unavailable"]


@pytest.mark.parametrize(("pieces", "fine"), [(1000, True), (1001, False)])
def test_a_body_in_crumbs(pieces, fine, monkeypatch):
    monkeypatch.setattr(module, "PIECE_BYTES", 1_000_000)
    client = Client("ana", "POST", "/v1/tasks", *[b"x"] * pieces)
    if fine:
        serve(Guard(answering()), client)
        assert client.body == b"ok"
    else:
        with pytest.raises(Malformed, match="small pieces"):
            serve(Guard(answering()), client)


def test_a_body_in_many_pieces_of_some_size_is_fine():
    client = Client("ana", "POST", "/v1/tasks", *[b"x" * module.PIECE_BYTES] * 5000)
    serve(Guard(answering()), client)
    assert client.body == b"ok"


def test_a_large_answer_goes_out_in_pieces():
    client = Client("ana", "GET")
    guard = Guard(answering(LARGE))
    serve(guard, client)
    assert client.body == LARGE and guard.bytes_held == 0
    assert [message.get("more_body") for message in client.sent] == [None, True, True, True, True, False]


def test_an_answer_that_is_not_taken_is_given_up():
    client = Client("ana", "GET")
    client.stalled = True
    guard = Guard(answering(b"x" * 65537), drain_seconds=0.01)
    guard.drain_limit = lambda number: 0.01  # type: ignore[method-assign]
    serve(guard, client)
    assert (guard.cut, guard.bytes_held) == (1, 0)
    assert len(client.sent) == 1, "its head only: the server ends the connection"


def test_how_long_an_answer_may_take():
    guard = Guard(answering())
    assert guard.drain_limit(8 << 20) == 30 + 128


async def _while_one_reads_nothing(guard: Guard, then: Callable[[], Awaitable[None]], path: str = "/v1/tasks") -> None:
    slow = Client("ana", "GET", path)
    slow.stalled = True
    reading = asyncio.create_task(guard(slow.scope, slow.receive, slow.send))
    while not guard.bytes_held:
        await asyncio.sleep(0)
    await then()
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)


def test_who_does_not_read_gets_no_further_large_answers_but_everybody_else_does():
    async def scene() -> None:
        guard = Guard(answering(LARGE), held_bytes=4 * len(LARGE) - 1)

        async def others() -> None:
            mine, query, theirs = (Client("ana", "GET"), Client("ana", "POST", "/v1/tasks/query"), Client("tom", "GET"))
            for client in (mine, query):
                with pytest.raises(Unavailable) as refusal:  # which the pipeline answers
                    await guard(client.scope, client.receive, client.send)
                assert refusal.value.headers["retry-after"] == "1" and client.sent == []
            await guard(theirs.scope, theirs.receive, theirs.send)
            assert (theirs.status, theirs.body) == (200, LARGE)
            assert guard.refused == 2

        await _while_one_reads_nothing(guard, others)
        assert guard.bytes_held == 0

    asyncio.run(scene())


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/tasks"), ("POST", "/v1/tasks/query")])
def test_a_crowd_of_one_caller_that_does_not_read_holds_no_more_than_its_share(method, path):
    """However they began all at once, while nothing was held."""

    async def scene() -> None:
        guard = Guard(answering(LARGE), held_bytes=8 * len(LARGE))
        crowd = [Client("ana", method, path, b"{}") for _ in range(50)]
        for client in crowd:
            client.stalled = True
        asking = [asyncio.create_task(guard(client.scope, client.receive, client.send)) for client in crowd]
        while len(done := {task for task in asking if task.done()}) < 46:
            await asyncio.sleep(0)
        stalled = set(asking) - done
        assert {type(task.exception()) for task in done} == {Unavailable}
        assert guard.bytes_held <= 4 * len(LARGE) + 50 * 2
        for task in stalled:
            task.cancel()
        await asyncio.gather(*stalled, return_exceptions=True)
        assert guard.bytes_held == 0

    asyncio.run(scene())


def test_who_does_not_read_still_gets_small_answers_and_the_answers_to_what_was_written():
    async def scene() -> None:
        answers = {"GET": answering(LARGE), "POST": answering(LARGE), "HEAD": answering(b"small")}

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await answers[scope["method"]](scope, receive, send)

        guard = Guard(application, held_bytes=2 * len(LARGE))

        async def others() -> None:
            small, written = Client("ana", "HEAD"), Client("ana", "POST")
            for client in (small, written):
                await guard(client.scope, client.receive, client.send)
            assert (small.status, small.body, written.status, written.body) == (200, b"small", 200, LARGE)

        await _while_one_reads_nothing(guard, others)

    asyncio.run(scene())


@pytest.mark.parametrize("name", [b"host", b"authorization", b"content-length", b"content-type", b"idempotency-key"])
def test_a_header_that_stands_twice(name):
    client = Client("ana", "GET")
    client.scope["headers"] = [(name, b"a"), (b"accept", b"x"), (name, b"a")]
    with pytest.raises(Malformed, match=name.decode()):
        check_headers(Request(client.scope))


def test_a_header_that_may_stand_twice():
    client = Client("ana", "GET")
    client.scope["headers"] = [(b"accept", b"a"), (b"accept", b"b")]
    check_headers(Request(client.scope))


@pytest.mark.parametrize(("key", "caller"), [("Bearer ana", b"Bearer ana"), ("", b"127.0.0.1")])
def test_it_knows_who_asks(key, caller):
    seen: list[Any] = []

    async def look() -> None:
        seen.extend(exchange.caller() for exchange in guard._under_way)
        seen.append(guard.clients())

    guard = Guard(answering(meanwhile=look))
    client = Client(key, "GET")
    serve(guard, client)
    assert seen == [caller, {("127.0.0.1", "5000")}]
    assert Request(client.scope).claimed_caller == caller


@pytest.mark.parametrize(("key", "caller"), [("Bearer ana", b"Bearer ana"), ("", b"127.0.0.1")])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_database_is_told_who_asks(sqlite_db, monkeypatch, method, key, caller):
    seen: list[Any] = []
    read = sqlite_db.read

    async def look(unit: Any, *, caller: Any = None, **how: Any) -> Any:
        seen.append(caller)
        return await read(unit, caller=caller, **how)

    monkeypatch.setattr(sqlite_db, "read", look)
    secret, limits = b"x" * 32, Limits()
    services = Services(sqlite_db, secret, limits, Credentials(sqlite_db, secret, limits))
    client = Client(key, method)
    serve(Guard(Pipeline(services, Mounts([]))), client)
    assert (client.status, seen) == (401, [caller])


# ---- before the real pipeline ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "status", "says"),
    [([], 503, "as many large requests"), ([(b"host", b"y")], 400, "The header host stands more than once")],
)
def test_what_is_refused_stands_in_the_log_once(sqlite_db, more, status, says):
    async def large(request: Request) -> Reply:
        return Reply(200, LARGE.decode())

    async def scene() -> None:
        log, late = Log(), Client("ana", "GET", "/large")
        late.scope["headers"] += more
        observer = Observer(sink=log)
        secret, limits = b"x" * 32, Limits()
        services = Services(sqlite_db, secret, limits, Credentials(sqlite_db, secret, limits), observer)
        application = Pipeline(services, Mounts([Mount("/large", large)]))
        guard = Guard(application, held_bytes=2 * len(LARGE))

        async def refused() -> None:
            await guard(late.scope, late.receive, late.send)

        await _while_one_reads_nothing(guard, refused, "/large")
        assert late.status == status and says in late.body.decode()
        assert [message["type"] for message in late.sent] == ["http.response.start", "http.response.body"]
        lines = [json.loads(line) for line in log.lines]
        assert [line["status"] for line in lines] == [status, 499], "and the other one, who has hung up"
        assert lines[0]["bytes"] == len(late.body)

    asyncio.run(scene())


def test_what_carries_secrets_does_not_show_them():
    """A debugger, or a library that logs what it failed on, shows the representation of things."""
    shown: list[str] = []

    async def look() -> None:
        shown.extend(repr(exchange) for exchange in guard._under_way)

    client = Client("Bearer tsk_secret", "GET")
    guard = Guard(answering(meanwhile=look))
    serve(guard, client)
    request = Request(client.scope)
    call = Call(Principal("user_1", None, frozenset(), {}, None), b"the installation's secret", "req_1", ["tsk_secret"])
    shown += [repr(request), repr(call)]
    assert not any("secret" in text for text in shown)
    assert len(shown) == 3 and request.request_id in shown[1]
