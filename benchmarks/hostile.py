"""Hostile requests: how long everybody else has to wait while somebody sends the dearest requests that are known.

Why two probes: a request that needs no database, on a new connection each time, waits for the event loop alone; a small
change waits for the writer, too. Both run in a process of their own, so that what sends the attacks cannot delay them.
"""

import http.client
import json
import multiprocessing
import random
import threading
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks import machine, report
from benchmarks.client import Client
from benchmarks.compare import say
from benchmarks.peers import Taskade
from benchmarks.report import Report

LOOP_MS, WRITER_MS = 50.0, 200.0
PROBE_SECONDS = 0.01
AT_ONCE = 4
PATIENCE = 60.0
RANDOM_REQUESTS, QUICK_RANDOM = 120, 20
SEED = 20_261_130
IN_ORDER = ("trees", "undone", "bins")
"""Attacks whose requests build on each other."""
GROWS = "\ufdfa"
"""One character that is eighteen when it is normalised."""

Request = tuple[str, str, bytes, dict[str, str]]


@dataclass(frozen=True)
class Wait:
    """The outcome of one attack: the answers of the server, and the longest wait of other clients meanwhile."""

    name: str
    requests: int
    answers: dict[str, int]
    seconds: float
    loop_ms: float
    writer_ms: float

    @property
    def met(self) -> bool:
        return self.loop_ms < LOOP_MS and self.writer_ms < WRITER_MS


class _Server(Taskade):
    """With request bins, which attacks are aimed at as well, and webhooks that may go to this machine."""

    def command(self) -> list[str]:
        return [*super().command(), "--dev"]


# ---- the probes ------------------------------------------------------------------------------------------------------


class _Probe:
    """A process that asks for /health every 10 ms and makes a small change as often, and keeps the longest waits."""

    def __init__(self, port: int, headers: dict[str, str], task: str) -> None:
        self._ours, theirs = multiprocessing.Pipe()
        arguments = (port, headers, task, theirs)
        self._process = multiprocessing.get_context("spawn").Process(target=_probe, args=arguments, daemon=True)
        self._process.start()
        self._ours.recv()

    def begin(self) -> None:
        self._ours.send("begin")
        self._ours.recv()

    def longest(self) -> tuple[float, float]:
        """Milliseconds since `begin`: of the loop, of the writer."""
        self._ours.send("longest")
        found: tuple[float, float] = self._ours.recv()
        return found

    def stop(self) -> None:
        self._process.terminate()
        self._process.join()


def _probe(port: int, headers: dict[str, str], task: str, pipe: Connection) -> None:
    machine.join_clients()
    # When what is under way was begun, and the longest that has ended, of each kind.
    since, longest = [0.0, 0.0], [0.0, 0.0]
    body = json.dumps({"priority": "high"}).encode()

    def health() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        connection.request("GET", "/health")
        connection.getresponse().read()
        connection.close()

    def write() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        more = {**headers, "Content-Type": "application/json"}
        connection.request("PATCH", f"/v1/tasks/{task}", body.replace(b"high", random.choice((b"low", b"high"))), more)
        connection.getresponse().read()
        connection.close()

    def again(kind: int, ask: Callable[[], None]) -> None:
        while True:
            since[kind] = time.perf_counter()
            with suppress(OSError, http.client.HTTPException):
                ask()
            longest[kind] = max(longest[kind], time.perf_counter() - since[kind])
            time.sleep(PROBE_SECONDS)

    for kind, ask in enumerate((health, write)):
        threading.Thread(target=again, args=(kind, ask), daemon=True).start()
    pipe.send("ready")
    while True:
        if pipe.recv() == "begin":
            longest[:] = [0.0, 0.0]
            pipe.send("begun")
        else:
            time.sleep(5 * PROBE_SECONDS)  # what was begun during the attack has to end
            pipe.send(tuple(1000 * value for value in longest))


# ---- the attacks -----------------------------------------------------------------------------------------------------


