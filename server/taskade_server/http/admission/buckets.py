"""Buckets that drain with time: the generic cell rate algorithm, with one number per caller, in nanoseconds.

Why time and not tokens: no clock ticks and no window edges, so every schedule gets at most capacity + elapsed time,
and a caller whose rate is changed keeps what it has used. An amount above the capacity is taken when the bucket is
empty and leaves a debt, so that the long-run rate holds for it, too.
"""

import time
from threading import Lock
from typing import Final, Protocol

Outcome = tuple[int, int, int]
"""How long to wait (0: admitted), the level now, and the moment, by the clock of whoever keeps the bucket."""

_SWEEP_FROM: Final = 10_000


class Buckets(Protocol):
    """Something that keeps a bucket for each caller."""

    def pour(
        self,
        caller: str,
        amount: int,
        capacity: int,
        back: int = 0,
        since: int = 0,
        commit: bool = True,
        now: int | None = None,
    ) -> Outcome:
        """Take `back`, which was poured at the moment `since`, out again, then pour `amount` in if there is room.

        What has drained meanwhile is not taken out twice: of `back` only the part that time has not yet paid for is
        returned, which keeps the bound for all that stays in. Without `commit` nothing is changed.
        """


class MemoryBuckets:
    """Buckets of this process. The clock is monotonic: setting the system's time gives and takes nothing."""

    def __init__(self) -> None:
        self._empty_at: dict[str, int] = {}
        self._sweep_size = _SWEEP_FROM
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._empty_at)

    def pour(
        self,
        caller: str,
        amount: int,
        capacity: int,
        back: int = 0,
        since: int = 0,
        commit: bool = True,
        now: int | None = None,
    ) -> Outcome:
        """See `Buckets`."""
        with self._lock:
            if now is None:
                now = time.monotonic_ns()
            level = self._empty_at.get(caller, 0) - now
            if level < 0:
                level = 0
            if back:
                level = max(0, level - max(0, back - max(0, now - since)))
            wait = level + amount - (capacity if capacity > amount else amount)
            if wait <= 0:
                wait, level = 0, level + amount
            if commit and (back or not wait):
                self._empty_at[caller] = now + level
                if len(self._empty_at) > self._sweep_size:
                    self._sweep(now)
            return wait, level, now

    def _sweep(self, now: int) -> None:
        """Forget empty buckets only: forgetting another would hand out its budget again."""
        self._empty_at = {caller: empty_at for caller, empty_at in self._empty_at.items() if empty_at > now}
        self._sweep_size = max(_SWEEP_FROM, 2 * len(self._empty_at))
