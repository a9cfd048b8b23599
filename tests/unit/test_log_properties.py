"""The log: gapless and in commit order for each workspace, whoever writes how much at once, on both databases.

Why a reader that runs along: numbers that are given out in order but become visible out of order look perfect
afterwards, and lose events for everybody who reads while others write.
"""

import asyncio
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from taskade_server.domain.tasks import TASK
from taskade_server.engine import check, log
from taskade_server.engine.log import Change
from taskade_server.kit import ids, json
from taskade_server.store.database import Database, StoreError, Tx

from tests.unit import world
from tests.unit.examples import examples
from tests.unit.world import ACTOR, HOME, PROJECTS, WORKSPACES

WRITERS = 6
UNITS = 12


class ChangedMindError(Exception):
    """A unit that fails after it has written."""


def a_unit(seed: int) -> Callable[[Tx], list[str]]:
    """Creates and changes a few tasks in one workspace or in both, and sometimes fails in the end."""

    def unit(tx: Tx) -> list[str]:
        chance = random.Random(seed)
        made = []
        for _ in range(chance.randint(1, 3)):
            project = chance.choice(PROJECTS)
            doc = world.whole(
                TASK,
                id=ids.new("task"),
                workspace_id=HOME[project],
                project_id=project,
                name="Written",
                status="pending",
            )
            change = Change(TASK, "created", doc, also=["task.assigned"] if chance.random() < 0.3 else [])
            before = json.decode(log.apply(tx, ACTOR, [change])[0])
            if chance.random() < 0.5:
                log.apply(tx, ACTOR, [Change(TASK, "updated", {**before, "name": "Renamed"}, before, change.n)])
            made.append(before["id"])
        if chance.random() < 0.2:
            raise ChangedMindError
        return made

    return unit


