"""Part `consistency`: clients that append to shared texts and read them, and a judge who looks for an order of it all.

Why appending: a text that only grows tells who came before whom, so that the whole history can be put in order. Each
transaction is a node; who saw whom, who overwrote whom, and who had ended before whom began are edges. A cycle means
that no order explains what the clients saw: strict serializability is broken (the dependency graphs of Adya; appending
to lists as in Elle).
"""

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from random import Random
from typing import Any, Final

from taskade_server.kit import ids, json
from taskade_server.selftest.client import HttpClient
from taskade_server.selftest.installation import prepare, schema
from taskade_server.selftest.parts import Options, Report, folder
from taskade_server.selftest.process import Server

CLIENTS: Final = 8
REGISTERS: Final = 6


@dataclass(slots=True)
class Transaction:
    """One acknowledged transaction: what it appended, and the lists that it read, by register; monotonic seconds."""

    name: str
    began: float
    ended: float
    appended: dict[str, str] = field(default_factory=dict)
    read: dict[str, list[str]] = field(default_factory=dict)


def run(options: Options) -> Report:
    """8 clients append and read, one register at a time and several in a batch; there must be an order of all that."""
    report = Report("consistency")
    count = options.count(60, 5000)
    with folder("consistency") as place, schema(options.database_url) as url:
        key = prepare(place, url, 0, options.say)
        servers = [Server(place, key, database_url=url) for _ in range(2 if url else 1)]
        try:
            for server in servers:
                server.start()
            registers = [ids.new("task") for _ in range(REGISTERS)]
            first = HttpClient(servers[0].port, key)
            first.ask("POST", "/v1/tasks/bulk", {"tasks": [{"id": one, "name": one} for one in registers]})
            clients = [
                _Client(number, HttpClient(servers[number % len(servers)].port, key), registers, options)
                for number in range(CLIENTS)
            ]
            threads = [threading.Thread(target=client.work, args=(count,)) for client in clients]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            final = {one: _words(json.decode(first.ask("GET", f"/v1/tasks/{one}").body)) for one in registers}
            first.close()
            for server in servers:
                server.stop()
        finally:
            for server in servers:
                server.kill()
    history = [transaction for client in clients for transaction in client.history]
    report.faults = [fault for client in clients for fault in client.faults] + judge(history, final)
    report.figures = {
        "database": "PostgreSQL" if options.database_url else "SQLite",
        "servers": len(servers),
        "clients": CLIENTS,
        "transactions": len(history),
        "of them with several registers": sum(len(t.appended) + len(t.read) > 1 for t in history),
        "appends": sum(len(t.appended) for t in history),
        "appends that came too late (412)": sum(client.late for client in clients),
    }
    return report


