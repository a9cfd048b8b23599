"""Work beside the requests that goes on as long as the process does, whatever happens in it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

logger: Final = logging.getLogger("taskade")
PAUSE_SECONDS: Final = 1.0


async def keep_on(what: str, work: Callable[[], Awaitable[None]], pause: float = PAUSE_SECONDS) -> None:
    """Do `work`, and begin again after every error that it does not handle itself, which is logged with its traceback.

    Without this, a task of the event loop would end in silence, and whoever relies on it would wait for ever.
    """
    while True:
        try:
            await work()
        except Exception:
            logger.exception("%s failed; it begins again in %.0f s.", what, pause)
            await asyncio.sleep(pause)
        else:
            return
