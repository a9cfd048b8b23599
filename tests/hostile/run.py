"""Runs the hostile clients against a server, watches all that it answers, and asks at the end whether it is sound.

What is watched: statuses and problem documents, texts that a caller never had a right to, how long the server stands
still; at the end the log, its tables and `taskade check`. The rules for texts are in `rights`.
"""

import http.client
import json
import random
import re
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO
from urllib.parse import unquote

import httpx2
from taskade_server.engine import check
from taskade_server.store.database import Database, Tx, connect

from tests.hostile.generate import Generator, Pool, Request
from tests.hostile.rights import ALWAYS, MARKER, Caller, Rights, Row
from tests.hostile.world import MAX_KEYS, Credential, Person, World
from tests.support import described
from tests.support.receiver import Received, Receiver
from tests.support.server import Server
from tests.support.websocket import WebSocket

PROBLEM: Final = "application/problem+json"
SECRET: Final = re.compile(r"tsk_[0-9a-z]{26}_[0-9A-Za-z_-]{20,}")
ANSWER_SECONDS: Final = 180
SLACK_MS: Final = 5000
LATE_MS: Final = 2000
PAGE: Final = 500
PROGRESS_SECONDS: Final = 10
UNIMPORTANT: Final = frozenset(["version", "updated_at", "deleted_at", "last_used_at"])
WEIGHTS: Final = {
    "workspaces.delete": 0.02, "users.delete": 0.05, "workspaces.members.remove": 0.1, "workspaces.members.update": 0.2,
    "workspaces.members.put": 0.2, "projects.delete": 0.3, "api-keys.delete": 0.1, "events.stream": 0.1, "batch": 4,
    "tasks.create": 6, "comments.create": 4, "projects.create": 2, "tasks.create_bulk": 2, "tasks.list": 3, "sync": 2,
    "events.list": 3, "templates.create": 2, "webhooks.create": 2, "tasks.move": 3, "events.revert": 2,
    "tasks.update": 3, "audit.export": 0.2,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Options:
    """How long and how hard. `requests` 0: until the time is over; `seconds` 0: until the requests are done."""

    seed: int = 1
    seconds: float = 0
    requests: int = 0
    watchers: int = 3
    max_standstill_ms: float = 0
    """Fail if /health once took longer; 0: only report it."""
    journal: Path | None = None


@dataclass(frozen=True, slots=True)
class Sighting:
    """A marked text that somebody was shown, and between which moments (milliseconds) they must have had the right.

    Without a caller it came to the webhooks whose url ends in `hook`: one of their users must have had it.
    """

    caller: Caller | None
    marker: str
    begin: int
    end: int
    audit: bool
    surface: str
    what: str
    hook: str = ""


@dataclass(slots=True)
class Outcome:
    """What a run has found. No faults: it is as it should be."""

    faults: list[str] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    texts: int = 0
    """How many marked texts were judged."""
    standstill_ms: float = 0
    standstill: str = ""
    events: int = 0


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def show(request: Request) -> str:
    """A request as text, to be sent again."""
    headers = {name: value for name, value in request.headers.items() if name != "Content-Type"}
    body = request.body[:3000].decode("utf-8", "replace")
    media = f" ({request.headers.get('Content-Type', '')})" if body else ""
    return f"{request.method} {request.path[:2000]} {headers or ''} {body}{media}"


class Fuzzer:
    """One run against one server."""

    def __init__(self, server: Server, options: Options, say: Callable[[str], None] = print) -> None:
        self.outcome = Outcome()
        self._server, self._options, self._say = server, options, say
        self._world = World(server, random.Random(options.seed))
        self._rights = Rights()
        self._pool = Pool()
        self._lock = threading.Lock()
        self._sightings: dict[tuple[Caller | str, str, str], Sighting] = {}
        self._repeatable: deque[Request] = deque(maxlen=100)
        self._secrets: dict[str, str] = {}
        self._authors: dict[str, str | None] = {}
        self._under_way: dict[str, tuple[float, str]] = {}
        self._heads: dict[str, int] = {}
        self._latest: dict[tuple[str, str], tuple[str, str]] = {}
        self._seen_faults: set[str] = set()
        self._over = threading.Event()
        self._left = options.requests
        self._receiver = Receiver(self._received)
        self._document: dict[str, Any] = {}
        self._journal: TextIO | None = options.journal.open("w") if options.journal else None

    # -- the run

    def run(self) -> Outcome:
        """Let them loose for as long as the options say, then ask whether everything is sound."""
        begun = time.monotonic()
        self._document = self._get_document()
        self._world.build()
        threads = [threading.Thread(target=self._watched, args=(person,)) for person in self._world.people]
        helpers = [threading.Thread(target=self._probe), threading.Thread(target=self._keep)]
        helpers += [threading.Thread(target=self._watch, args=(n,)) for n in range(self._options.watchers)]
        place = self._server.database_url or self._server.data / "taskade.db"
        with self._receiver, connect(place, patient=True) as db:
            for thread in (*threads, *helpers):
                thread.start()
            try:
                self._wait(db, threads)
            finally:
                self._over.set()
                for thread in (*threads, *helpers):
                    thread.join()
            self._judge(db, finally_=True)
        self._world.close()
        self._ask_whether_sound()
        self._progress(time.monotonic() - begun)
        if self._journal:
            self._journal.close()
        return self.outcome

    def _wait(self, db: Database, threads: list[threading.Thread]) -> None:
        """Judge what has been seen, and tell of it, until the clients have done their work or the time is over."""
        begun, told = time.monotonic(), 0.0
        while any(thread.is_alive() for thread in threads) and not self._over.wait(1):
            self._judge(db)
            if time.monotonic() - told > PROGRESS_SECONDS:
                told = time.monotonic()
                self._progress(told - begun)
            if self._options.seconds and time.monotonic() - begun > self._options.seconds:
                return

    def _get_document(self) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=ANSWER_SECONDS)
        connection.request("GET", "/openapi.json")
        found: dict[str, Any] = json.loads(connection.getresponse().read())
        connection.close()
        return described.with_typed_text(described.with_patches(described.with_queries(found)))

    def _progress(self, seconds: float) -> None:
        found = self.outcome
        statuses = " ".join(f"{status}:{count}" for status, count in sorted(found.statuses.items()))
        counts = f"{found.statuses.total():7} requests  {found.events:7} events  {found.texts:7} texts"
        self._say(
            f"{seconds:6.0f} s  {counts}  standstill {found.standstill_ms:.0f} ms"
            f"  {len(found.faults)} faults  {statuses}"
        )

    def _fault(self, kind: str, text: str) -> None:
        """Keep a fault, once for each kind."""
        with self._lock:
            if kind in self._seen_faults:
                return
            self._seen_faults.add(kind)
            self.outcome.faults.append(f"{text}\n  (seed {self._options.seed})")
        self._say(f"FAULT {text}")

    # -- clients

    def _watched(self, person: Person) -> None:
        """A client whose own errors are faults, too: one that ends early finds nothing any more."""
        try:
            self._client(person)
        except Exception:
            self._fault("client", f"The client of {person.name} ended:\n{traceback.format_exc()}")

    def _client(self, person: Person) -> None:
        chance = random.Random(f"{self._options.seed}:{person.name}")
        url = f"{self._receiver.url}/{person.name}"
        generator = Generator(self._document, chance, self._pool, url)
        operations = generator.operations()
        weights = [WEIGHTS.get(operation["operationId"], 1.0) for _, _, operation in operations]
        connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=ANSWER_SECONDS)
        waiting = generator.opening()
        while not self._over.is_set() and self._takes_one():
            credential = (
                person.credentials[0] if waiting or chance.random() < 0.6 else chance.choice(person.credentials)
            )
            if not waiting and chance.random() < 0.004:
                waiting = generator.opening()
            request = waiting.pop(0) if waiting else self._special(person, generator)
            if request is None:
                request = generator.request(*chance.choices(operations, weights)[0])
            try:
                try:
                    self._send(connection, person, credential, generator, request)
                # An idle connection may be closed at any time, and an export is broken off when its caller has lost the
                # right to it meanwhile: once more, to see what is said now.
                except (ConnectionError, http.client.IncompleteRead) as error:
                    if isinstance(error, ConnectionRefusedError):
                        raise
                    connection.close()
                    self._send(connection, person, credential, generator, request)
            except (OSError, http.client.HTTPException, ValueError) as error:
                connection.close()
                if isinstance(error, ConnectionRefusedError):
                    self._fault("gone", f"The server is gone:\n{self._server.said()[-3000:]}")
                    self._over.set()
                elif not self._over.is_set():
                    self._fault(f"none {request.operation}", f"No answer ({error!r}) to {person.name}: {show(request)}")
        connection.close()

    def _takes_one(self) -> bool:
        with self._lock:
            self._left -= 1
            return not self._options.requests or self._left >= 0

    def _special(self, person: Person, generator: Generator) -> Request | None:
        """What needs more than one operation of the document: leaving, and another's request sent again."""
        chance = generator.chance
        if person.name == "leaver" and chance.random() < 0.03:
            kind, prefix = chance.choice([("workspaces", "ws"), ("projects", "proj"), ("projects", "proj")])
            return Request("DELETE", f"/v1/{kind}/{generator.id(prefix)}/members/me", {}, b"", "leave")
        if self._repeatable and chance.random() < 0.04:
            found = chance.choice(list(self._repeatable))
            return Request(found.method, found.path, dict(found.headers), found.body, found.operation)
        return None

    def _send(
        self,
        connection: http.client.HTTPConnection,
        person: Person,
        credential: Credential,
        generator: Generator,
        request: Request,
    ) -> None:
        begin, name = _now_ms(), threading.current_thread().name
        self._under_way[name] = (time.monotonic(), f"{person.name}: {show(request)[:500]}")
        headers = dict(request.headers)
        if credential.secret:
            headers["Authorization"] = f"Bearer {credential.secret}"
        if not request.body:
            headers.pop("Content-Type", None)
        try:
            connection.request(request.method, request.path, request.body or None, headers)
            with closing(connection.getresponse()) as answer:
                body = answer.read().decode("utf-8", "replace")
        finally:
            self._under_way.pop(name, None)
        found = {key.lower(): value for key, value in answer.getheaders()}
        self._look(person, credential, request, answer.status, found, body)
        generator.own.learn(body, found)
        self._pool.learn(body, found)
        if request.headers.get("Idempotency-Key"):
            self._repeatable.append(request)
        if answer.status == 201 and request.operation == "api-keys.create":
            self._adopt(person, body)
        what = f"{person.name} ({credential.caller.key_id}) {show(request)} -> {answer.status}"
        for marker in generator.sent:
            self._authors.setdefault(marker, person.user_id)
        surface = request.operation
        window = ALWAYS if "deliver" in request.path else begin - SLACK_MS
        text = f"{body} {found.get('link', '')} {found.get('location', '')}"
        asked = set(MARKER.findall(f"{unquote(request.path)} {request.body.decode('utf-8', 'replace')}"))
        self._note(
            credential.caller,
            text,
            window,
            surface,
            what,
            generator.sent | asked,
            audit="/audit" in request.path or b"/audit" in request.body,
        )

    def _adopt(self, person: Person, body: str) -> None:
        """Use a key that somebody has made."""
        with suppress(ValueError, KeyError, TypeError):
            document = json.loads(body)
            with self._lock:
                self._secrets.setdefault(document["secret"], str(person.user_id))
            if len(person.credentials) < MAX_KEYS + 4:
                person.credentials.append(Credential(document["secret"], Caller(person.user_id, document["id"])))

    # -- what is looked at at once

    def _look(
        self, person: Person, credential: Credential, request: Request, status: int, headers: dict[str, str], body: str
    ) -> None:
        with self._lock:
            self.outcome.statuses[status] += 1
            if self._journal:
                line = {"at": _now_ms(), "by": person.name, "key": credential.caller.key_id, "method": request.method,
                        "path": request.path, "headers": request.headers,
                        "body": request.body.decode("utf-8", "replace"),
                        "status": status, "request_id": headers.get("x-request-id")}  # fmt: skip
                self._journal.write(json.dumps(line) + "\n")
        where = f"{person.name} ({credential.caller.key_id}): {show(request)}\n  answered {status}"
        problem = headers.get("content-type", "").startswith(PROBLEM)
        if status >= 500 and not (status == 503 and problem):
            trace = self._trace(headers.get("x-request-id", "?"))
            cause = trace.strip().rpartition("\n")[2][:80]
            self._fault(f"{status} {cause or request.operation}", f"{where}: {body[:300]}\n{trace}")
        elif status >= 400 and not problem and status not in (414, 431):
            self._fault(f"no problem {status} {request.operation}", f"{where} without a problem document: {body[:300]}")
        for secret in SECRET.findall(body):
            owner = self._secrets.get(secret)
            if owner is not None and owner != person.user_id:
                self._fault(f"secret {request.operation}", f"{where} with the key of {owner}: {body[:300]}")

    def _trace(self, request_id: str) -> str:
        """What the server's log says of a request that failed."""
        time.sleep(0.3)  # lines are written a moment later; a report without its trace is still one
        text = self._server.log.read_text(errors="replace")[-200_000:]
        lines = text.splitlines()
        for index, line in enumerate(lines):
            if request_id in line and ("Traceback" in line or "exception" in line or "rror" in line):
                return "\n".join([line[:4000].replace("\\n", "\n"), *lines[index + 1 : index + 4]])
        return ""

    def _note(
        self, caller: Caller, text: str, begin: int, surface: str, what: str, sent: set[str], *, audit: bool = False
    ) -> None:
        """Remember which marked texts somebody was shown, to be judged when the log is read."""
        end = _now_ms()
        for marker in set(MARKER.findall(text)) - sent:
            sighting = Sighting(caller, marker, begin, end + 1000, audit, surface, what)
            with self._lock:
                self._sightings.setdefault((caller, marker, surface), sighting)

    # -- other ways to be told

    def _received(self, received: Received) -> tuple[int, dict[str, str]]:
        """A webhook was delivered. Whose it may be is known by its url."""
        name = received.path.rpartition("/")[2]
        text = received.body.decode("utf-8", "replace")
        end = _now_ms()
        what = f"a webhook of {name}: {text[:1000]}"
        for marker in set(MARKER.findall(text)):
            sighting = Sighting(None, marker, ALWAYS, end + 1000, False, "webhook", what, name)
            with self._lock:
                self._sightings.setdefault((name, marker, "webhook"), sighting)
        return (200 if hash(text) % 5 else 500), {}

    def _watch(self, number: int) -> None:
        """Connect again and again to a WebSocket, or to a stream of server-sent events."""
        chance = random.Random(f"{self._options.seed}:watch:{number}")
        while not self._over.is_set():
            person = chance.choice([one for one in self._world.people if one.user_id])
            credential = chance.choice(person.credentials)
            with suppress(OSError, AssertionError, ValueError, http.client.HTTPException):
                if chance.random() < 0.5:
                    self._watch_socket(chance, person, credential)
                else:
                    self._watch_stream(chance, person, credential)
            self._over.wait(0.2)

    def _watch_socket(self, chance: random.Random, person: Person, credential: Credential) -> None:
        with WebSocket(self._server.url, credential.secret) as socket:
            if socket.status != 101:
                return
            for number in range(chance.randint(1, 4)):
                generator = Generator(self._document, chance, self._pool, "")
                place: dict[str, Any] = {"workspace_id": generator.id("ws")} if chance.random() < 0.5 else {}
                if chance.random() < 0.5:
                    query = {"resource": chance.choice(["tasks", "projects", "comments", "users", "templates"])}
                    socket.send(type="subscribe", id=f"s{number}", query=query, **place)
                else:
                    after = {"after": 0} if chance.random() < 0.5 else {}
                    socket.send(type="subscribe", id=f"s{number}", **place, **after)
            self._over.wait(chance.uniform(1, 6))
            text = json.dumps(socket.messages)
        self._note(credential.caller, text, ALWAYS, "socket", f"{person.name}'s WebSocket: {text[:300]}", set())

    def _watch_stream(self, chance: random.Random, person: Person, credential: Credential) -> None:
        path = f"/v1/events/stream?seconds={chance.randint(1, 5)}"
        if chance.random() < 0.6:
            path += f"&after=0&workspace_id={chance.choice(self._world.workspaces)}"
        with closing(http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=60)) as connection:
            connection.request("GET", path, headers={"Authorization": f"Bearer {credential.secret}"})
            with closing(connection.getresponse()) as answer:
                text = answer.read().decode("utf-8", "replace")
        self._note(credential.caller, text, ALWAYS, "stream", f"{person.name}'s stream {path}", set())

    def _probe(self) -> None:
        """The longest that /health has taken, and what was under way then."""
        connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=ANSWER_SECONDS)
        while not self._over.is_set():
            begun = time.monotonic()
            try:
                connection.request("GET", "/health")
                with closing(connection.getresponse()) as answer:
                    answer.read()
            except (OSError, http.client.HTTPException):
                connection.close()
            took = (time.monotonic() - begun) * 1000
            if took > self.outcome.standstill_ms:
                self.outcome.standstill_ms = took
                self.outcome.standstill = "\n    ".join(text for _, text in sorted(self._under_way.copy().values()))
            limit = self._options.max_standstill_ms
            if limit and took > limit:
                self._fault(
                    "standstill", f"/health took {took:.0f} ms while this was under way:\n    {self.outcome.standstill}"
                )
            self._over.wait(0.02)
        connection.close()

    def _keep(self) -> None:
        while not self._over.wait(3):
            with suppress(httpx2.HTTPError, ValueError, KeyError, TypeError):
                self._world.keep()

    # -- judging

    def _judge(self, db: Database, *, finally_: bool = False) -> None:
        """Read the new events, then judge the texts that were seen some time ago: their events are read by now."""
        with self._lock:
            due = [key for key, one in self._sightings.items() if finally_ or one.end < _now_ms() - LATE_MS]
            sightings = [self._sightings.pop(key) for key in due]
        for workspace, head in db.read_sync(lambda tx: tx.all("SELECT workspace_id, seq FROM log_heads")):
            self._read_log(db, workspace, head)
        for one in sightings:
            self.outcome.texts += 1
            callers = [one.caller] if one.caller else [Caller(user, None) for user in self._rights.urls[one.hook]]
            if any(self._rights.may_read(caller, one.marker, one.begin, one.end, one.audit) for caller in callers):
                continue
            # Texts in no event: what a user sent with another key and was refused, and what the audit tells of that.
            author = self._authors.get(one.marker)
            own = one.audit or any(caller.user_id == author for caller in callers)
            if own and one.marker not in self._rights.texts:
                continue
            places = {place.resource for place in self._rights.texts.get(one.marker, ())}
            where = self._rights.explain(one.marker)
            self._fault(
                f"text {one.surface} {sorted(places)}",
                f"{one.marker} was shown without the right to it ({where}):\n  {one.what}",
            )

    def _read_log(self, db: Database, workspace: str, head: int) -> None:
        # What a transaction changes is seen from its commit on. On PostgreSQL many write at once: one that waited for
        # its locks commits long after the time that its events carry.
        commit = "(extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000)::bigint"
        seen_since = f"greatest(at, {commit})" if self._server.database_url else "at"
        columns = f"workspace_id, seq, type, resource, object_id, project_id, {seen_since}, data, previous"
        query = f"SELECT {columns} FROM events WHERE workspace_id = ? AND seq > ? ORDER BY seq LIMIT {PAGE}"

        def page(tx: Tx) -> list[Row]:
            return [Row(*row) for row in tx.all(query, (workspace, self._heads.get(workspace, 0)))]

        while (seq := self._heads.get(workspace, 0)) < head:
            rows = db.read_sync(page)
            if not rows:
                self._fault("gap", f"The log of {workspace} has nothing behind {seq}, and its head is {head}.")
                return
            for row in rows:
                self._chain(row)
            self._rights.feed(rows)
            self._heads[workspace] = rows[-1].seq
            self.outcome.events += len(rows)

    def _chain(self, row: Row) -> None:
        """Each event's number follows the one before, and its `previous` is what the event before it said."""
        if row.seq != self._heads.get(row.workspace_id, 0) + 1:
            self._fault("gap", f"The log of {row.workspace_id} has a gap before {row.seq}.")
        self._heads[row.workspace_id] = row.seq
        known, key = self._latest.get((row.workspace_id, row.object_id)), (row.workspace_id, row.object_id)
        if row.previous and known is not None and known[0] != row.data:
            before, after, previous = json.loads(known[0]), json.loads(row.data), json.loads(row.previous)
            for name in {*before, *after, *previous} - UNIMPORTANT:
                if name in previous and previous[name] != before.get(name):
                    self._fault("previous", f"Event {row.seq} of {row.workspace_id}: previous.{name} is not what was.")
                if name not in previous and before.get(name) != after.get(name):
                    self._fault(
                        "previous",
                        f"Event {row.seq} of {row.workspace_id} ({row.type}) does not tell that {name} has changed.",
                    )
        self._latest[key] = (row.data, row.type)

    def _ask_whether_sound(self) -> None:
        """Replay the log and look for what does not belong together, as the command does."""
        try:
            self._server.stop()
        except RuntimeError as error:
            self._fault("stop", str(error))
        with connect(self._server.database_url or self._server.data / "taskade.db", patient=True) as db:
            for finding in db.read_sync(lambda tx: list(check.run(tx)), snapshot=True):
                for fault in finding.faults:
                    self._fault(f"check {finding.name} {fault[:20]}", f"check of {finding.name}: {fault}")
