"""How a server process listens, ends and hands over; what it answers is not its business.

Why the listening socket is ours and is never closed in between: connections that arrive while a process is replaced
wait in its queue instead of being refused. And why accepting ends before everything else: Granian closes a connection
that it has accepted but not yet read from, so first nothing new comes in, and what is in gets the time to ask.
"""

import asyncio
import enum
import errno
import fcntl
import logging
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from granian._granian import SocketHolder
from granian.constants import Interfaces
from granian.server.embed import Server as EmbeddedServer

from taskade_server.config import ConfigError
from taskade_server.http.admission import connections
from taskade_server.kit import logs
from taskade_server.serving.sockets import BACKLOG, INHERIT, Inherited, queued
from taskade_server.serving.traffic import Application, Requests, Traffic

logger: Final = logging.getLogger("taskade")


LOCK: Final = "server.lock"
"""In the data folder: the server that uses it holds a lock on this file, and says in it who it is."""
CLAIM_SECONDS: Final = 3.0
# How long requests that are under way may take after a request to stop.
STOP_SECONDS: Final = 25.0
# No request came for this long: a client that was about to send one on an open connection has done so.
QUIET_SECONDS: Final = 0.25
LINGER_SECONDS: Final = 2.0
QUEUE_SECONDS: Final = 0.01


# ---- the socket ------------------------------------------------------------------------------------------------------


def claim(folder: Path, address: str) -> None:
    """Keep other servers from a folder until this process ends, however it does. ConfigError if another one is there.

    The system gives the lock up with the process, so a crashed server is in nobody's way; a process that is replaced by
    its successor gives it up for the moment in between.
    """
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise ConfigError(f"{folder / LOCK} cannot be opened: {error.strerror}.") from error
        logger.warning("The disk is full, so no other server can be kept from the data folder.")
        return
    until = time.monotonic() + CLAIM_SECONDS  # one that is just about to end is waited for
    while not _locked(descriptor):
        if time.monotonic() >= until:
            who = os.pread(descriptor, 200, 0).decode("utf-8", "replace").strip()
            os.close(descriptor)
            other = f"Another server ({who})" if who else "Another server"
            raise ConfigError(
                f"{other} uses the data folder {folder}, and one server uses a folder at a time. Stop that one first,"
                " or give another folder with --data."
            )
        time.sleep(0.05)
    with suppress(OSError):  # the disk may be full; the lock is what counts
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()}, {address}\n".encode(), 0)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def become_anew(listener: socket.socket) -> None:
    """Replace this process by a new one that runs the same command on the same socket. It does not return."""
    with suppress(ValueError):  # outside the main thread signals cannot be set
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the new one knows what to do about it, it would end it
    listener.set_inheritable(True)
    os.environ[INHERIT] = str(listener.fileno())
    _flush()
    os.execv(sys.executable, command())


def leave(ending: "Ending", listener: socket.socket) -> None:
    """End this process, or replace it, without waiting for what is still running in it. It does not return."""
    if ending is Ending.RELOAD:
        become_anew(listener)
    _flush()
    os._exit(0)


def _flush() -> None:
    """Write out what was logged and printed: `os._exit` would drop it."""
    logs.SINK.close()
    sys.stdout.flush()
    sys.stderr.flush()


def command() -> list[str]:
    return [sys.executable, *sys.orig_argv[1:]]


# ---- one process -----------------------------------------------------------------------------------------------------


class Ending(enum.Enum):
    """Why a process ends."""

    STOP = "stop"
    RELOAD = "reload"


class _Granian(EmbeddedServer):
    """Granian on a socket that stays ours, and that it can be made to leave alone while it goes on answering."""

    def __init__(self, application: Application, listener: socket.socket, most: int) -> None:
        super().__init__(
            application,
            interface=Interfaces.ASGINL,
            http=connections.MODE,
            http1_settings=connections.HTTP1,
            websockets=True,
            log_enabled=False,
            backlog=BACKLOG,
            backpressure=most,
        )
        self._listener = listener
        self._accepts_from = -1

    def _init_shared_socket(self) -> None:
        connections.harden(self._listener)
        # Granian will close the descriptor that it gets, and takes it for one that does not block.
        self._listener.setblocking(False)
        self._accepts_from = os.dup(self._listener.fileno())
        self._ssp = None
        holder = SocketHolder(self._accepts_from, False, BACKLOG)  # type: ignore[call-arg]  # the stub lacks them
        self._shd = holder  # type: ignore[assignment]  # inferred from the None before it

    def stop_accepting(self) -> None:
        """Replace the socket that Granian accepts connections from by one that no client can know of."""
        if self._accepts_from < 0:
            return  # it has not begun
        with socket.socket(self._listener.family) as unused:
            unused.setblocking(False)
            unused.bind(("::1" if unused.family == socket.AF_INET6 else "127.0.0.1", 0))
            unused.listen(1)
            os.dup2(unused.fileno(), self._accepts_from, inheritable=False)