class World:
    """The objects that the attacks use: projects, tasks, and a tree of tasks."""

    def __init__(self, server: Taskade) -> None:
        self._port, self._headers = server.port, server.headers
        self.project = self.new_project()
        self.tasks: list[str] = []
        fields = {f"f{number}": f"value {number}" for number in range(45)}
        for start in range(0, 2000, 250):
            some = range(start, start + 250)
            self.tasks += self.bulk([{"name": f"Task {n}", "custom_fields": fields, "labels": ["a"]} for n in some])

    @property
    def client(self) -> Client:
        """A new connection: the server closes one that was idle during an attack."""
        return Client(self._port, self._headers)

    def new_project(self, **more: Any) -> str:
        return str(self.client.call("POST", "/v1/projects", {"name": "Target", **more})["id"])

    def bulk(self, tasks: list[dict[str, Any]], project: str = "") -> list[str]:
        made = self.client.call("POST", "/v1/tasks/bulk", {"project_id": project or self.project, "tasks": tasks})
        return [task["id"] for task in made]

    def tree(self, count: int) -> str:
        root = self.bulk([{"name": "Root"}])[0]
        for start in range(0, count, 1000):
            self.bulk([{"name": f"Leaf {n}", "parent_id": root} for n in range(start, min(count, start + 1000))])
        return root


def send(method: str, path: str, body: Any = None, **headers: str) -> Request:
    given = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body, ensure_ascii=False).encode()
    return method, path, given, {name.replace("_", "-"): value for name, value in headers.items()}


def batch(*operations: tuple[str, str, Any], **headers: str) -> Request:
    listed = [
        {"method": method, "path": path, **({} if body is None else {"body": body})}
        for method, path, body in operations
    ]
    return send("POST", "/v1/batch", {"operations": listed}, **headers)


def contains(count: int, field: str = "custom_fields.f{}") -> dict[str, Any]:
    return {"$or": [{field.format(number): {"$contains": f"qq{number}"}} for number in range(count)]}


def reads_in_a_batch(world: World) -> list[Request]:
    return [batch(*[("QUERY", "/tasks", {"filter": contains(45)})] * 25)] * 2


def lists_in_a_batch(world: World) -> list[Request]:
    operations = [("GET", f"/tasks?project_id={world.project}&limit=1000", None)] * 4
    return [batch(*operations, Idempotency_Key=f"lists-{number}") for number in range(2)]


def thousand_reads(world: World) -> list[Request]:
    return [batch(*[("GET", f"/tasks/{task}", None) for task in world.tasks[:1000]])] * 2


def thousand_writes(world: World) -> list[Request]:
    return [batch(*[("PATCH", f"/tasks/{task}", {"priority": "low"}) for task in world.tasks[:1000]])] * 2


def template_bomb(world: World) -> list[Request]:
    subtasks = [{"name": "s"}] * 60
    return [send("POST", "/v1/templates", {"name": "Bomb", "tasks": [{"name": "t", "subtasks": subtasks}] * 200})]


def largest_template(world: World) -> list[Request]:
    tasks = [{"name": "t", "subtasks": [{"name": "s"}] * 9}] * 20
    made = world.client.call("POST", "/v1/templates", {"name": "Large", "tasks": tasks})
    return [send("POST", "/v1/projects", {"name": "x", "template_id": made["id"]})] * 8


def growing_texts(world: World) -> list[Request]:
    body = {"name": "t", "project_id": world.project, "description": GROWS * 100_000}
    return [send("POST", "/v1/tasks", body), batch(*[("POST", "/tasks", body)] * 10)]


def growing_names(world: World) -> list[Request]:
    tasks = [{"name": GROWS * 500}] * 1000
    return [send("POST", "/v1/tasks/bulk", {"project_id": world.project, "tasks": tasks})] * 2


def many_words(world: World) -> list[Request]:
    text = " ".join(f"é{number:x}" for number in range(1200))
    tasks = [{"name": "t", "description": text}] * 900
    return [send("POST", "/v1/tasks/bulk", {"project_id": world.project, "tasks": tasks})]


