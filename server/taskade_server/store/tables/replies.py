"""Answers to writes that carried an Idempotency-Key, kept to be given again."""

import hashlib
from typing import Final, NamedTuple

from taskade_server.kit import time
from taskade_server.store.interface import Tx

HOUR_MS: Final = 3_600_000
KEPT_HOURS: Final = 25
"""How long an answer is kept. Clients are promised 24 hours; the rest is room for clocks that differ."""


class KeyBusy(Exception):
    """Another unit of work is answering a request with the same Idempotency-Key at this moment."""


class StoredReply(NamedTuple):
    """The answer to a write that carried an Idempotency-Key; `headers` and `places` are JSON texts.

    `places` says what the answer is about and what a caller needs to be given it again.
    """

    digest: str
    status: int
    headers: str
    body: str | None
    places: str


def recall(tx: Tx, owner: str, key: str) -> StoredReply | None:
    """The answer that this key got before. On PostgreSQL the key is claimed until the end of the unit.

    KeyBusy when another unit holds the claim, so that nobody waits for a request that is under way.
    """
    if tx.locks_rows:
        claim = int.from_bytes(hashlib.blake2b(f"{owner}\n{key}".encode(), digest_size=8).digest(), signed=True)
        if tx.one("SELECT pg_try_advisory_xact_lock(?)", (claim,)) != (True,):
            raise KeyBusy
    row = tx.one("SELECT digest, status, headers, body, places FROM replies WHERE owner = ? AND key = ?", (owner, key))
    return StoredReply(*row) if row else None


def remember(tx: Tx, owner: str, key: str, reply: StoredReply) -> None:
    """Keep an answer with its effect: either both are committed or neither is."""
    tx.run(
        "INSERT INTO replies (owner, key, digest, status, headers, body, places, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (owner, key, *reply, time.now_ms()),
    )


def count_kept(tx: Tx, user_id: str, size: int, hours: int) -> int:
    """Note that so many more characters of answers are kept for a user; how many that are for the last `hours`.

    They are counted by the hour, in rows that go when the answers of the hour go (`delete_old`).
    """
    hour = time.now_ms() // HOUR_MS
    tx.run(
        "INSERT INTO counters (name, value) VALUES (?, ?) ON CONFLICT (name)"
        " DO UPDATE SET value = counters.value + excluded.value",
        (_kept_in(hour, user_id), size),
    )
    names = [_kept_in(one, user_id) for one in range(hour - hours, hour + 1)]
    row = tx.one(f"SELECT COALESCE(SUM(value), 0) FROM counters WHERE name IN ({', '.join('?' * len(names))})", names)
    return int(row[0]) if row else size


def _kept_in(hour: int, user_id: str = "") -> str:
    """The name of a counter; the names of an hour sort before those of a later one."""
    return f"answers/{hour:010}/{user_id}"


def delete_old(tx: Tx, before_ms: int, limit: int = 1000) -> int:
    """Remove the oldest answers from before a time; returns how many.

    Those whose time lies ahead were kept while the clock was wrong: they are counted as new.
    """
    now = time.now_ms()
    tx.run("UPDATE replies SET at = ? WHERE at > ?", (now, now + HOUR_MS))
    tx.run("DELETE FROM counters WHERE name >= ? AND name < ?", (_kept_in(0), _kept_in(before_ms // HOUR_MS)))
    return tx.run(
        "DELETE FROM replies WHERE (owner, key) IN (SELECT owner, key FROM replies WHERE at < ? ORDER BY at LIMIT ?)",
        (before_ms, limit),
    )
