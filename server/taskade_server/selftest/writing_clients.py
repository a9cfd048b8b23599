"""Clients that write to one real server, each with a ledger on disk, and the check of all ledgers after a crash.

They go on whatever the server answers, as clients do.
"""

import threading
from typing import Final

from taskade_server.selftest.checker import Checker
from taskade_server.selftest.client import Answer, HttpClient, judged_again
from taskade_server.selftest.ledger import Ledger, Operation, Tally, Verdict, judge, recall
from taskade_server.selftest.process import Server
from taskade_server.selftest.workload import Writer

WRITERS: Final = 4
PAUSE_SECONDS: Final = 0.05


class WritingClients:
    """`faults` collects whatever must not happen, in words; `tally` counts what happens."""

    def __init__(self, server: Server, checker: Checker, seed: int, name: str = "w", writers: int = WRITERS) -> None:
        self.faults: list[str] = []
        self.tally = Tally()
        self.lost = self.torn = 0
        self._server = server
        self._checker = checker
        self._writers = [Writer(f"{name}{number}", seed) for number in range(writers)]
        self._paths = [server.folder / f"{writer.name}.ledger" for writer in self._writers]
        self._ledgers = [Ledger(path) for path in self._paths]
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._afresh = checker.copy()

    def start(self) -> None:
        """Let them work."""
        self._stop.clear()
        pairs = zip(self._writers, self._ledgers, strict=True)
        self._threads = [threading.Thread(target=self._work, args=pair, daemon=True) for pair in pairs]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Wait until each has the answer to its last request, or knows that none will come."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait(self, seconds: float) -> None:
        """Let them work for so long."""
        self._stop.wait(seconds)

    @property
    def acknowledged(self) -> int:
        return self.tally.counts["acknowledged"]

    def last_task(self) -> str:
        """The path of a task whose creation has been acknowledged last, for a first look; "" if there is none."""
        for ledger in self._ledgers:
            for operation in reversed(ledger.operations):
                if operation.fate == "acknowledged" and operation.kind == "create":
                    return f"/v1/tasks/{operation.created[0]}"
        return ""

    def reckon(self, *, whole: bool = False, sound: bool = True) -> Verdict:
        """On a server that is up again: compare promises with the log, find out what was left open, and ask again."""
        self.faults += self._checker.look(whole=whole, sound=sound)
        verdict = judge(self._operations(), self._checker.found)
        self._note_verdict(verdict)
        there = {operation.name for operation in verdict.there}
        for writer, ledger in zip(self._writers, self._ledgers, strict=True):
            for operation in writer.unsettled:
                ledger.settled(operation, "there" if operation.name in there else "absent")
                self.tally.add(f"found {operation.fate}")
                self._send_again(writer, ledger, operation)
            writer.unsettled.clear()
        return verdict

    def close(self) -> list[str]:
        """The last reckoning, from the files of the ledgers and the whole log; all faults."""
        for ledger in self._ledgers:
            ledger.close()
        self.faults += self._afresh.look(whole=True)
        self._note_verdict(judge([entry for path in self._paths for entry in recall(path)], self._afresh.found))
        return self.faults

    def _note_verdict(self, verdict: Verdict) -> None:
        self.lost += len(verdict.lost)
        self.torn += len(verdict.torn)
        self.faults += verdict.faults()

    def _operations(self) -> list[Operation]:
        return [operation for ledger in self._ledgers for operation in ledger.operations]

    def _work(self, writer: Writer, ledger: Ledger) -> None:
        with HttpClient(self._server.port, self._server.key) as client:
            while not self._stop.is_set():
                operation = writer.next()
                ledger.sent(operation)
                answer = client.ask(operation.method, operation.path, operation.body, operation.key)
                self._note(writer, ledger, operation, answer)
                if answer.fate != "acknowledged":
                    self._stop.wait(PAUSE_SECONDS)

    def _note(self, writer: Writer, ledger: Ledger, operation: Operation, answer: Answer) -> None:
        operation.status, operation.reply = answer.status, answer.body
        ledger.settled(operation, answer.fate)
        self.tally.add(answer.fate)
        if answer.fate == "acknowledged":
            self.tally.add("in bulk or batch", operation.together)
        if answer.fate == "unknown":
            self.tally.add("told so", answer.status != 0)
            writer.unsettled.append(operation)
        else:
            writer.settle(operation, answer.fate == "acknowledged")
        if not answer.in_order:
            self.faults.append(
                f"{operation.name} ({operation.kind}) was answered {answer.status} {answer.body[:300]!r}"
            )

    def _send_again(self, writer: Writer, ledger: Ledger, operation: Operation) -> None:
        """The same request with the same key: it must be answered as if it had never been interrupted."""
        happened = operation.fate == "there"
        with HttpClient(self._server.port, self._server.key) as client:
            answer = client.ask(operation.method, operation.path, operation.body, operation.key)
        self.tally.add("sent again")
        self.faults += judged_again(operation.name, happened, answer)
        if answer.fate == "acknowledged":
            ledger.settled(operation, "acknowledged")
            writer.settle(operation, True)
