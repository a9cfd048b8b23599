"""How long this process stood still: what a client promises to do in time, it cannot do meanwhile."""

import threading
import time
from typing import Self

TICK_SECONDS = 0.01


class Standstill:
    """Within a `with` block, a thread that only looks at the clock; `longest` is how late it came at most (seconds)."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        before = time.monotonic()
        while not self._over.wait(TICK_SECONDS):
            now = time.monotonic()
            self.longest = max(self.longest, now - before - TICK_SECONDS)
            before = now
