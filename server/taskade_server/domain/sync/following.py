"""What the log tells of after the last position."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from taskade_server.domain.sync.answer import PAGE_TEXT, SCAN, SyncRun
from taskade_server.domain.sync.kinds import KINDS, OUTSIDE_PROJECTS, resource_of
from taskade_server.domain.visibility_history import SHARED
from taskade_server.engine import access, log
from taskade_server.engine.log import Touch
from taskade_server.kit import json


@dataclass(slots=True)
class _Touched:
    """What the log says of an object: when it was first touched, where it lay, whether it began meanwhile."""

    first: int
    created_at_seq: int = 0
    locations: set[str | None] = field(default_factory=set)


def follow_log(run: SyncRun) -> None:
    """Tell of what the log has after the last position, until the answer is full."""
    token, looked = run.token, 0
    while token.done < run.head and not run.full and looked < SCAN:
        most = run.limit - run.answer.count
        found = log.touches(run.tx, run.workspace_id, token.done, run.head, 2 * most + 100)
        looked += len(found)
        touched, until = _touched(run, found, most)
        rest = list(touched.values())[_tell_touched(run, touched) :]
        token.done = rest[0].first - 1 if rest else until
        if rest:
            break


def _touched(run: SyncRun, found: list[Touch], most: int) -> tuple[dict[tuple[str, str], _Touched], int]:
    """The objects that some events touched, in the order of the first time, and up to which event that is."""
    touched: dict[tuple[str, str], _Touched] = {}
    until = run.token.done
    for event in found:
        kinds = [(kind, name) for kind, name in _kinds(event) if kind in run.kinds]
        if len(touched) + sum(one not in touched for one in kinds) > max(most, 2):
            return touched, until
        for one in kinds:
            entry = touched.get(one)
            if entry is None:
                created_at_seq = event.seq if event.type.endswith((".created", ".added")) else 0
                entry = touched[one] = _Touched(event.seq, created_at_seq)
            entry.locations.add(event.project_id)
            if event.previous:
                previous = json.decode(event.previous)
                if "project_id" in previous:
                    entry.locations.add(previous["project_id"])
        until = event.seq
    return touched, until if found else run.head


def _kinds(event: Touch) -> list[tuple[str, str]]:
    """What an event touched, as (kind, id). Who joins a workspace or leaves it is seen or not, as a user."""
    if event.resource == "member":
        if event.project_id is not None:
            return [("project-members", event.object_id)]
        return [("members", event.object_id), ("users", json.decode(event.data or "{}")["user"])]
    kind = _BY_NAME.get(event.resource)
    return [] if kind is None else [(kind, event.object_id)]


_BY_NAME: Final = {name: kind for kind, name in KINDS.items()}


def _tell_touched(run: SyncRun, touched: dict[tuple[str, str], _Touched]) -> int:
    """Tell of touched objects as they are now; of how many of them, from the first, there was room to tell."""
    objects = list(touched)
    while True:
        texts: dict[tuple[str, str], tuple[str, str | None]] = {}
        cut = False
        for kind in {kind for kind, _ in objects}:
            wanted = [object_id for one, object_id in objects if one == kind]
            rows, short = _rows_of(run, kind, wanted)
            cut = cut or short
            texts |= {(kind, row[1]): (row[0], row[2]) for row in rows}
        if not cut or len(objects) <= 2:
            break
        objects = objects[: (len(objects) + 1) // 2]
    for kind, object_id in objects:
        _tell_object(run, kind, object_id, touched[kind, object_id], texts.get((kind, object_id)))
    return len(objects)


def _tell_object(run: SyncRun, kind: str, object_id: str, entry: _Touched, row: tuple[str, str | None] | None) -> None:
    if row is not None and run.shown(kind, row[1]):
        run.answer.put(kind, object_id, row[0], new=entry.created_at_seq > run.token.seen)
        return
    # Also what began and ended since the token was made: an answer in between may have been taken and its token lost.
    locations = {SHARED} if kind in OUTSIDE_PROJECTS else entry.locations | ({row[1]} if row is not None else set())
    if any(
        run.history.ever_saw(kind, run.location(kind, location))
        for location in locations
        if kind in OUTSIDE_PROJECTS or run.chosen(location)
    ):
        run.answer.forget(kind, object_id)


def _rows_of(run: SyncRun, kind: str, wanted: Sequence[str]) -> tuple[list[tuple[Any, ...]], bool]:
    """The live ones of some objects as (document, id, project), and whether there was no room for all."""
    resource = resource_of(kind)
    project = f"t.{resource.project_column}" if resource.project_column else "NULL"
    condition, params = access.among("t.id", wanted, run.tx.dialect)
    where = [condition]
    if resource.trash:
        where.append("t.deleted_at IS NULL")
    if kind == "users":
        where.append(
            'EXISTS (SELECT 1 FROM members m WHERE m.workspace_id = ? AND m."user" = t.id AND m.project_id IS NULL)'
        )
        params.append(run.workspace_id)
    if kind == "api-keys":
        where.append("t.user_id = ?")
        params.append(run.principal.user_id)
    return run.tx.page(
        f"SELECT t.doc, t.id, {project} FROM {resource.table} t WHERE {' AND '.join(where)}", params, PAGE_TEXT
    )
