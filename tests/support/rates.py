"""What the headers of a rate limit may say, however long a test takes.

Why bounds and not values: what was used comes back with the seconds that pass, and nobody knows how many do. With a
low rate the bounds are one value on a machine that is not held up for a minute.
"""

import re
import time
from collections.abc import Callable

import httpx2


class Budget:
    """The budget of one caller, full when this is made, of which `left` remain if no time passes."""

    def __init__(self, burst: int, per_minute: int = 1) -> None:
        self.left = burst
        self._burst = burst
        self._per_minute = per_minute
        self._began = time.monotonic()

    @property
    def came_back(self) -> int:
        """How much can have come back since this was made, at most."""
        return int((time.monotonic() - self._began) * self._per_minute / 60)

    def after(self, answer: httpx2.Response, cost: int = 1) -> httpx2.Response:
        """Check an answer of the server to a request that costs so much, and return it."""
        self.left -= cost
        # Asked for after the answer came: what the server saw pass is within it.
        least, most = max(self.left, 0), max(min(self._burst, self.left + self.came_back), 0)
        remaining = int(answer.headers["x-ratelimit-remaining"])
        assert least <= remaining <= most, f"{remaining} remain instead of {least} to {most}"
        self._check_reset(answer)
        return answer

    def refusal(self, ask: Callable[[], httpx2.Response]) -> httpx2.Response:
        """The answer that says that nothing remains. Each `ask` costs one, and may use what came back meanwhile."""
        while (answer := ask()).status_code != 429:
            self.after(answer)
            assert self.left + self.came_back >= 0, "nothing remained, and yet it was answered"
        assert self.left <= 0, f"{self.left} remained, and yet it was refused"
        return answer

    def _check_reset(self, answer: httpx2.Response) -> None:
        """All of it is there again once what was used has come back, which began with the first request."""
        used = (self._burst - self.left) * 60 / self._per_minute
        reset = int(answer.headers["x-ratelimit-reset"])
        passed = time.monotonic() - self._began
        assert used - passed <= reset <= used + 1, f"{reset} s until all is there again instead of {used}"
        told = re.search(r'"[a-z]+";r=(\d+);t=(\d+)', answer.headers["ratelimit"])
        assert told is not None
        assert told.groups() == (answer.headers["x-ratelimit-remaining"], str(reset))
