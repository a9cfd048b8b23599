"""Asks a database whether its content keeps the rules of the domain that concern several rows.

Why beside the questions of the engine: a row can agree with the log and with its own schema and still break such a
rule, because two requests at once were both allowed what one alone may do, or because an earlier version allowed it.
Nothing of this is damage: backups are made and restored all the same, and a change through the API mends it.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Final

from taskade_server.domain import projects
from taskade_server.domain.identity import ROLES
from taskade_server.domain.tasks import MAX_LEVELS
from taskade_server.engine import check
from taskade_server.engine.check import MAX_FAULTS, Finding
from taskade_server.kit import json
from taskade_server.store.database import Tx
from taskade_server.store.transfer import pages


def run(tx: Tx) -> Iterator[Finding]:
    """All questions of the engine, and then those about the rules of the domain."""
    for finding in check.run(tx):
        yield finding
        if finding.name == "schema" and finding.faults:
            return
    yield from rules(tx)


def rules(tx: Tx) -> Iterator[Finding]:
    """The questions about the rules of the domain alone; the tables have to be those of this program."""
    yield check.finding("order", "that siblings have different positions", _equal_positions(tx))
    yield check.finding("hierarchy", f"that subtasks nest {MAX_LEVELS} levels deep, without circles", _hierarchy(tx))
    yield check.finding("blockers", "that no tasks block each other in a circle", _blockers(tx))
    yield check.finding("statuses", "that tasks fit their project's workflow", _statuses(tx))
    yield check.finding("places", "that everything lies where its parent does", _locations(tx))
    yield check.finding("people", "owners, memberships and inboxes", chain(_owners(tx), _memberships(tx), _inboxes(tx)))


def broken(tx: Tx) -> list[str]:
    """The rules of the domain that do not hold, in plain words."""
    return [fault for finding in rules(tx) for fault in finding.faults]


# ---- tasks -----------------------------------------------------------------------------------------------------------


def _equal_positions(tx: Tx) -> Iterator[str]:
    for project_id, parent_id, position, first, last in tx.all(
        "SELECT MIN(project_id), MIN(parent_id), position, MIN(id), MAX(id) FROM tasks WHERE deleted_at IS NULL"
        f" GROUP BY COALESCE(parent_id, project_id), position HAVING COUNT(*) > 1 LIMIT {MAX_FAULTS}"
    ):
        location = f"below the task {parent_id}" if parent_id else f"at the top of the project {project_id}"
        yield f"the tasks {first} and {last} have the same position {position} {location}: move one of them"


def _hierarchy(tx: Tx) -> Iterator[str]:
    rows = tx.all("SELECT id, parent_id FROM tasks WHERE parent_id IS NOT NULL AND deleted_at IS NULL")
    parents: dict[str, str] = {row[0]: row[1] for row in rows}
    yield from _cycles({child: [parent] for child, parent in parents.items()}, "lie below each other in a circle")
    levels: dict[str, int] = {}
    for task_id in parents:
        path: dict[str, None] = {}
        current = task_id
        while current in parents and current not in levels and current not in path:
            path[current] = None
            current = parents[current]
        level = levels.get(current, 1)
        for name in reversed(path):
            level += 1
            levels[name] = level
            if level == MAX_LEVELS + 1:
                yield f"the task {name} lies {level} levels deep, where {MAX_LEVELS} are allowed: move it up"


def _blockers(tx: Tx) -> Iterator[str]:
    links: dict[str, list[str]] = {}
    sql = "SELECT t.id, v.value FROM task_values v JOIN tasks t ON t.n = v.n WHERE v.field = 'blocked_by'"
    for task_id, blocker in tx.all(sql):
        links.setdefault(task_id, []).append(blocker)
    yield from _cycles(links, "block each other in a circle: take one out of blocked_by")


def _cycles(links: Mapping[str, Iterable[str]], words: str) -> Iterator[str]:
    """One fault for each cycle that a walk along all links meets."""
    done: set[str] = set()
    for start in links:
        if start in done:
            continue
        path: dict[str, Iterator[str]] = {start: iter(links[start])}
        while path:
            current = next(reversed(path))
            following = next(path[current], None)
            if following is None:
                done.add(current)
                del path[current]
            elif following in path:
                names = list(path)
                yield f"the tasks {', '.join(names[names.index(following) :][:10])} {words}"
            elif following not in done:
                path[following] = iter(links.get(following, ()))


def _statuses(tx: Tx) -> Iterator[str]:
    used: dict[str, list[tuple[str, bool, str, int]]] = {}
    for project_id, status, is_open, task_id, count in tx.all(
        "SELECT project_id, status, CASE WHEN completed_at IS NULL THEN 1 ELSE 0 END AS is_open, MIN(id), COUNT(*)"
        " FROM tasks WHERE deleted_at IS NULL GROUP BY project_id, status, is_open ORDER BY project_id"
    ):
        used.setdefault(project_id, []).append((status, bool(is_open), task_id, count))
    for page in pages(tx, "projects", ("n", "doc"), ("n",)):
        for _, text in page:
            project = json.decode(text)
            for status, is_open, task_id, count in used.pop(project["id"], ()):
                category = projects.status_category(project, status)
                tasks = f"the task {task_id}" + (f" and {count - 1:,} more" if count > 1 else "")
                if category is None:
                    yield f"{tasks} has the status {status}, which the project {project['id']} does not have"
                elif (category == "done") == is_open:
                    yield f"{tasks} has the status {status} ({category}), but completed_at says otherwise"


_PLACES: Final = (
    ("tasks", "project_id", "projects", "t.workspace_id <> p.workspace_id",
     "task {} lies in another workspace than its project {}"),
    ("tasks", "project_id", "projects", "t.deleted_at IS NULL AND p.deleted_at IS NOT NULL",
     "task {} is live, and its project {} is in the trash"),
    ("tasks", "parent_id", "tasks", "t.deleted_at IS NULL AND p.deleted_at IS NOT NULL",
     "task {} is live, and its parent {} is in the trash"),
    ("tasks", "parent_id", "tasks", "t.deleted_at IS NULL AND p.id IS NULL",
     "task {} has the parent {}, which does not exist"),
    ("tasks", "parent_id", "tasks", "t.deleted_at IS NULL AND t.project_id <> p.project_id",
     "task {} lies in another project than its parent {}"),
    ("comments", "task_id", "tasks", "t.deleted_at IS NULL AND p.deleted_at IS NOT NULL",
     "comment {} is live, and its task {} is in the trash"),
    ("comments", "task_id", "tasks",
     "(t.workspace_id <> p.workspace_id OR (t.deleted_at IS NULL AND t.project_id <> p.project_id))",
     "comment {} lies elsewhere than its task {}"),
)  # fmt: skip
"""A table, the column that names a row of another table, what must not be true of the two, and how to say it."""


def _locations(tx: Tx) -> Iterator[str]:
    for table, column, other, wrong, words in _PLACES:
        for row in tx.all(
            f"SELECT t.id, t.{column} FROM {table} t LEFT JOIN {other} p ON p.id = t.{column}"
            f" WHERE t.{column} IS NOT NULL AND {wrong} LIMIT {MAX_FAULTS}"
        ):
            yield f"the {words.format(*row)}"


# ---- people ----------------------------------------------------------------------------------------------------------


def _owners(tx: Tx) -> Iterator[str]:
    for (workspace_id,) in tx.all(
        "SELECT w.id FROM workspaces w WHERE w.deleted_at IS NULL AND NOT EXISTS"
        ' (SELECT 1 FROM members m JOIN users u ON u.id = m."user" WHERE m.workspace_id = w.id'
        f" AND m.project_id IS NULL AND m.role = ? AND u.deleted_at IS NULL) LIMIT {MAX_FAULTS}",
        (ROLES.index("owner"),),
    ):
        yield f"the workspace {workspace_id} has no owner who is not in the trash"


def _memberships(tx: Tx) -> Iterator[str]:
    for member_id, project_id in tx.all(
        "SELECT m.id, m.project_id FROM members m LEFT JOIN projects p ON p.id = m.project_id"
        " WHERE m.project_id IS NOT NULL AND (p.id IS NULL OR p.workspace_id <> m.workspace_id)"
        f" LIMIT {MAX_FAULTS}"
    ):
        yield f"the membership {member_id} is of the project {project_id}, which its workspace does not have"
    for member_id, user_id, project_id in tx.all(
        'SELECT m.id, m."user", m.project_id FROM members m WHERE m.project_id IS NOT NULL AND NOT EXISTS'
        ' (SELECT 1 FROM members w WHERE w.workspace_id = m.workspace_id AND w."user" = m."user"'
        f" AND w.project_id IS NULL) LIMIT {MAX_FAULTS}"
    ):
        yield f"{user_id} is a member ({member_id}) of the project {project_id}, and not of its workspace"


def _inboxes(tx: Tx) -> Iterator[str]:
    for user_id, workspace_id, first, last in tx.all(
        "SELECT inbox_of, workspace_id, MIN(id), MAX(id) FROM projects"
        " WHERE inbox_of IS NOT NULL AND deleted_at IS NULL"
        f" GROUP BY inbox_of, workspace_id HAVING COUNT(*) > 1 LIMIT {MAX_FAULTS}"
    ):
        yield f"{user_id} has two inboxes in the workspace {workspace_id}: {first} and {last}"