def many_values(world: World) -> list[Request]:
    fields = {f"c{number}": f"value {number}" for number in range(90)}
    labels = [f"label {number}" for number in range(50)]
    return [
        send("POST", "/v1/tasks/bulk", {"project_id": world.project, "tasks": [one] * 1000})
        for one in ({"name": "t", "custom_fields": fields}, {"name": "t", "labels": labels})
    ]


def large_patch_of_many(world: World) -> list[Request]:
    fields = {f"c{number}": ["x" * 150] * 100 for number in range(50)}
    body = {"ids": world.tasks[:1000], "set": {"custom_fields": fields}}
    return [send("PATCH", "/v1/tasks/bulk", body)] * 2


def options(world: World) -> list[Request]:
    words = [f"option {number}" for number in range(200)]
    definitions = [{"key": f"m{number}", "type": "multi", "options": words} for number in range(90)]
    project = world.new_project(fields=definitions)
    made = world.bulk([{"name": "t"}] * 1000, project)
    values = {f"m{number}": words[-100:] for number in range(90)}
    return [send("PATCH", "/v1/tasks/bulk", {"ids": made, "set": {"custom_fields": values}})] * 2


def events_with_a_filter(world: World) -> list[Request]:
    document = json.dumps({"$or": [{"name": {"$contains": f"qq{number}"}} for number in range(190)]}).replace(" ", "")
    return [send("GET", f"/v1/events?types=task.*&after=0&limit=1&filter={_quoted(document)}")] * 4


def webhook_filters(world: World) -> list[Request]:
    document = contains(30, "custom_fields.a{}")
    for number in range(10):
        hook = {"url": f"http://127.0.0.1:18099/{number}", "events": ["task.*"], "filter": document}
        world.client.call("POST", "/v1/webhooks", hook)
    fields = {f"a{number}": "value" for number in range(100)}
    return [
        send(
            "POST",
            "/v1/tasks/bulk",
            {"project_id": world.project, "tasks": [{"name": "t", "custom_fields": fields}] * 100},
        )
    ]


def recurrence(world: World) -> list[Request]:
    rules = ["FREQ=WEEKLY;BYEASTER=0;BYMONTH=12;COUNT=2", "FREQ=MONTHLY;BYMONTHDAY=31;BYMONTH=4,6;COUNT=2",
             "FREQ=YEARLY;BYWEEKNO=60;COUNT=2",
             f"FREQ=YEARLY;BYWEEKNO=2;BYMONTH=12;BYSETPOS={','.join(map(str, range(1, 100)))};COUNT=2"]  # fmt: skip
    bodies = [{"name": "t", "project_id": world.project, "recurrence": rule} for rule in rules]
    return [batch(*[("POST", "/tasks", body)] * 8) for body in bodies] + [
        send("POST", "/v1/tasks/bulk", {"tasks": bodies * 250})
    ]


def trees(world: World) -> list[Request]:
    root, elsewhere = world.tree(3_500), world.new_project()
    return [
        send("POST", f"/v1/tasks/{root}/move", {"project_id": elsewhere}),
        send("DELETE", f"/v1/tasks/{root}"),
        send("POST", f"/v1/tasks/{root}/restore"),
        send("DELETE", f"/v1/projects/{elsewhere}"),
        send("POST", f"/v1/projects/{elsewhere}/restore"),
    ]


def too_large_a_tree(world: World) -> list[Request]:
    root, elsewhere = world.tree(6_000), world.new_project()
    return [send("POST", f"/v1/tasks/{root}/move", {"project_id": elsewhere}), send("DELETE", f"/v1/tasks/{root}")]


def blockers(world: World) -> list[Request]:
    made = world.tasks[:120]
    for start in range(30, 120, 30):
        patch = {"blocked_by": made[start - 30 : start]}
        world.client.call("PATCH", "/v1/tasks/bulk", {"ids": made[start : start + 30], "set": patch})
    return [send("PATCH", "/v1/tasks/bulk", {"ids": world.tasks[1000:1999], "set": {"blocked_by": made[90:]}})]


