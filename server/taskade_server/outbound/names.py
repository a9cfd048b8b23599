"""Looks up names of hosts."""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

Resolver = Callable[[str], Awaitable[Sequence[str]]]


class SystemResolver:
    """The system's resolver, one thread for each name that is being looked up.

    Why threads of its own that nobody waits for at the end: a look-up cannot be given up, and one that hangs must hold
    up neither other names nor the end of the process. Attempts to one name at the same time share its look-up.
    """

    def __init__(self, limit: int) -> None:
        self._free = asyncio.Semaphore(limit)
        self._running: dict[str, asyncio.Task[list[str]]] = {}

    async def __call__(self, host: str) -> list[str]:
        running = self._running.get(host)
        if running is None:
            running = self._running[host] = asyncio.create_task(self._look_up(host))
            running.add_done_callback(partial(self._forget, host))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if running.cancelled() and task is not None and not task.cancelling():
                raise OSError("the client was closed") from None
            raise

    def _forget(self, host: str, task: asyncio.Task[list[str]]) -> None:
        del self._running[host]
        if not task.cancelled():
            task.exception()  # seen, even if whoever asked has left

    async def _look_up(self, host: str) -> list[str]:
        async with self._free:
            loop = asyncio.get_running_loop()
            answer: asyncio.Future[list[str]] = loop.create_future()
            threading.Thread(target=_ask_system, args=(loop, answer, host), daemon=True, name="look-up").start()
            return await answer

    def cancel(self) -> None:
        """Leave what is running to itself."""
        for task in list(self._running.values()):
            task.cancel()


def _ask_system(loop: asyncio.AbstractEventLoop, answer: "asyncio.Future[list[str]]", host: str) -> None:
    """In a thread: put a name's addresses, or why there are none, into `answer`."""
    found: list[str] = []
    failure: OSError | None = None
    try:
        # As bytes: Python would prepare a text by the rules of 2003 for international names.
        answers = socket.getaddrinfo(host.encode(), None, type=socket.SOCK_STREAM)
        found = [str(entry[4][0]) for entry in answers]
    except OSError as error:
        failure = error

    def settle() -> None:
        if answer.done():
            return
        if failure is None:
            answer.set_result(found)
        else:
            answer.set_exception(failure)

    try:
        loop.call_soon_threadsafe(settle)
    except RuntimeError:
        pass  # the loop has ended meanwhile
