"""Answers to lists, kept for as long as nothing that the caller can see has changed.

Why keyed by the position of the log and never by time: an entry is right or it is not used, on every process, so there
is nothing to invalidate and nothing to wait for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Final

from taskade_server.http.wire.reply import Reply

Key = tuple[str, int, str, str, str]
Question = tuple[bytes | None, str, bytes, bytes | None, bytes | None]
OVERHEAD: Final = 1000


@dataclass(slots=True)
class Entry:
    """One answer. `data_version` is that of the database when it was last known to be right (0: unknown).

    `path` and `question` are how the request that made it was spelled, `operation` is the route's operation id,
    `rights_version` the version of rights at which its caller was looked up, `size` about how many bytes it takes.
    """

    reply: Reply
    data_version: int
    workspaces: list[str]
    path: str
    question: Question
    operation: str
    rights_version: int
    size: int


class ResponseCache:
    """The most recently used answers, up to a number of bytes."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self.hits = 0
        self.misses = 0
        self._entries: dict[Key, Entry] = {}
        # By path first, so that a request for something else is told at a glance.
        self._keys: dict[str, dict[Question, Key]] = {}
        # Units run on several threads.
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key) -> Entry | None:
        """The entry, which becomes the youngest; whether it still holds is for the caller to find out."""
        with self._lock:
            entry = self._entries.pop(key, None)
            if entry is not None:
                self._entries[key] = entry
            return entry

    def knows(self, path: str) -> bool:
        """Whether there is an entry for this path at all."""
        return path in self._keys

    def recent(self, path: str, question: Question) -> Entry | None:
        """The entry for a request that was spelled the same."""
        key = self._keys.get(path, {}).get(question)
        return None if key is None else self._entries.get(key)

    def put(self, key: Key, path: str, question: Question, operation: str, reply: Reply, data_version: int) -> None:
        """Keep an answer that has `heads`; the oldest entries make room for it."""
        size = _size(key, path, question, reply)
        if size > self.max_bytes // 8:
            return
        reply.packed = {}
        with self._lock:
            self._drop(key)
            self._entries[key] = Entry(
                reply, data_version, [name for name, _ in reply.heads], path, question, operation, key[1], size
            )
            self._keys.setdefault(path, {})[question] = key
            self.bytes += size
            while self.bytes > self.max_bytes:
                self._drop(next(iter(self._entries)))

    def _drop(self, key: Key) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.bytes -= entry.size
            asked = self._keys.get(entry.path, {})
            if asked.get(entry.question) == key:
                del asked[entry.question]
                if not asked:
                    del self._keys[entry.path]

    @staticmethod
    def holds(entry: Entry, heads: Sequence[tuple[str, int]]) -> bool:
        """Whether the logs are where they were when the answer was made."""
        return entry.reply.heads == tuple(heads)


def _size(key: Key, path: str, question: Question, reply: Reply) -> int:
    """About what an entry takes: the text, its bytes, a compressed form or two, and how it was asked for."""
    asked = sum(len(part or b"") for part in question) + len(path) + len(key[2]) + len(key[3])
    return OVERHEAD + asked + 3 * len(reply.body or "")