def json_patches(world: World) -> list[Request]:
    path, kind = f"/v1/tasks/{world.tasks[0]}", "application/json-patch+json"
    doubling = [{"op": "add", "path": "/custom_fields/x", "value": ["y"] * 50}]
    doubling += [{"op": "copy", "from": "/custom_fields", "path": f"/custom_fields/z{n}"} for n in range(40)]
    testing = [{"op": "test", "path": "/custom_fields", "value": {f"f{n}": f"value {n}" for n in range(45)}}] * 600
    moving = [{"op": "copy", "from": "/labels/0", "path": "/labels/0"}] * 1000
    return [send("PATCH", path, operations, Content_Type=kind) for operations in (doubling, testing, moving)]


def references(world: World) -> list[Request]:
    operations: list[dict[str, Any]] = [
        {"id": "all", "method": "GET", "path": f"/tasks?project_id={world.project}&limit=500"}
    ]
    operations += [
        {"method": "QUERY", "path": "/tasks", "body": {"filter": {"name": {"$in": {"$ref": "all"}}}}} for _ in range(30)
    ]
    return [send("POST", "/v1/batch", {"operations": operations})] * 2


def wide_filters(world: World) -> list[Request]:
    names = {"$or": [{"name": {"$in": [f"n{a}-{b}" for b in range(900)]}} for a in range(100)]}
    people = {"$or": [{"assignee": {"$in": [f"u{a}-{b}" for b in range(900)]}} for a in range(100)]}
    growing = {"$or": [{"name": {"$contains": GROWS * 10_000}} for _ in range(30)]}
    return [send("QUERY", "/v1/tasks", {"filter": document}) for document in (names, people, growing)]


def wide_and_deep_json(world: World) -> list[Request]:
    deep = b"[" * 900_000
    wide = b"[" + b",".join([b'{"a" :1}'] * 49_000) + b"]"
    unknown = {f"due_dat{number}": 1 for number in range(1000)}
    return [
        send("POST", "/v1/tasks", deep),
        send("POST", "/v1/tasks/bulk", wide + b" " * 4_000_000),
        send("POST", "/v1/tasks/bulk", b'{"tasks" :[' + b",".join([b'{"name" :"\\u0000"}'] * 40_000) + b"]}"),
        send("POST", "/v1/tasks", unknown),
        send("POST", "/v1/tasks/bulk", {"tasks": [unknown] * 90}),
        send("QUERY", "/v1/tasks", {"filter": unknown}),
        send("GET", "/v1/tasks?fields=" + ",".join(f"due_dat{n}" for n in range(100))),
        send("GET", "/v1/tasks?" + "&".join(f"due_dat{n}=1" for n in range(399))),
    ]


def searches(world: World) -> list[Request]:
    words = "+".join(chr(97 + number % 26) for number in range(400))
    return [send("GET", f"/v1/tasks?q={words}&limit=1000"), send("GET", "/v1/tasks?q=t&limit=1000&count=true")] * 2


def searches_in_a_batch(world: World) -> list[Request]:
    words = "+".join(chr(97 + number) for number in range(26))
    asked = [("GET", f"/tasks?q={words}&limit={number}&fields=id", None) for number in range(1, 21)]
    write = ("POST", "/tasks", {"name": "t", "project_id": world.project})
    return [batch(*asked), batch(write, *asked[:17])]


def filters_in_a_change(world: World) -> list[Request]:
    document = contains(190, "custom_fields.f{}")
    write = ("POST", "/tasks", {"name": "t", "project_id": world.project})
    return [
        batch(write, ("POST", "/tasks/query", {"filter": document})),
        send("DELETE", "/v1/tasks/bulk?dry_run=true", {"filter": document}),
        send("PATCH", "/v1/tasks/bulk", {"filter": document, "set": {"priority": "low"}}),
    ]


