"""Rate limits: the generic cell rate algorithm, which is a token bucket kept as one number per caller.

Why GCRA: it needs no clock ticks and no window edges,
so no schedule of requests ever gets more than burst + rate x time.
Exact within one process. Times are monotonic nanoseconds: a clock that jumps cannot give or take requests.
"""

import time
from typing import Final

from taskade_server.http.wire import Headers
from taskade_server.kit.errors import RateLimited

_SWEEP_FROM: Final = 10_000


class Limiter:
    """Admits `per_minute` requests each minute and `burst` at once, by caller."""

    def __init__(self, per_minute: int, burst: int | None = None) -> None:
        self.per_minute = per_minute
        self.burst = burst or per_minute
        self._full_at: dict[str, int] = {}
        self._sweep_size = _SWEEP_FROM

    def take(self, caller: str, cost: int = 1, own_rate: int | None = None, now: int | None = None) -> Headers:
        """Charge a caller; returns the limit headers. RateLimited (with Retry-After) if the budget is spent."""
        rate = min(own_rate or self.per_minute, self.per_minute)
        burst = min(self.burst, rate) if own_rate else self.burst
        interval = 60_000_000_000 // rate
        now = time.monotonic_ns() if now is None else now
        # The moment at which the bucket would be full again; behind `now` means full.
        full_at = max(self._full_at.get(caller, 0), now)
        after = full_at + cost * interval
        room = now + burst * interval - after
        if room < 0:
            wait = -(room // 1_000_000_000)
            headers = _headers(rate, burst, max(0, (now + burst * interval - full_at) // interval), wait)
            raise RateLimited(
                f"The limit is {rate} requests a minute; wait {wait} s.",
                headers={"retry-after": str(wait), **{name.decode(): value.decode() for name, value in headers}},
                extra={"violated-policies": ["default"]},
            )
        self._full_at[caller] = after
        if len(self._full_at) > self._sweep_size:
            self._sweep(now)
        return _headers(rate, burst, room // interval, -((now - after) // 1_000_000_000))

    def give_back(self, caller: str, cost: int, own_rate: int | None = None) -> None:
        """Undo a charge, for answers that cost nothing (304)."""
        rate = min(own_rate or self.per_minute, self.per_minute)
        if caller in self._full_at:
            self._full_at[caller] -= cost * (60_000_000_000 // rate)

    def _sweep(self, now: int) -> None:
        """Forget full buckets only: forgetting another would hand out its budget again."""
        self._full_at = {caller: full_at for caller, full_at in self._full_at.items() if full_at > now}
        self._sweep_size = max(_SWEEP_FROM, 2 * len(self._full_at))


def _headers(rate: int, burst: int, remaining: int, reset: int) -> Headers:
    """The draft's structured fields (draft-ietf-httpapi-ratelimit-headers-11) and the older X- names."""
    return [
        (b"ratelimit-policy", b'"default";q=%d;w=60' % rate),
        (b"ratelimit", b'"default";r=%d;t=%d' % (remaining, reset)),
        (b"x-ratelimit-limit", b"%d" % burst),
        (b"x-ratelimit-remaining", b"%d" % remaining),
        (b"x-ratelimit-reset", b"%d" % reset),
    ]
