"""How a server process listens, ends and hands over; what it answers is not its business.

Why the listening socket is ours and is never closed in between: connections that arrive while a process is replaced
wait in its queue instead of being refused. And why accepting ends before everything else: Granian closes a connection
that it has accepted but not yet read from, so first nothing new comes in, and what is in gets the time to ask.
"""

import asyncio
import enum
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from granian._granian import SocketHolder
from granian.constants import Interfaces
from granian.server.embed import Server as EmbeddedServer

from taskade_server.config import ConfigError
from taskade_server.http import connections
from taskade_server.kit import logs

logger: Final = logging.getLogger("taskade")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

INHERIT: Final = "TASKADE_INHERIT"
BACKLOG: Final = 1024
# How long requests that are under way may take once the process has been told to end.
STOP_SECONDS: Final = 25.0
# Nothing has been asked for so long: whoever was about to ask on an open connection has done so.
QUIET_SECONDS: Final = 0.25
LINGER_SECONDS: Final = 2.0
START_SECONDS: Final = 60.0
# A worker that ends sooner than this after its start is started again ever more slowly.
SOUND_SECONDS: Final = 10.0
LAST_RETRY_SECONDS: Final = 30.0


# ---- the socket ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Inherited:
    """What a process was handed when it was started: a listening socket, and a line to the process above it."""

    listener: socket.socket | None = None
    line: socket.socket | None = None


def inherited() -> Inherited:
    """The sockets of this process's own predecessor or parent, or of systemd. They are taken once."""
    given = os.environ.pop(INHERIT, "")
    if given:
        sockets = [socket.socket(fileno=int(number)) for number in given.split(",")]
        for handed in sockets:
            handed.set_inheritable(False)
        return Inherited(*sockets)
    if os.environ.pop("LISTEN_PID", "") == str(os.getpid()) and os.environ.pop("LISTEN_FDS", "") == "1":
        return Inherited(socket.socket(fileno=3))
    return Inherited()


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens (on a free port for 0). ConfigError when that is impossible."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return _bound(family, address)
    except OSError as error:
        raise ConfigError(
            f"{host}:{port} cannot be used: {error.strerror}. Choose another one with --host and --port."
        ) from error


def _bound(family: int, address: Any, *, shared: bool = False) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def become_anew(listener: socket.socket) -> None:
    """Replace this process by a new one that runs the same command on the same socket. It does not return."""
    with suppress(ValueError):  # outside the main thread signals cannot be set
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the new one knows what to do about it, it would end it
    listener.set_inheritable(True)
    os.environ[INHERIT] = str(listener.fileno())
    _flush()
    os.execv(sys.executable, _command())


def leave(ending: "Ending", listener: socket.socket) -> None:
    """End this process, or replace it, without waiting for what is still running in it. It does not return."""
    if ending is Ending.RELOAD:
        become_anew(listener)
    _flush()
    os._exit(0)


def _flush() -> None:
    """What was said shall be read, although nobody will clean up."""
    logs.SINK.close()
    sys.stdout.flush()
    sys.stderr.flush()


def _command() -> list[str]:
    return [sys.executable, *sys.orig_argv[1:]]


# ---- one process -----------------------------------------------------------------------------------------------------


class Requests(Protocol):
    """Whoever counts what a process is asked."""

    asked: int
    """How many requests there have been."""

    @property
    def under_way(self) -> int:
        """How many are being answered."""


@dataclass(slots=True)
class Traffic:
    """What the two sides of a process tell each other: that it is about to end, and who wants to know."""

    ending: bool = False
    leaving: list[Callable[[], None]] = field(default_factory=list)
    """Called when nothing new comes in any more, for whatever would go on for ever otherwise."""

    def carry(self, application: Application, scope: Message, receive: Receive, send: Send) -> Awaitable[None]:
        """Pass a request on. While the process is ending, its answer ends the connection, too."""
        if self.ending or scope["method"] not in _BODILESS:
            exchange = _Exchange(self, scope, receive, send)
            receive, send = exchange.receive, exchange.send
        return application(scope, receive, send)


_BODILESS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_LEFT_SECONDS: Final = 1.0
_LEFT_BYTES: Final = 64 << 10