def marks(world: World) -> list[Request]:
    by_class: dict[int, str] = {}
    for code in range(0x300, 0x1E950):
        kind = unicodedata.combining(chr(code))
        if kind and not unicodedata.decomposition(chr(code)):
            by_class.setdefault(kind, chr(code))
    text = "a" + "".join(by_class[kind] * (99_000 // len(by_class)) for kind in sorted(by_class, reverse=True))
    body = {"name": "t", "project_id": world.project, "description": text}
    label = "a" + "\u0301" * 60_000 + "\u0323" * 60_000
    return [
        send("QUERY", "/v1/tasks", {"filter": {"labels": label}}),
        send("QUERY", "/v1/tasks", {"filter": {"name": {"$contains": text}}}),
        send("POST", "/v1/tasks", body),
        batch(*[("POST", "/tasks", body)] * 7),
        send("POST", "/v1/tasks/bulk", {"tasks": [body] * 30}),
    ]


def audit_pages(world: World) -> list[Request]:
    for number in range(20):
        text = f"{number} " + "word " * 19_000
        world.client.call("PATCH", f"/v1/tasks/{world.tasks[-1]}", {"description": text})
    return [send("GET", "/v1/audit?limit=1000&include=data")] * 4


def includes(world: World) -> list[Request]:
    tree = "comments,project,project.tasks,workspace,created_by,subtasks,parent"
    return [
        send("GET", f"/v1/tasks?limit=1000&include={tree}"),
        send("GET", "/v1/projects?include=tasks,tasks.subtasks&limit=1000"),
        send("GET", "/v1/tasks?limit=1000&sort=-name,priority,custom_fields.f1&fields=id,name,custom_fields"),
    ]


def exports(world: World) -> list[Request]:
    return [send("GET", "/v1/audit/export", Accept=kind) for kind in ("text/csv", "application/jsonl")]


def undone(world: World) -> list[Request]:
    client = world.client
    made = world.bulk([{"name": "t", "description": "word " * 200}] * 1000)
    events = client.call("GET", f"/v1/events?object_id={made[0]}")
    listed = events["events"] if isinstance(events, dict) else events
    body = {"request_id": listed[0]["request_id"]}
    return [send("POST", "/v1/events/revert?dry_run=true", body), send("POST", "/v1/events/revert", body)]


def bins(world: World) -> list[Request]:
    body = b"[" * 900 + b"1," * 30_000 + b"1" + b"]" * 900
    send_them = [send("POST", "/dev/bin/hostile", body)] * 3
    return [*send_them, send("GET", "/dev/bin/hostile", Accept="text/html")]


def made_up(world: World, count: int) -> list[Request]:
    """Requests put together at random from what the others are made of: any route, sizes near the bounds."""
    chance = random.Random(SEED)
    texts = [GROWS, "é", "a", "漢", "a\u0301", "word ", '{}\\"', "𝔘"]

    def text(most: int) -> str:
        return chance.choice(texts) * chance.randint(1, most)

    def value() -> Any:
        return chance.choice([text(200), chance.random(), True, [text(20)] * chance.randint(1, 100), None])

    def task() -> dict[str, Any]:
        whole = {
            "name": text(100), "description": text(30_000), "labels": [f"l{n}" for n in range(chance.randint(0, 50))],
            "custom_fields": {f"f{n}": value() for n in range(chance.randint(0, 100))},
            "blocked_by": world.tasks[: chance.randint(0, 100)], "recurrence": "FREQ=WEEKLY;BYMONTH=2;BYEASTER=1",
        }  # fmt: skip
        names = chance.sample(list(whole), chance.randint(0, 5))
        return {"project_id": world.project, "name": "t", **{name: whole[name] for name in names}}

    def condition() -> dict[str, Any]:
        field = chance.choice(["name", "labels", "custom_fields.f1", "custom_fields.zz", "due_date", "assignee"])
        operator = chance.choice(["$contains", "$in", "$nin", "$prefix", "$gt", "$exists"])
        operand = [text(10)] * chance.randint(1, 900) if operator in ("$in", "$nin") else text(100)
        return {field: {operator: operand}}

    def operation() -> tuple[str, str, Any]:
        one = chance.choice(world.tasks)
        return chance.choice(
            [
                ("GET", f"/tasks?limit={chance.randint(1, 1000)}&include=comments,subtasks", None),
                ("QUERY", "/tasks", {"filter": {"$or": [condition() for _ in range(chance.randint(1, 150))]}}),
                ("POST", "/tasks", task()),
                ("PATCH", f"/tasks/{one}", task()),
                ("DELETE", f"/tasks/{one}", None),
                ("POST", f"/tasks/{one}/move", {"after": chance.choice(world.tasks)}),
                ("POST", "/tasks/bulk", {"tasks": [task()] * chance.randint(1, 1000)}),
                ("PATCH", "/tasks/bulk", {"ids": world.tasks[: chance.randint(1, 1000)], "set": task()}),
                ("POST", "/projects", {"name": "p", "fields": [], "description": text(30_000)}),
                ("POST", "/comments", {"task_id": one, "body": text(50_000)}),
            ]
        )

    requests: list[Request] = []
    while len(requests) < count:
        if chance.random() < 0.5:
            method, path, body = operation()
            requests.append(send(method, f"/v1{path}", body))
        else:
            requests.append(batch(*[operation() for _ in range(chance.choice([3, 10, 100]))]))
    return [request for request in requests if len(request[2]) < 8 << 20]


ATTACKS: tuple[Callable[[World], list[Request]], ...] = (
    reads_in_a_batch, lists_in_a_batch, thousand_reads, thousand_writes, template_bomb, largest_template,
    growing_texts, growing_names, many_words, many_values, large_patch_of_many, options, events_with_a_filter,
    recurrence, trees, too_large_a_tree, blockers, json_patches, references, wide_filters, wide_and_deep_json,
    searches, searches_in_a_batch, filters_in_a_change, marks, audit_pages, includes, exports, undone, bins,
    webhook_filters,
)  # fmt: skip


def _quoted(text: str) -> str:
    return "".join(f"%{ord(char):02X}" if char in '{}"[]$,: ' else char for char in text)


# ---- running ---------------------------------------------------------------------------------------------------------


def run(folder: Path, *, quick: bool = False) -> Report:
    """Send each attack and measure what others feel of it."""
    server = _Server(folder)
    server.start()
    try:
        world = World(server)
        probed = world.bulk([{"name": "The probe's"}])[0]
        probe = _Probe(server.port, server.headers, probed)
        try:
            made = QUICK_RANDOM if quick else RANDOM_REQUESTS
            waits = list(_measure(server, world, probe, made))
        finally:
            probe.stop()
        settings = {
            "attacks": len(waits),
            "random_requests": QUICK_RANDOM if quick else RANDOM_REQUESTS,
            "at_once": AT_ONCE,
        }
        return report.hostile(machine.facts(folder), {"taskade": server.version()}, settings, waits)
    finally:
        server.stop()


def _measure(server: Taskade, world: World, probe: _Probe, made: int) -> Iterator[Wait]:
    yield _attack("nothing: the measure of all others", [], server, probe, idle=2.0)
    for attack in ATTACKS:
        name = attack.__name__.replace("_", " ")
        say(name)
        try:
            requests = attack(world)
        except Exception as error:  # what it needs was refused, which is an answer, too
            say(f"  could not be prepared: {str(error)[:300]}")
            continue
        yield _attack(name, requests, server, probe)
    yield _attack("made up at random", made_up(world, made), server, probe)


def _attack(name: str, requests: list[Request], server: Taskade, probe: _Probe, idle: float = 0.3) -> Wait:
    probe.begin()
    began = time.perf_counter()
    with ThreadPoolExecutor(1 if name in IN_ORDER else AT_ONCE) as threads:
        answers = Counter(threads.map(lambda request: _ask(server, request), requests))
    time.sleep(idle)
    loop_ms, writer_ms = probe.longest()
    wait = Wait(name, len(requests), dict(answers), time.perf_counter() - began - idle, loop_ms, writer_ms)
    say(f"  loop {loop_ms:.0f} ms, writer {writer_ms:.0f} ms, {wait.seconds:.1f} s, {wait.answers}")
    return wait


def _ask(server: Taskade, request: Request) -> str:
    method, path, body, headers = request
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    try:
        given = {**server.headers, "Content-Type": "application/json", **headers}
        connection.request(method, path, body or None, given)
        answer = connection.getresponse()
        answer.read()
        return str(answer.status)
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__
    finally:
        connection.close()
