"""How many connections to addresses of strangers may be open at a time, and whose they are.

Why a share for each owner that shrinks as slots get scarce: a single owner may then use half of them, and still
nobody, however many owners one person makes, can take the last ones from those who come later.
"""

import resource
from collections import Counter
from typing import Final

MOST: Final = 8_192
FEWEST: Final = 8
PART_OF_FILES: Final = 8
"""One of so many of the files that the process may have open; connections that are kept for later may take as many."""


def capacity(files: int | None = None) -> int:
    """How many connections a process may have under way that may have so many files open; by default this process."""
    if files is None:
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files == resource.RLIM_INFINITY:
        return MOST
    return max(FEWEST, min(MOST, files // PART_OF_FILES))


class Slots:
    """So many slots, `most` in all. Nothing waits here: a caller that gets none asks again later."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._taken: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        """How many slots are taken."""
        return self._taken.total()

    def take(self, owner: str) -> bool:
        """Take a slot for an owner, who may have as many as are free besides; False if there is none for it now."""
        if self._taken[owner] >= self.most - self.taken:
            if not self._taken[owner]:
                del self._taken[owner]
            return False
        self._taken[owner] += 1
        return True

    def give(self, owner: str) -> None:
        """Give a slot back."""
        self._taken[owner] -= 1
        if self._taken[owner] <= 0:
            del self._taken[owner]