class Tail:
    """Reads along, the way webhooks and streams do: always what comes after the last that it has seen."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.seen: dict[str, list[int]] = {name: [] for name in WORKSPACES}

    def look(self) -> None:
        for name in self.seen:
            self.look_at(name)

    def look_at(self, name: str) -> int:
        seqs = self.seen[name]
        after = seqs[-1] if seqs else 0
        found = self._db.read_sync(lambda tx: log.read_after(tx, name, after, 7))
        seqs += [event.seq for event in found]
        return len(found)

    def catch_up(self) -> None:
        for name in self.seen:
            while self.look_at(name):
                pass


def heads(db: Database) -> dict[str, int]:
    return db.read_sync(lambda tx: {name: log.head(tx, name) for name in WORKSPACES})


@pytest.fixture
def empty_world(db: Database) -> Database:
    def begin(tx: Tx) -> None:
        for table in ("workspaces", "projects", "users", "members", "tasks", "task_values", "events", "log_heads"):
            tx.run(f"DELETE FROM {table}")
        world.found_world(tx)

    db.write_sync(begin)
    return db


def test_who_reads_along_misses_nothing(empty_world):
    db, tail, done = empty_world, Tail(empty_world), threading.Event()

    def read_along() -> None:
        while not done.is_set():
            tail.look()

    with ThreadPoolExecutor(1) as reading:
        reader = reading.submit(read_along)
        try:
            kept = write_at_once(db)
        finally:
            done.set()
        reader.result()
    tail.catch_up()
    assert tail.seen == {name: list(range(1, head + 1)) for name, head in heads(db).items()}
    assert db.read_sync(check.replay) == []
    stored = {row[0] for row in db.read_sync(lambda tx: tx.all("SELECT id FROM tasks"))}
    assert stored == set(kept), "what was answered is there, and nothing else"


def write_at_once(db: Database) -> list[str]:
    """Run units as each database is used: by many threads on PostgreSQL, by one event loop on SQLite."""
    if db.dialect == "postgresql":
        with ThreadPoolExecutor(WRITERS) as pool:
            answers = list(pool.map(lambda seed: outcome(lambda: db.write_sync(a_unit(seed))), range(WRITERS * UNITS)))
    else:
        answers = asyncio.run(write_on_a_loop(db))
    return [task_id for answer in answers for task_id in answer]


async def write_on_a_loop(db: Database) -> list[list[str]]:
    async def write(seed: int) -> list[str]:
        try:
            return await db.write(a_unit(seed), heavy=seed % 5 == 0)
        except ChangedMindError:
            return []

    return await asyncio.gather(*(write(seed) for seed in range(WRITERS * UNITS)))


def outcome(write: Callable[[], list[str]]) -> list[str]:
    try:
        return write()
    except ChangedMindError:
        return []


# ---- one writer, any history

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["rename", "label", "custom", "trash", "restore", "purge", "nothing"]), st.integers(0, 7)
    ),
    max_size=12,
)


@examples(40)
@given(tasks=world.some_tasks(), steps=STEPS, unlucky=st.integers(0, 12))
def test_replaying_any_history_gives_the_tables(db, tasks, steps, unlucky):
    db.write_sync(world.forget_tasks)
    world.plant(db, tasks)
    for place, (what, number) in enumerate(steps):
        try:
            db.write_sync(partial(take_step, what=what, number=number, fail=place == unlucky))
        except ChangedMindError:
            pass
    assert [fault for fault in db.read_sync(check.replay) if "task" in fault] == []


def take_step(tx: Tx, what: str, number: int, *, fail: bool) -> None:
    rows = tx.all("SELECT n, doc FROM tasks ORDER BY n")
    if rows:
        n, document = rows[number % len(rows)]
        before = json.decode(document)
        action, after = step_of(what, number, before)
        if action:
            log.apply(tx, ACTOR, [Change(TASK, action, after, before, n)])
    if fail:
        raise ChangedMindError


def step_of(what: str, number: int, before: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    trashed = before["deleted_at"] is not None
    match what:
        case "rename":
            return "updated", before | {"name": f"Name {number}", "description": None}
        case "label":
            return "updated", before | {"labels": world.LABELS[: number % 4]}
        case "custom":
            # The same text as a number and as a word: in the side table they share a key.
            return "updated", before | {"custom_fields": {"size": [10, "10", 10.5, True, ["10", "a"]][number % 5]}}
        case "trash" if not trashed:
            return "deleted", dict(before)
        case "restore" if trashed:
            return "restored", dict(before)
        case "purge" if trashed:
            return "purged", dict(before)
    return "", before


# ---- what verify sees


@pytest.mark.parametrize(
    ("damage", "noticed"),
    [
        ("UPDATE tasks SET priority = 3", "has columns that differ from its document"),
        ("UPDATE tasks SET doc = replace(doc, 'Written', 'Forged')", "differs from the log"),
        ("DELETE FROM tasks", "is in the log but not in its table"),
        ("DELETE FROM task_values", "has values that differ from its document"),
        (
            "INSERT INTO task_values (workspace_id, field, value, n) VALUES ('ws', 'labels', 'a', 999999)",
            "which does not",
        ),
        ("DELETE FROM events WHERE seq = 1", "has gaps"),
        ("UPDATE log_heads SET seq = seq + 1", "has gaps or a wrong head"),
    ],
)
def test_verify_notices_damage(empty_world, damage, noticed):
    project = PROJECTS[0]
    doc = {
        "id": ids.new("task"),
        "workspace_id": HOME[project],
        "project_id": project,
        "labels": ["a"],
        "name": "Written",
    }
    empty_world.write_sync(lambda tx: log.apply(tx, ACTOR, [world.created(TASK, **doc, status="pending")]))
    assert empty_world.read_sync(check.replay) == []
    empty_world.write_sync(lambda tx: tx.script(damage))
    assert any(noticed in fault for fault in empty_world.read_sync(check.replay))


def test_a_failed_unit_leaves_no_event_and_no_gap(empty_world):
    def unit(tx: Tx) -> None:
        a_task = world.created(
            TASK, id=ids.new("task"), workspace_id=WORKSPACES[0], project_id=PROJECTS[0], name="Lost"
        )
        log.apply(tx, ACTOR, [a_task])
        raise ChangedMindError

    before = heads(empty_world)
    with pytest.raises(ChangedMindError):
        empty_world.write_sync(unit)
    assert heads(empty_world) == before
    assert empty_world.read_sync(check.replay) == []


def test_writing_goes_on_after_a_conflict(empty_world):
    """A clash of ids spoils its unit only."""
    doc = {"workspace_id": WORKSPACES[0], "project_id": PROJECTS[0], "name": "Twice", "status": "pending"}
    task_id = ids.new("task")
    empty_world.write_sync(lambda tx: log.apply(tx, ACTOR, [world.created(TASK, id=task_id, **doc)]))
    with pytest.raises(StoreError):
        empty_world.write_sync(lambda tx: log.apply(tx, ACTOR, [world.created(TASK, id=task_id, **doc)]))
    empty_world.write_sync(lambda tx: log.apply(tx, ACTOR, [world.created(TASK, id=ids.new("task"), **doc)]))
    assert empty_world.read_sync(check.replay) == []