class _Exchange:
    """A request and its answer, so that the client knows whether the connection lasts.

    Why it matters: Granian ends a connection, and does not say so, when an answer leaves before the whole request was
    read, as that to a wrong key does; a client that asks again on it loses its request. So what is left of a small body
    is read first, and for a large one the answer says that the connection ends.
    """

    __slots__ = ("_receive", "_scope", "_send", "_traffic", "_unread")

    def __init__(self, traffic: Traffic, scope: Message, receive: Receive, send: Send) -> None:
        self._traffic, self._scope, self._receive, self._send = traffic, scope, receive, send
        self._unread = scope["method"] not in _BODILESS

    async def receive(self) -> Message:
        message = await self._receive()
        self._unread = bool(message.get("more_body"))
        return message

    def send(self, message: Message) -> Awaitable[None]:
        if (self._unread or self._traffic.ending) and message["type"] == "http.response.start":
            return self._send_head(message)
        return self._send(message)

    async def _send_head(self, message: Message) -> None:
        if self._unread:
            await self._read_what_is_left()
        if self._unread or self._traffic.ending:
            message["headers"] = [*message["headers"], (b"connection", b"close")]
        await self._send(message)

    async def _read_what_is_left(self) -> None:
        if any(name == b"expect" for name, _ in self._scope["headers"]):
            return  # it waits for our word before it sends the body
        size = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(_LEFT_SECONDS):
                while self._unread and size <= _LEFT_BYTES:
                    size += len((await self.receive()).get("body", b""))


class Ending(enum.Enum):
    """Why a process ends."""

    STOP = "stop"
    RELOAD = "reload"


class _Granian(EmbeddedServer):
    """Granian on a socket that stays ours, and that it can be made to leave alone while it goes on answering."""

    def __init__(self, application: Application, listener: socket.socket, most: int) -> None:
        super().__init__(
            application, interface=Interfaces.ASGINL, http=connections.MODE, http1_settings=connections.HTTP1,
            websockets=True, log_enabled=False, backlog=BACKLOG, backpressure=most,
        )  # fmt: skip
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
        """Put a socket that nobody knows of in the place of the one that Granian accepts connections from."""
        if self._accepts_from < 0:
            return  # it has not begun
        with socket.socket(self._listener.family) as nobody:
            nobody.setblocking(False)
            nobody.bind(("::1" if nobody.family == socket.AF_INET6 else "127.0.0.1", 0))
            nobody.listen(1)
            os.dup2(nobody.fileno(), self._accepts_from, inheritable=False)


class Process:
    """Serves on a socket until a signal, or the process above, says that it is enough.

    `ending` says afterwards why it ended. `cut_off` is set when requests had to be left unanswered; Granian is still at
    them then.
    """

    def __init__(
        self, application: Application, requests: Requests, traffic: Traffic, handed: Inherited,
        listener: socket.socket, delay: float, most: int,
    ) -> None:  # fmt: skip
        """`delay` is how long to go on once told to stop, `most` how many connections there may be."""
        self._requests = requests
        self._traffic = traffic
        self._line = handed.line
        self._listener = listener
        self._delay = delay
        self._server = _Granian(application, listener, most)
        self._told = asyncio.Event()
        self._hurry = asyncio.Event()
        self.ending = Ending.STOP
        self._loop = asyncio.get_running_loop()
        self._terminal = os.isatty(0)
        self.cut_off = False

    async def serve(self) -> None:
        """Serve. When it returns, all is answered, or STOP_SECONDS are over."""
        self._loop.add_signal_handler(signal.SIGTERM, self._stop)
        self._loop.add_signal_handler(signal.SIGINT, self._interrupt)
        self._loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        serving = asyncio.create_task(self._server.serve())
        telling = asyncio.create_task(self._told.wait())
        if self._line is not None:
            self._line.send(b".")
            self._loop.add_reader(self._line, self._let_go)
        await asyncio.wait({serving, telling}, return_when=asyncio.FIRST_COMPLETED)
        if self._line is not None:
            self._loop.remove_reader(self._line)
        if serving.done():
            telling.cancel()
            await serving
        else:
            await self._end(serving)

    def replace(self) -> None:
        """End, on whatever thread this is said, in favour of a successor that opens everything anew."""
        self._loop.call_soon_threadsafe(self._tell, Ending.RELOAD, 0.0)

    # -- being told

    def _tell(self, ending: Ending, delay: float) -> None:
        if not self._told.is_set():
            self.ending, self._delay = ending, delay
            self._told.set()
        elif ending is Ending.STOP:
            self.ending = ending  # who stops it while it is being replaced wants no successor

    def _stop(self) -> None:
        # A supervisor may well say so more than once.
        self._tell(Ending.STOP, self._delay)

    def _interrupt(self) -> None:
        if self._told.is_set():
            self._hurry.set()  # who presses Ctrl-C twice is out of patience
        self._tell(Ending.STOP, self._delay)

    def _let_go(self) -> None:
        """The process above has closed the line: others accept in our place, or it is gone."""
        assert self._line is not None
        self._loop.remove_reader(self._line)
        self._tell(Ending.STOP, 0.0)

    def _hang_up(self) -> None:
        if self._terminal and not os.isatty(0):
            self._stop()  # the terminal it was started from is closed
        elif self._line is None and not self._told.is_set():
            self._trying = self._loop.create_task(self._reload())

    async def _reload(self) -> None:
        """End in favour of a successor, if the program as it is installed now can be run at all."""
        trial = await asyncio.create_subprocess_exec(
            *_command(), "--help", stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL
        )
        if await trial.wait() != 0:
            logger.error("Not reloaded: the installed program does not run. This one goes on.")
        else:
            self._tell(Ending.RELOAD, 0.0)

    # -- ending

    async def _end(self, serving: asyncio.Task[None]) -> None:
        patience = asyncio.create_task(self._hurry.wait())
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
        self._server.stop_accepting()
        if self.ending is Ending.STOP:
            self._listener.close()
        for leave in self._traffic.leaving:
            leave()
        await self._fall_quiet()
        self._server.stop()  # type: ignore[no-untyped-call]
        await asyncio.wait({serving})

    async def _fall_quiet(self) -> None:
        """Wait until nobody asks any more on the connections that are open."""
        until = time.monotonic() + LINGER_SECONDS
        asked = -1
        while asked != self._requests.asked and time.monotonic() < until:
            asked = self._requests.asked
            await asyncio.sleep(QUIET_SECONDS)


