"""A change of one row, and on whose behalf it happens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from taskade_server.engine.model import Resource


@dataclass(frozen=True, slots=True)
class Actor:
    """On whose behalf a change happens, and from where: recorded with every event.

    `origin` is a JSON text that says what led to a change that nobody asked for directly.
    """

    user_id: str | None
    key_id: str | None = None
    request_id: str | None = None
    address: str | None = None
    user_agent: str | None = None
    origin: str | None = None


@dataclass(slots=True)
class Change:
    """One row to write. `doc` is the whole new document, `before` the stored one (None on creation).

    `action` is created, updated, deleted, restored or purged. `also` names further event types for the same change
    (`task.completed`). `private` sets columns outside the document; None leaves them as they are. `touched` are the
    only members that can differ from `before`, where that is known: the others are then not compared.
    """

    resource: Resource
    action: str
    doc: dict[str, Any]
    before: Mapping[str, Any] | None = None
    n: int = 0
    also: Sequence[str] = ()
    private: Mapping[str, Any] | None = None
    touched: Sequence[str] | None = None
