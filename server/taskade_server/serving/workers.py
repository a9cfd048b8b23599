"""Several server processes: started, watched and replaced."""

import asyncio
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from typing import Any, Final

from taskade_server.serving.process import LINGER_SECONDS, STOP_SECONDS, command, logger
from taskade_server.serving.sockets import INHERIT, bound

START_SECONDS: Final = 60.0


# A worker that exits sooner than this after its start is restarted after pauses that double.
SOUND_SECONDS: Final = 10.0
LAST_RETRY_SECONDS: Final = 30.0


class _Worker:
    """A child process that serves. It writes to the control socket once it serves, and stops when that is closed."""

    def __init__(self, process: asyncio.subprocess.Process, control: socket.socket) -> None:
        self.process = process
        self.started_at = time.monotonic()
        self._control = control
        self._serves: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().add_reader(control, self._read_control)

    @classmethod
    async def start(cls, listener: socket.socket) -> "_Worker":
        """Start one on the shared socket."""
        ours, theirs = socket.socketpair()
        with theirs:
            handed = (listener.fileno(), theirs.fileno())
            process = await asyncio.create_subprocess_exec(
                *command(),
                env={**os.environ, INHERIT: ",".join(map(str, handed))},
                pass_fds=handed,
                stdin=asyncio.subprocess.DEVNULL,
                process_group=0,  # so that Ctrl-C reaches the parent alone, which signals its workers
            )
        logger.info("Worker %d starts.", process.pid)
        return cls(process, ours)

    def _read_control(self) -> None:
        received = self._control.recv(1)
        asyncio.get_running_loop().remove_reader(self._control)
        if not self._serves.done():
            self._serves.set_result(bool(received))

    async def serves(self) -> bool:
        """Whether it serves within START_SECONDS."""
        await asyncio.wait({self._serves}, timeout=START_SECONDS)
        return self._serves.done() and bool(self._serves.result())

    def send(self, number: signal.Signals) -> None:
        """Send the process a signal, if it still exists."""
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def end(self) -> None:
        """Let it finish its requests and wait for it to exit; kill it if it takes too long."""
        asyncio.get_running_loop().remove_reader(self._control)
        self._control.close()
        try:
            async with asyncio.timeout(LINGER_SECONDS + STOP_SECONDS + 5):
                await self.process.wait()
        except TimeoutError:
            self.send(signal.SIGKILL)
            await self.process.wait()


class _Slot:
    """The place of one worker, with a socket of its own on the common address.

    Why not one socket for all: the worker that wakes up first would accept all connections that wait, and the others
    none. The kernel spreads them evenly over several sockets.
    """

    def __init__(self, family: int, address: Any, common: socket.socket | None) -> None:
        self._family, self._address, self._common = family, address, common
        self._own: socket.socket | None = None
        self.worker: _Worker | None = None

    async def start(self) -> _Worker:
        """Start a worker on this socket. The caller assigns it to `worker`."""
        if self._common is None and self._own is None:
            self._own = bound(self._family, self._address, shared=True)
        listener = self._common or self._own
        assert listener is not None
        return await _Worker.start(listener)

    def close(self) -> None:
        """Close the socket for now, so that new connections go to the other workers."""
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
            slot.worker = await slot.start()
        starting = asyncio.create_task(self._all_serve())
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        sound = not starting.done() or starting.result()
        tasks = [asyncio.create_task(self._keep(slot)) for slot in self._slots]
        tasks.append(asyncio.create_task(self._reload_on_request()))
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
                worker.send(signal.SIGINT)
        self._stopping.set()

    def _hang_up(self) -> None:
        (self._stopping if self._terminal and not os.isatty(0) else self._reload).set()

    async def _stop_all(self) -> None:
        """The port is given up when the last worker stops accepting."""
        for slot in self._slots:
            slot.close()
        if self._common is not None:
            self._common.close()
        for worker in self._workers:
            worker.send(signal.SIGTERM)
        ends = [asyncio.create_task(worker.process.wait()) for worker in self._workers]
        await asyncio.wait(ends, timeout=self._delay + LINGER_SECONDS + STOP_SECONDS)
        await asyncio.gather(*(worker.end() for worker in self._workers))

    async def _keep(self, slot: _Slot) -> None:
        """Restart a worker that exits unexpectedly: at once, then after pauses that double."""
        failures = 0
        while True:
            worker = slot.worker
            assert worker is not None
            status = await worker.process.wait()
            if slot.worker is not worker:
                failures = 0
                continue  # it was replaced
            logger.error("Worker %d ended with status %s.", worker.process.pid, status)
            failures = 0 if time.monotonic() - worker.started_at > SOUND_SECONDS else failures + 1
            if failures:
                slot.close()
                await asyncio.sleep(min(0.5 * 2 ** min(failures - 1, 10), LAST_RETRY_SECONDS))
            async with self._changing:
                if slot.worker is worker:
                    slot.worker = await self._filled(slot) or worker

    async def _filled(self, slot: _Slot) -> _Worker | None:
        try:
            return await slot.start()
        except OSError as error:
            logger.error("A worker could not be started: %s.", error)
            return None

    async def _reload_on_request(self) -> None:
        while True:
            await self._reload.wait()
            self._reload.clear()
            async with self._changing:
                await self._replace_all()

    async def _replace_all(self) -> None:
        """Replace each worker by one that runs the installed program; give up when a new one does not serve."""
        for slot in self._slots:
            new = await self._filled(slot)
            if new is None or not await self._starts(new):
                logger.error("Not reloaded: a new worker did not start. The old ones go on.")
                return
            old, slot.worker = slot.worker, new
            if old is not None:
                await old.end()
        logger.info("Reloaded: all %d workers were replaced.", len(self._slots))

    async def _starts(self, new: _Worker) -> bool:
        """Whether a new worker serves; one that does not is killed."""
        sound = False
        try:
            sound = await new.serves()
        finally:
            if not sound:
                new.send(signal.SIGKILL)
                await new.end()
        return sound