# ---- many processes --------------------------------------------------------------------------------------------------


class _Worker:
    """A server process below this one, and the line to it: it says when it serves, and ends when the line does."""

    def __init__(self, process: asyncio.subprocess.Process, line: socket.socket) -> None:
        self.process = process
        self.born = time.monotonic()
        self._line = line
        self._serves: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().add_reader(line, self._hear)

    @classmethod
    async def start(cls, listener: socket.socket) -> "_Worker":
        """Start one on the shared socket."""
        ours, theirs = socket.socketpair()
        with theirs:
            handed = (listener.fileno(), theirs.fileno())
            process = await asyncio.create_subprocess_exec(
                *_command(),
                env={**os.environ, INHERIT: ",".join(map(str, handed))},
                pass_fds=handed,
                stdin=asyncio.subprocess.DEVNULL,
                process_group=0,  # Ctrl-C is said to the process above, which passes it on in its own time
            )
        logger.info("Worker %d starts.", process.pid)
        return cls(process, ours)

    def _hear(self) -> None:
        said = self._line.recv(1)
        asyncio.get_running_loop().remove_reader(self._line)
        if not self._serves.done():
            self._serves.set_result(bool(said))

    async def serves(self) -> bool:
        """Whether it gets as far as serving, in good time."""
        await asyncio.wait({self._serves}, timeout=START_SECONDS)
        return self._serves.done() and bool(self._serves.result())

    def tell(self, number: signal.Signals) -> None:
        """Send it a signal, if it is still there."""
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def end(self) -> None:
        """Let it finish what it has begun and wait for its end, which comes by force if need be."""
        asyncio.get_running_loop().remove_reader(self._line)
        self._line.close()
        try:
            async with asyncio.timeout(LINGER_SECONDS + STOP_SECONDS + 5):
                await self.process.wait()
        except TimeoutError:
            self.tell(signal.SIGKILL)
            await self.process.wait()


class _Slot:
    """The place of one worker, with a socket of its own on the common address.

    Why not one socket for all: whoever wakes up first would take all connections that wait there, so that one worker
    had them all and the others none. The kernel spreads them over several sockets evenly.
    """

    def __init__(self, family: int, address: Any, common: socket.socket | None) -> None:
        self._family, self._address, self._common = family, address, common
        self._own: socket.socket | None = None
        self.worker: _Worker | None = None

    async def fill(self) -> _Worker:
        """Start a worker for this place; it is up to the caller to put it there."""
        if self._common is None and self._own is None:
            self._own = _bound(self._family, self._address, shared=True)
        listener = self._common or self._own
        assert listener is not None
        return await _Worker.start(listener)

    def vacate(self) -> None:
        """Accept nothing here for now: what comes goes to the others."""
        if self._own is not None:
            self._own.close()
            self._own = None


