"""`taskade`, but in a process that can be told to die, or whose disk can be told to fail, at an exact point.

Why a way in of its own: the server's code has no hooks for tests. SQLite has: every statement can be traced, and every
operation on a file goes through a file system that may be another one.

    python -m taskade_server.selftest.fault_injection FIRED TRAP serve --data ...

TRAP, and each further line on standard input, is JSON: `{"at": "before sync wal", "nth": 3}` kills the process there;
with `"error": 1034` SQLite is told that error instead, `"times"` times. FIRED is a file that grows by a byte each time.
"""

import os
import runpy
import signal
import sys
import threading
from typing import Any, Final

import apsw

from taskade_server.kit import json
from taskade_server.selftest.disk import Disk, File, kind
from taskade_server.selftest.host import CHECKPOINT_PAGES
from taskade_server.store.sqlite import writer

_STATEMENT: Final = {apsw.SQLITE_TRACE_STMT: "before", apsw.SQLITE_TRACE_PROFILE: "after"}


class Trap:
    """Waits for the nth time that something happens at a point."""

    def __init__(self, fired: str) -> None:
        self._fired = fired
        self._point = ""
        self._left = 0
        self._times = 0
        self._error = 0

    def set(self, order: dict[str, Any]) -> None:
        """Wait for this point from now on."""
        self._left, self._times, self._error = order.get("nth", 1), order.get("times", 1), order.get("error", 0)
        self._point = order.get("at", "")

    def step_on(self, point: str) -> bool:
        """Count; whether the process should die here. Raises SQLite's error if that is what was ordered."""
        if point != self._point or self._times == 0:
            return False
        self._left -= 1
        if self._left > 0:
            return False
        self._times -= 1
        descriptor = os.open(self._fired, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(descriptor, b".")
        os.close(descriptor)
        if self._error:
            raise apsw.exception_for(self._error)
        return True


def die() -> None:
    """As `kill -9` does it: nothing is flushed, nobody is told."""
    os.kill(os.getpid(), signal.SIGKILL)


class TrappedDisk(Disk):
    """The default file system of this process."""

    def __init__(self, trap: Trap) -> None:
        self._trap = trap
        super().__init__(default=True)

    def before(self, what: str, file: File | None, path: str, offset: int = 0, data: bytes = b"") -> None:
        if file is not None and what == "write" and self._trap.step_on(f"amid write {kind(path)}"):
            file.write_half(data, offset)
            die()
        if offset == 0 and what == "write" and self._trap.step_on(f"before begin {kind(path)}"):
            die()
        if self._trap.step_on(f"before {what} {kind(path)}"):
            die()

    def after(self, what: str, file: File | None, path: str, offset: int = 0, data: bytes = b"") -> None:
        if self._trap.step_on(f"after {what} {kind(path)}"):
            die()


def statement(sql: str) -> str:
    """The words that name a statement: `insert events`, `begin immediate`, `update log_heads`, `commit`."""
    words = [
        word for word in sql[:200].replace("(", " ").lower().split() if word not in ("or", "replace", "fail", "into")
    ]
    return " ".join(words[:2])


def _watch(trap: Trap, connection: apsw.Connection) -> None:
    def step(event: dict[str, Any]) -> None:
        if not event.get("trigger") and trap.step_on(f"{_STATEMENT[event['code']]} {statement(event['sql'])}"):
            die()

    connection.trace_v2(apsw.SQLITE_TRACE_STMT | apsw.SQLITE_TRACE_PROFILE, step, id="selftest")


def _listen(trap: Trap) -> None:
    """Take traps, one at a time and past Python's buffer: when the server has replaced itself, its successor reads."""
    while line := os.read(0, 4096):
        trap.set(json.decode(line))


def main() -> None:
    """Set the trap, then be `taskade`."""
    fired, order, *arguments = sys.argv[1:]
    trap = Trap(fired)
    if not os.path.exists(fired):  # otherwise this is what came after it had snapped
        trap.set(json.decode(order))
    disk = TrappedDisk(trap)
    apsw.connection_hooks.append(lambda connection: _watch(trap, connection))
    writer.CHECKPOINT_PAGES = CHECKPOINT_PAGES
    threading.Thread(target=_listen, args=(trap,), daemon=True).start()
    sys.argv = ["taskade", *arguments]
    try:
        runpy.run_module("taskade_server", run_name="__main__")
    finally:
        disk.unregister()


if __name__ == "__main__":
    main()
