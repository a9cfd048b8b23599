"""The walk through the rows: at first through all, later where rights have changed."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from taskade_server.domain.sync.answer import PAGE_TEXT, SCAN, SyncRun
from taskade_server.domain.sync.kinds import INSIDE_PROJECTS, OUTSIDE_PROJECTS, resource_of
from taskade_server.domain.sync.token import Walk
from taskade_server.domain.visibility_history import VisibilityHistory

LEGS: Final = 400

NARROW: Final = 200
"""Up to this many projects are walked through one by one; with more, the workspace as a whole."""

_Leg = tuple[int, str, int, str]
"""Section, location, rank and kind: what is walked through, in this order."""


def go_on_walking(run: SyncRun) -> bool:
    """Go on with the walk until the answer is full; whether it has come to its end."""
    walk = run.token.walk
    assert walk is not None
    locations = _locations(run, walk)
    if walk.at_start:
        walk = walk._replace(wide=locations is None or len(locations) > NARROW)
    here, steps, looked = (walk.section, walk.location, walk.rank), 0, 0
    for section, location, rank, kind in _legs(run, walk, locations or []):
        if (section, location, rank) < here:
            continue
        n = walk.n if (section, location, rank) == here else 0
        steps += 1
        while True:
            if run.full or steps > LEGS or looked > SCAN:
                run.token.walk = walk._replace(section=section, location=location, rank=rank, n=n)
                return False
            rows, cut = _next_rows(run, kind, location if section and location else None, n)
            for text, number, object_id, project_id in rows:
                n = number
                _tell_row(run, walk, kind, text, object_id, project_id)
            looked += len(rows)
            if not rows or not cut:
                break
    return True


def _tell_row(run: SyncRun, walk: Walk, kind: str, text: str, object_id: str, project_id: str | None) -> None:
    """A live row that the walk has come to: it is to be had, to be forgotten, or none of the client's business."""
    location = run.location(kind, project_id)
    if run.shown(kind, project_id):
        if walk.full or not run.history.always_saw(kind, location):
            run.answer.put(kind, object_id, text, new=True)
    elif run.history.ever_saw(kind, location) and (kind in OUTSIDE_PROJECTS or run.chosen(project_id)):
        run.answer.forget(kind, object_id)


def _locations(run: SyncRun, walk: Walk) -> list[str] | None:
    """The projects to walk through, in order; None if there are too many, so that all of the workspace is."""
    if run.token.wanted.projects:
        return sorted(run.token.wanted.projects)
    if not walk.full and not run.history.changed_everywhere():
        return sorted(run.history.project_changes)
    if walk.wide:
        return None
    sql, most = "SELECT id FROM projects WHERE workspace_id = ?", 10 * NARROW
    found = run.tx.all(f"{sql} LIMIT {most}" if walk.at_start else sql, (run.workspace_id,))
    if walk.at_start and len(found) == most:
        return None
    return sorted(row[0] for row in found if _concerns(run.history, row[0]))


def _concerns(history: VisibilityHistory, location: str) -> bool:
    return any(history.sees_now(kind, location) or history.ever_saw(kind, location) for kind in INSIDE_PROJECTS)


def _legs(run: SyncRun, walk: Walk, locations: Sequence[str]) -> Iterator[_Leg]:
    yield from ((0, "", rank, kind) for rank, kind in enumerate(OUTSIDE_PROJECTS) if kind in run.kinds)
    if walk.wide:
        yield from ((1, "", rank, kind) for rank, kind in enumerate(INSIDE_PROJECTS) if kind in run.kinds)
        return
    for location in locations:
        yield from ((1, location, rank, kind) for rank, kind in enumerate(INSIDE_PROJECTS) if kind in run.kinds)


def _next_rows(run: SyncRun, kind: str, project_id: str | None, n: int) -> tuple[list[tuple[Any, ...]], bool]:
    """The next live rows of a leg as (document, number, id, project), and whether there may be more."""
    resource, limit = resource_of(kind), run.limit - run.answer.count
    project = f"t.{resource.project_column}" if resource.project_column else "NULL"
    source, number, params = f"{resource.table} t", "t.n", [run.workspace_id]
    where = ["t.workspace_id = ?"]
    if kind == "users":
        source, number = 'members m JOIN users t ON t.id = m."user"', "m.n"
        where = ["m.workspace_id = ?", "m.project_id IS NULL"]
    elif kind == "workspaces":
        where = ["t.id = ?"]
    elif kind == "api-keys":
        where, params = [*where, "t.user_id = ?"], [*params, run.principal.user_id]
    elif kind == "members":
        where.append("t.project_id IS NULL")
    elif project_id is not None:
        where, params = [f"{project} = ?"], [project_id]
    elif kind == "project-members":
        where.append("t.project_id IS NOT NULL")
    if resource.trash:
        where.append("t.deleted_at IS NULL")
    rows, cut = run.tx.page(
        f"SELECT t.doc, {number}, t.id, {project} FROM {source} WHERE {' AND '.join(where)} AND {number} > ?"
        f" ORDER BY {number} LIMIT {limit}",
        (*params, n),
        PAGE_TEXT,
    )
    return rows, cut or len(rows) >= limit