class Workers:
    """Keeps a number of server processes running on one address, and replaces them one after another on SIGHUP."""

    def __init__(self, listener: socket.socket, count: int, delay: float, *, common: bool) -> None:
        """`common`: the socket was handed to us, so that all share it; otherwise it only tells the address."""
        common = common or sys.platform != "linux"
        family, address = listener.family, listener.getsockname()
        if not common:
            listener.close()
        self._common = listener if common else None
        self._slots = [_Slot(family, address, self._common) for _ in range(count)]
        self._delay = delay
        self._stopping = asyncio.Event()
        self._reload = asyncio.Event()
        self._changing = asyncio.Lock()
        self._terminal = os.isatty(0)

    @property
    def _workers(self) -> list[_Worker]:
        return [slot.worker for slot in self._slots if slot.worker is not None]

    async def run(self) -> int:
        """Until SIGINT or SIGTERM; the exit status, which is 1 if the first workers could not be started."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop)
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        for slot in self._slots:
            slot.worker = await slot.fill()
        starting = asyncio.create_task(self._all_serve())
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        sound = not starting.done() or starting.result()
        tasks = [asyncio.create_task(self._keep(slot)) for slot in self._slots]
        tasks.append(asyncio.create_task(self._roll_when_told()))
        if sound:
            await stopping
        self._stopping.set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._stop_all()
        return 0 if sound else 1

    async def _all_serve(self) -> bool:
        return all(await asyncio.gather(*(worker.serves() for worker in self._workers)))

    def _stop(self) -> None:
        self._stopping.set()

    def _interrupt(self) -> None:
        if self._stopping.is_set():
            for worker in self._workers:
                worker.tell(signal.SIGINT)
        self._stopping.set()

    def _hang_up(self) -> None:
        (self._stopping if self._terminal and not os.isatty(0) else self._reload).set()

    async def _stop_all(self) -> None:
        """The port is given up when the last worker stops accepting."""
        for slot in self._slots:
            slot.vacate()
        if self._common is not None:
            self._common.close()
        for worker in self._workers:
            worker.tell(signal.SIGTERM)
        ends = [asyncio.create_task(worker.process.wait()) for worker in self._workers]
        await asyncio.wait(ends, timeout=self._delay + LINGER_SECONDS + STOP_SECONDS)
        await asyncio.gather(*(worker.end() for worker in self._workers))

    async def _keep(self, slot: _Slot) -> None:
        """Start a worker anew when it ends unasked, at first at once, then ever more slowly."""
        failures = 0
        while True:
            worker = slot.worker
            assert worker is not None
            status = await worker.process.wait()
            if slot.worker is not worker:
                failures = 0
                continue  # it was replaced
            logger.error("Worker %d ended with status %s.", worker.process.pid, status)
            failures = 0 if time.monotonic() - worker.born > SOUND_SECONDS else failures + 1
            if failures:
                slot.vacate()
                await asyncio.sleep(min(0.5 * 2 ** min(failures - 1, 10), LAST_RETRY_SECONDS))
            async with self._changing:
                if slot.worker is worker:
                    slot.worker = await self._filled(slot) or worker

    async def _filled(self, slot: _Slot) -> _Worker | None:
        try:
            return await slot.fill()
        except OSError as error:
            logger.error("A worker could not be started: %s.", error)
            return None

    async def _roll_when_told(self) -> None:
        while True:
            await self._reload.wait()
            self._reload.clear()
            async with self._changing:
                await self._roll()

    async def _roll(self) -> None:
        """Replace each worker by one that runs the installed program; stop there if one does not get to serve."""
        for slot in self._slots:
            fresh = await self._filled(slot)
            if fresh is None or not await self._proves(fresh):
                logger.error("Not reloaded: a new worker did not start. The old ones go on.")
                return
            worn, slot.worker = slot.worker, fresh
            if worn is not None:
                await worn.end()
        logger.info("Reloaded: all %d workers were replaced.", len(self._slots))

    async def _proves(self, fresh: _Worker) -> bool:
        """Whether a new worker serves; otherwise it is gone."""
        sound = False
        try:
            sound = await fresh.serves()
        finally:
            if not sound:
                fresh.tell(signal.SIGKILL)
                await fresh.end()
        return sound
