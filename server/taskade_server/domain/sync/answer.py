"""The changes of one answer, and the answer in the making."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from taskade_server.domain.sync.kinds import ANSWERED_AS, INSIDE_PROJECTS, OUTSIDE_PROJECTS, resource_of
from taskade_server.domain.sync.token import SyncSelection, Token
from taskade_server.domain.visibility_history import VisibilityHistory
from taskade_server.engine import access
from taskade_server.engine.access import Principal
from taskade_server.kit import json
from taskade_server.store.database import Tx

PAGE_TEXT: Final = 8 << 20
SCAN: Final = 5_000
"""How many events, or rows, one answer looks at."""


@dataclass(slots=True)
class Answer:
    """The changes of one answer by resource: documents to put, ids to forget."""

    wanted: SyncSelection
    created: dict[str, list[str]] = field(default_factory=dict)
    updated: dict[str, list[str]] = field(default_factory=dict)
    deleted: dict[str, list[str]] = field(default_factory=dict)
    size: int = 0
    told: set[str] = field(default_factory=set)

    def put(self, kind: str, object_id: str, text: str, *, new: bool) -> None:
        """An object that the client shall have as it is."""
        if self._first(object_id):
            (self.created if new else self.updated).setdefault(ANSWERED_AS.get(kind, kind), []).append(text)
            self.size += len(text)

    def forget(self, kind: str, object_id: str) -> None:
        """An object that the client shall not have."""
        if self._first(object_id):
            self.deleted.setdefault(ANSWERED_AS.get(kind, kind), []).append(object_id)

    def _first(self, object_id: str) -> bool:
        """Whether it is told of for the first time: the walk and the log may both come to it, in the same state."""
        if object_id in self.told:
            return False
        self.told.add(object_id)
        return True

    @property
    def count(self) -> int:
        """How many objects it tells of."""
        return len(self.told)

    def render(self, kinds: Iterable[str], next_token: str, *, more: bool, seq: int) -> str:
        """The JSON text."""
        parts = [
            f'"{kind}":{{"created":{json.array(self.created.get(kind, []))},'
            f'"updated":{json.array(self.updated.get(kind, []))},"deleted":{json.encode(self.deleted.get(kind, []))}}}'
            for kind in kinds
        ]
        return (
            f'{{"workspace_id":"{self.wanted.workspace_id}","changes":{{{",".join(parts)}}},"next":"{next_token}",'
            f'"has_more":{"true" if more else "false"},"seq":{seq}}}'
        )


@dataclass(slots=True)
class SyncRun:
    """One answer in the making."""

    tx: Tx
    principal: Principal
    token: Token
    history: VisibilityHistory
    kinds: frozenset[str]
    limit: int
    answer: Answer
    head: int

    @property
    def workspace_id(self) -> str:
        return self.token.wanted.workspace_id

    @property
    def full(self) -> bool:
        """Whether the answer has no room left."""
        return self.answer.count >= self.limit or self.answer.size >= PAGE_TEXT

    def chosen(self, project_id: str | None) -> bool:
        """Whether the filter lets a project through."""
        return not self.token.wanted.projects or project_id in self.token.wanted.projects

    def location(self, kind: str, project_id: str | None) -> str:
        """Return the location that a resource of this kind lies in, as `VisibilityHistory` has it."""
        return OUTSIDE_PROJECTS[kind] if kind in OUTSIDE_PROJECTS else str(project_id)

    def shown(self, kind: str, project_id: str | None) -> bool:
        """Whether a live thing is to be had, by its rights in the log and by those that the caller came with."""
        if kind in INSIDE_PROJECTS and not self.chosen(project_id):
            return False
        if not self.history.sees_now(kind, self.location(kind, project_id)):
            return False
        resource = resource_of(kind)
        if resource.visibility in ("shared", "owner"):
            return resource.visibility == "owner" or self.principal.grant(self.workspace_id) is not None
        return access.sees(self.principal, resource, self.workspace_id, project_id, is_open=True)
