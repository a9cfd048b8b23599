"""Buckets kept in Valkey (or Redis), so that many processes count together; each counts alone while it is away.

Why one script: it reads the clock, drains, decides and writes in one step of the one server that all processes ask, so
the bound holds across them exactly. A level is stored with the moment at which it was true: a clock that is set back
stops the draining for an instant, where a stored deadline would lock everybody out until the clock has caught up.
"""

import hashlib
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from taskade_server.http.admission.buckets import MemoryBuckets, Outcome

logger: Final = logging.getLogger("taskade")

TIMEOUT: Final = 0.1
RETRY_SECONDS: Final = 2.0

# Levels are whole nanoseconds, moments whole microseconds since 1970: both are exact in the doubles that Lua counts in.
# A key lives a minute longer than its bucket needs to drain; an empty bucket means the same as none.
SCRIPT: Final = """
local amount, capacity = tonumber(ARGV[1]), tonumber(ARGV[2])
local back, since = tonumber(ARGV[3]), tonumber(ARGV[4])
local commit, now = ARGV[5] == '1', tonumber(ARGV[6])
if not now then
  local clock = redis.call('TIME')
  now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
end
local level, at = 0, now
local kept = redis.call('GET', KEYS[1])
if kept then
  local number, moment = string.match(kept, '^(%d+) (%d+)$')
  level, at = tonumber(number), tonumber(moment)
  level = math.max(0, level - math.max(0, now - at) * 1000)
end
if back > 0 then
  level = math.max(0, level - math.max(0, back - math.max(0, now - since) * 1000))
end
local wait, after = level + amount - math.max(capacity, amount), level
if wait <= 0 then
  wait, after = 0, level + amount
end
local changed = commit and (back > 0 or wait == 0)
if changed or now < at then
  local new = changed and after or level
  local life = math.ceil(new / 1000000) + 60000
  redis.call('SET', KEYS[1], string.format('%.0f %.0f', new, now), 'PX', life)
end
return {wait, after, now}
"""


class Valkey:
    """This process's connections to one Valkey server, and whether it answers.

    Used by many threads. A request never waits for a server that was found to be away: a thread of its own tries until
    it is back.
    """

    def __init__(self, url: str, retry_seconds: float = RETRY_SECONDS) -> None:
        """ValueError for a URL that cannot be understood. The URL may set `socket_timeout` (seconds)."""
        # Loading it takes longer than starting all the rest, and most installations have one process.
        import valkey
        from valkey.connection import ConnectionPool

        options = {"socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT, "client_name": "taskade-limits"}
        make_pool: Any = ConnectionPool.from_url
        pool = make_pool(url, **options)
        self._connect: Callable[[], Any] = lambda: pool.connection_class(**pool.connection_kwargs)
        self._failures = (valkey.ValkeyError, OSError)
        self._broken = (valkey.ConnectionError, OSError)
        self._unknown_script = valkey.exceptions.NoScriptError
        self.address = _address(url)
        self._sha = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
        self._retry_seconds = retry_seconds
        self._idle: deque[Any] = deque()
        self._away = False
        self._turn = 0
        self._closed = threading.Event()
        self._lock = threading.Lock()

    @property
    def answers(self) -> bool:
        """Whether it did when it was last asked."""
        return not self._away

    def run(self, key: str, *arguments: int | str) -> list[int] | None:
        """The script's answer; None when the server does not answer."""
        if self._away:
            return None
        turn = self._turn
        try:
            try:
                return self._ask(self._idle.pop(), key, arguments)
            except IndexError:
                pass
            except self._broken:
                # It may have been restarted since the connection was made: then all that are idle are broken.
                self._idle.clear()
            return self._ask(self._connect(), key, arguments)
        except self._failures as error:
            self._lose(error, turn)
            return None

    def look(self) -> bool:
        """Ask the server for something harmless; tells whether it answers."""
        return self.run("taskade:limit:probe", 1, 1, 0, 0, 1, "") is not None

    def close(self) -> None:
        """Close the connections; nothing is shared from here on."""
        self._closed.set()
        self._away = True
        while self._idle:
            self._idle.pop().disconnect()

    def _ask(self, connection: Any, key: str, arguments: tuple[int | str, ...]) -> list[int]:
        try:
            connection.send_command("EVALSHA", self._sha, 1, key, *arguments)
            answer: list[int] = connection.read_response()
        except self._unknown_script:
            connection.send_command("EVAL", SCRIPT, 1, key, *arguments)
            answer = connection.read_response()
        self._idle.append(connection)
        return answer

    def _lose(self, error: Exception, turn: int) -> None:
        with self._lock:
            if self._away or turn != self._turn:  # the news of somebody slow: it has come back since
                return
            self._away = True
        self._idle.clear()
        logger.warning(
            "Valkey at %s does not answer (%s): until it does, each process counts rate limits for itself.",
            self.address,
            " ".join(str(error).split()),
        )
        threading.Thread(target=self._seek, name="valkey", daemon=True).start()

    def _seek(self) -> None:
        while not self._closed.wait(self._retry_seconds):
            try:
                # A write: a server that is full, read-only or still loading would answer a mere PING.
                self._ask(self._connect(), "taskade:limit:probe", (1, 1, 0, 0, 1, ""))
            except self._failures:
                continue
            logger.warning("Valkey at %s answers again: rate limits are shared.", self.address)
            self._turn += 1
            self._away = False
            return


class SharedBuckets:
    """Buckets in Valkey, in a name space of their own; in memory while Valkey is away."""

    def __init__(self, valkey: Valkey, name: str) -> None:
        self._valkey = valkey
        self._prefix = f"taskade:limit:{name}:"
        self._memory = MemoryBuckets()

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
        """See `Buckets`.

        Moments of the memory's clock are told as negative, so that either place takes what the other one keeps for long
        drained, and gives nothing back for it.
        """
        moment = "" if now is None else now // 1000
        answer = self._valkey.run(
            self._prefix + caller, amount, capacity, back, max(0, since) // 1000, int(commit), moment
        )
        if answer is not None:
            return answer[0], answer[1], answer[2] * 1000
        wait, level, at = self._memory.pour(caller, amount, capacity, back, -since, commit, now)
        return wait, level, -at


def _address(url: str) -> str:
    """Where a server is, in words, without credentials."""
    parts = urlsplit(url)
    return parts.path if parts.scheme == "unix" else f"{parts.hostname or 'localhost'}:{parts.port or 6379}"
