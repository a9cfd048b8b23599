"""A search within a change finds what is there at that moment: also what others of its group wrote, once each.

Why a property: SQLite commits changes in groups and writes their full-text rows at the end, so what a search finds
depends on who came before it, whether it failed, and whether it searched, too.
"""

import asyncio
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from taskade_server.domain.tasks import TASK
from taskade_server.engine import check, log, query
from taskade_server.engine.log import Change
from taskade_server.kit import json
from taskade_server.store.database import Tx

from tests.unit import world
from tests.unit.examples import examples

WORDS = ["apple", "pear", "plum"]
HOME = world.WORKSPACES[0]


class ChangedMindError(Exception):
    """Ends a unit that has written already."""


def found(tx: Tx, word: str) -> set[str]:
    caller = world.a_member(HOME)
    parsed = query.parse(tx, caller, TASK, world.SECRET, [("q", word), ("limit", "100")])
    return {json.decode(text)["id"] for text in query.run(tx, caller, parsed, world.SECRET).documents}


def named(tx: Tx, word: str) -> set[str]:
    return {task_id for task_id, text in tx.all("SELECT id, doc FROM tasks") if json.decode(text)["name"] == word}


def write(tx: Tx, what: str, number: int, word: str) -> None:
    task_id = world.an_id("task", number)
    row = tx.one("SELECT n, doc FROM tasks WHERE id = ?", (task_id,))
    if row is None:
        doc = {"id": task_id, "workspace_id": HOME, "project_id": world.PROJECTS[0], "name": word}
        change = world.created(TASK, **doc, status="pending", position="b")
    else:
        before = json.decode(row[1])
        action = "purged" if what == "remove" else "updated"
        change = Change(TASK, action, before | {"name": word}, before, row[0])
    log.apply(tx, world.ACTOR, [change])


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["write", "write", "remove"]),
        st.integers(0, 2),
        st.sampled_from(WORDS),
        st.booleans(),
        st.sampled_from([False, False, True]),
    ),
    min_size=1,
    max_size=6,
)


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    """One for all: a database that writes stays with its loop."""
    with asyncio.Runner() as runner:
        yield runner


def step(word: str, *, searches: bool = False) -> Any:
    return "write", 0, word, searches, False


@examples(60)
@example(groups=[([step("apple"), step("pear", searches=True)], False)])
@example(groups=[([step("apple")], False), ([step("pear"), step("plum", searches=True)], False)])
@given(groups=st.lists(st.tuples(STEPS, st.booleans()), min_size=1, max_size=3))
def test_a_search_within_a_change_finds_what_is_there(sqlite_db, loop, groups):
    db = sqlite_db
    db.write_sync(world.forget_tasks)

    def unit_of(one: Any) -> Any:
        what, number, word, searches, fails = one

        def unit(tx: Tx) -> None:
            write(tx, what, number, word)
            if searches:
                for each in WORDS:
                    assert found(tx, each) == named(tx, each)
            if fails:
                raise ChangedMindError

        return unit

    async def all_at_once(steps: list[Any], heavy: bool) -> None:
        ends = await asyncio.gather(*(db.write(unit_of(one), heavy=heavy) for one in steps), return_exceptions=True)
        assert [type(end) for end in ends] == [ChangedMindError if one[-1] else type(None) for one in steps], ends

    for steps, heavy in groups:
        loop.run(all_at_once(steps, heavy))
        for word in WORDS:
            assert db.read_sync(partial(found, word=word)) == db.read_sync(partial(named, word=word))
    assert [fault for fault in db.read_sync(check.replay) if "task" in fault] == []