class _Client:
    """One client and its history."""

    def __init__(self, number: int, client: HttpClient, registers: list[str], options: Options) -> None:
        self.history: list[Transaction] = []
        self.faults: list[str] = []
        self.late = 0
        self._number = number
        self._client = client
        self._registers = registers
        self._random: Random = options.random(f"consistency/{number}")
        self._known: dict[str, tuple[int, list[str]]] = {}

    def work(self, count: int) -> None:
        """So many transactions, of which those count that were acknowledged."""
        for turn in range(count):
            chosen = self._random.sample(self._registers, self._random.choice((1, 1, 2, 3)))
            transaction = Transaction(f"c{self._number}.{turn}", time.monotonic(), 0.0)
            if self._random.random() < 0.5:
                self._append(transaction, chosen)
            else:
                self._read(transaction, chosen)
        self._client.close()

    def _append(self, transaction: Transaction, chosen: list[str]) -> None:
        """Add a word to each of the texts, provided that none has changed since this client saw it."""
        for register in chosen:
            if register not in self._known:
                self._note(json.decode(self._client.ask("GET", f"/v1/tasks/{register}").body))
        words = {register: f"{transaction.name}/{place}" for place, register in enumerate(chosen)}
        operations = [
            {
                "method": "PATCH",
                "path": f"/tasks/{register}",
                "if_match": self._known[register][0],
                "body": {"description": " ".join([*self._known[register][1], words[register]])},
            }
            for register in chosen
        ]
        transaction.began = time.monotonic()
        answer = self._client.ask("POST", "/v1/batch", {"operations": operations})
        transaction.ended = time.monotonic()
        for register in chosen:
            del self._known[register]
        if answer.status == 200:
            transaction.appended = words
            self._finish(transaction, [result["body"] for result in json.decode(answer.body)["results"]])
        elif answer.status == 412:
            self.late += 1
        else:
            self.faults.append(f"{transaction.name} was answered {answer.status} {answer.body[:200]!r}")

    def _read(self, transaction: Transaction, chosen: list[str]) -> None:
        """One text by its address, several in one list."""
        path = f"/v1/tasks/{chosen[0]}" if len(chosen) == 1 else f"/v1/tasks?{'&'.join(f'id={one}' for one in chosen)}"
        answer = self._client.ask("GET", path)
        transaction.ended = time.monotonic()
        if answer.status != 200:
            self.faults.append(f"{transaction.name} was answered {answer.status} {answer.body[:200]!r}")
            return
        found = json.decode(answer.body)
        tasks = found if isinstance(found, list) else [found]
        transaction.read = {task["id"]: _words(task) for task in tasks}
        self._finish(transaction, tasks)

    def _finish(self, transaction: Transaction, tasks: Iterable[dict[str, Any]]) -> None:
        self.history.append(transaction)
        for task in tasks:
            self._note(task)

    def _note(self, task: dict[str, Any]) -> None:
        self._known[task["id"]] = (task["version"], _words(task))


def _words(task: dict[str, Any]) -> list[str]:
    return (task["description"] or "").split()


# ---- judging ---------------------------------------------------------------------------------------------------------


def judge(history: list[Transaction], final: dict[str, list[str]]) -> list[str]:
    """What no order of the transactions can explain, in words."""
    writers = {word: t.name for t in history for word in t.appended.values()}
    faults = []
    for register, words in final.items():
        lost = [word for t in history if (word := t.appended.get(register)) is not None and word not in words]
        strange = [word for word in words if word not in writers]
        faults += [f"appended and lost: {', '.join(lost[:5])} ({len(lost)})"] if lost else []
        faults += [f"in a text, but never acknowledged: {', '.join(strange[:5])}"] if strange else []
    for t in history:
        for register, seen in t.read.items():
            if seen != final[register][: len(seen)]:
                faults.append(f"{t.name} read a text that never was")
    if faults:
        return faults
    try:
        TopologicalSorter(_graph(history, final, writers)).prepare()
    except CycleError as error:
        names = [name for name in error.args[1] if not name.startswith("@")]
        return [f"no order explains what these saw of each other: {' -> '.join(names[:8])}"]
    return []


def _graph(history: list[Transaction], final: dict[str, list[str]], writers: dict[str, str]) -> dict[str, set[str]]:
    """For each transaction those that must have come before it."""
    before: dict[str, set[str]] = {t.name: set() for t in history}
    for words in final.values():
        for earlier, later in pairwise(words):
            before[writers[later]].add(writers[earlier])
    for t in history:
        for register, seen in t.read.items():
            if seen:
                before[t.name].add(writers[seen[-1]])
            if len(seen) < len(final[register]):
                before[writers[final[register][len(seen)]]].add(t.name)
    for name, earlier_ones in before.items():
        earlier_ones.discard(name)
    return before | _clock(history, before)


def _clock(history: list[Transaction], before: dict[str, set[str]]) -> dict[str, set[str]]:
    """Moments as nodes of their own: whatever ended before a moment comes before whatever began after it."""
    moments = sorted([(t.ended, 1, t) for t in history] + [(t.began, 0, t) for t in history], key=lambda m: m[:2])
    found: dict[str, set[str]] = {}
    latest = ""
    for number, (_, is_end, t) in enumerate(moments):
        if is_end:
            name = f"@{number}"
            found[name] = {t.name, *([latest] if latest else [])}
            latest = name
        elif latest:
            before[t.name].add(latest)
    return found