class Process:
    """Serves on a socket until a signal or the parent process asks it to stop.

    `ending` says afterwards why it ended. `cut_off` is set when requests had to be left unanswered; Granian is still at
    them then.
    """

    def __init__(
        self,
        application: Application,
        requests: Requests,
        traffic: Traffic,
        handed: Inherited,
        listener: socket.socket,
        delay: float,
        most: int,
    ) -> None:
        """`delay`: seconds to go on serving after a request to stop. `most`: how many connections there may be."""
        self._requests = requests
        self._traffic = traffic
        self._control = handed.control
        self._listener = listener
        self._delay = delay
        self._server = _Granian(application, listener, most)
        self._stop_requested = asyncio.Event()
        self._abort = asyncio.Event()
        self.ending = Ending.STOP
        self._loop = asyncio.get_running_loop()
        self._terminal = os.isatty(0)
        self.cut_off = False

    async def serve(self) -> None:
        """Serve until asked to stop, and then until all requests have a response, or STOP_SECONDS are over."""
        self._loop.add_signal_handler(signal.SIGTERM, self._stop)
        self._loop.add_signal_handler(signal.SIGINT, self._interrupt)
        self._loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        serving = asyncio.create_task(self._server.serve())
        requested = asyncio.create_task(self._stop_requested.wait())
        if self._control is not None:
            self._control.send(b".")
            self._loop.add_reader(self._control, self._control_closed)
        await asyncio.wait({serving, requested}, return_when=asyncio.FIRST_COMPLETED)
        if self._control is not None:
            self._loop.remove_reader(self._control)
        if serving.done():
            requested.cancel()
            await serving
        else:
            await self._end(serving)

    def replace(self) -> None:
        """Stop in favour of a successor that opens everything again; may be called from any thread."""
        self._loop.call_soon_threadsafe(self._request_stop, Ending.RELOAD, 0.0)

    # -- requests to stop

    def _request_stop(self, ending: Ending, delay: float) -> None:
        if not self._stop_requested.is_set():
            self.ending, self._delay = ending, delay
            self._stop_requested.set()
        elif ending is Ending.STOP:
            self.ending = ending  # a request to stop during a reload means that no successor is wanted

    def _stop(self) -> None:
        # A supervisor may well say so more than once.
        self._request_stop(Ending.STOP, self._delay)

    def _interrupt(self) -> None:
        if self._stop_requested.is_set():
            self._abort.set()  # Ctrl-C for the second time: do not wait for requests
        self._request_stop(Ending.STOP, self._delay)

    def _control_closed(self) -> None:
        """The parent has closed the control socket: other workers accept in our place, or the parent is gone."""
        assert self._control is not None
        self._loop.remove_reader(self._control)
        self._request_stop(Ending.STOP, 0.0)

    def _hang_up(self) -> None:
        if self._terminal and not os.isatty(0):
            self._stop()  # the terminal it was started from is closed
        elif self._control is None and not self._stop_requested.is_set():
            self._trying = self._loop.create_task(self._reload())

    async def _reload(self) -> None:
        """End in favour of a successor, if the program as it is installed now can be run at all."""
        trial = await asyncio.create_subprocess_exec(
            *command(), "--help", stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL
        )
        if await trial.wait() != 0:
            logger.error("Not reloaded: the installed program does not run. This one goes on.")
        else:
            self._request_stop(Ending.RELOAD, 0.0)

    # -- ending

    async def _end(self, serving: asyncio.Task[None]) -> None:
        patience = asyncio.create_task(self._abort.wait())
        leaving = asyncio.create_task(self._leave(serving))
        limit = self._delay + LINGER_SECONDS + STOP_SECONDS
        await asyncio.wait({leaving, patience}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        patience.cancel()
        if leaving.done() and (error := leaving.exception()):
            logger.error("The process could not end in an orderly way.", exc_info=error)
        leaving.cancel()
        if not serving.done():
            self.cut_off = True
            logger.warning("%d requests were cut off: they took too long.", self._requests.under_way)

    async def _leave(self, serving: asyncio.Task[None]) -> None:
        self._traffic.ending = True
        await asyncio.sleep(self._delay)
        port = self._listener.getsockname()[1]
        # Those that wait in the queue came before the request to stop. With the last socket they would be reset.
        # Rounds are counted, since the clock goes on while a machine stands still.
        for _ in range(int(LINGER_SECONDS / QUEUE_SECONDS)):
            if self.ending is not Ending.STOP or not queued(self._listener):
                break
            await asyncio.sleep(QUEUE_SECONDS)
        self._server.stop_accepting()
        if self.ending is Ending.STOP:
            self._listener.close()
        for leave in self._traffic.leaving:
            leave()
        await self._wait_until_quiet(port)
        self._server.stop()  # type: ignore[no-untyped-call]
        await asyncio.wait({serving})

    async def _wait_until_quiet(self, port: int) -> None:
        """Wait until no more requests come on the connections that are open."""
        asked = -1
        for _ in range(int(LINGER_SECONDS / QUIET_SECONDS)):
            # On a busy machine requests may have arrived that nobody has had the time to read.
            if asked == self._requests.asked and not await asyncio.to_thread(connections.unread, port):
                return
            asked = self._requests.asked
            await asyncio.sleep(QUIET_SECONDS)


# ---- many processes --------------------------------------------------------------------------------------------------
