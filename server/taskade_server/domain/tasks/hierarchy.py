"""The tree of subtasks: what is above and below a task, and how deep it may be."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from taskade_server.domain.tasks.limits import MAX_LEVELS
from taskade_server.domain.tasks.lookups import Loaded, Lookups
from taskade_server.domain.tasks.resources import COMMENT, TASK
from taskade_server.engine import edit
from taskade_server.engine.model import Checker
from taskade_server.store.database import Tx

MAX_TREE: Final = edit.MAX_TOGETHER


def check_parent(lookups: Lookups, checker: Checker, doc: dict[str, Any], before: Mapping[str, Any]) -> None:
    parent = lookups.task(doc["parent_id"], keep=True)
    if parent is None:
        return checker.fault("/parent_id", "unknown_reference", lookups.absence(TASK, doc["parent_id"]))
    if parent["project_id"] != doc["project_id"]:
        return checker.fault(
            "/parent_id", "mismatch", "The parent lies in another project; a subtask lives in its parent's project."
        )
    above = ancestors(lookups, parent["id"])
    if (before and before["id"] in above) or len(set(above)) < len(above):
        return checker.fault("/parent_id", "cycle", "A task cannot lie below itself.")
    if len(above) + 1 + (levels_below(lookups.tx, before["id"]) if before else 0) > MAX_LEVELS:
        checker.fault("/parent_id", "too_deep", f"Subtasks may nest {MAX_LEVELS} levels deep.")
    return None


def ancestors(lookups: Lookups, task_id: str) -> list[str]:
    """A task and all above it, from below; it ends one above the deepest level that is allowed."""
    found: list[str] = []
    current: str | None = task_id
    while current is not None and len(found) <= MAX_LEVELS:
        found.append(current)
        changed = lookups.pending.get(current)
        if changed is not None:
            current = changed["parent_id"]
            continue
        if current not in lookups.parents:
            lookups.parents |= _stored_parents(lookups.tx, current)
        current = lookups.parents.get(current)
    return found


def _stored_parents(tx: Tx, task_id: str) -> dict[str, str | None]:
    rows = tx.all(
        "WITH RECURSIVE above (id, parent_id, level) AS (SELECT id, parent_id, 1 FROM tasks WHERE id = ?"
        " UNION ALL SELECT t.id, t.parent_id, a.level + 1 FROM tasks t JOIN above a ON t.id = a.parent_id"
        f" WHERE a.level <= {MAX_LEVELS}) SELECT id, parent_id FROM above",
        (task_id,),
    )
    return {row[0]: row[1] for row in rows}


def levels_below(tx: Tx, task_id: str) -> int:
    """How deep the subtasks of a task nest, which come along when it moves."""
    found = tx.one(
        "WITH RECURSIVE below (id, level) AS (SELECT id, 1 FROM tasks WHERE parent_id = ? AND deleted_at IS NULL"
        " UNION ALL SELECT t.id, b.level + 1 FROM tasks t JOIN below b ON t.parent_id = b.id"
        f" WHERE t.deleted_at IS NULL AND b.level <= {MAX_LEVELS}) SELECT COALESCE(MAX(level), 0) FROM below",
        (task_id,),
    )
    return int(found[0]) if found else 0


def descendant_ids(tx: Tx, task_id: str) -> list[str]:
    """The ids of the live subtasks and comments that go to the trash along with a task."""
    below = [doc["id"] for _, doc in subtree(tx, [task_id])]
    return below + [doc["id"] for _, doc in comments_of(tx, [task_id, *below])]


def lock_below(tx: Tx, task_id: str) -> None:
    """Let nobody make or bring back a task below this one until the commit: how deep they are has to be known."""
    level = [task_id]
    while level and tx.locks_rows:
        sql = f"SELECT id FROM tasks WHERE parent_id = ANY(?) AND deleted_at IS NULL ORDER BY n{tx.for_update}"
        level = [row[0] for row in tx.all(sql, (level,))]


def depth_of(docs: Sequence[Mapping[str, Any]]) -> int:
    """How many levels some tasks have, the first of which is the topmost."""
    below: dict[str, list[str]] = {}
    for doc in docs:
        below.setdefault(doc["parent_id"] or "", []).append(doc["id"])
    level, depth = [docs[0]["id"]], 0
    while level:
        depth += 1
        level = [name for above in level for name in below.get(above, [])]
    return depth


def subtree(tx: Tx, roots: Sequence[str]) -> list[Loaded]:
    """All live tasks below some tasks, parents before children, each locked: a change that came first is part of them.

    Invalid if there are more than one request may change.
    """
    found: dict[str, Loaded] = {}
    level = list(roots)
    while level:
        rows = edit.below(tx, TASK, "parent_id", level, MAX_TREE - len(found))
        fresh = {doc["id"]: (row, doc) for row, doc in rows if doc["id"] not in found}
        found |= fresh
        level = list(fresh)
    return list(found.values())


def comments_of(tx: Tx, task_ids: Sequence[str], *, trashed: bool = False) -> list[Loaded]:
    """The comments of some tasks, each locked; Invalid if there are more than one request may change."""
    return edit.below(tx, COMMENT, "task_id", task_ids, MAX_TREE, trashed=trashed)
