"""How far one answer of GET /events looks, and where it says to go on."""

from typing import Any
from unittest import mock

import pytest
from taskade_server.domain.tasks import TASK
from taskade_server.engine import log
from taskade_server.engine.log import Change
from taskade_server.http.api import events
from taskade_server.http.wire.call import Call
from taskade_server.kit import ids, json
from taskade_server.kit.budget import READ, Budget, BudgetSpent
from taskade_server.store.database import Database

from tests.unit import world

WORKSPACE, PROJECT = world.WORKSPACES[0], world.PROJECTS[0]
ME = world.a_member(WORKSPACE)
ONE = ids.new("task")
FEW = 60_000
"""Steps that an answer may do; half of them it keeps."""


@pytest.fixture(scope="module")
def busy(db: Database) -> Database:
    """A log in which one task changes eight times, among the beginnings of many others."""

    def unit(tx):
        world.found_world(tx)
        home = {"workspace_id": WORKSPACE, "project_id": PROJECT, "status": "pending"}
        task = world.created(TASK, id=ONE, name="0", **home)
        log.apply(tx, world.ACTOR, [task])
        for number in range(1, 9):
            others = [world.created(TASK, id=ids.new("task"), name="Another", **home) for _ in range(6)]
            log.apply(tx, world.ACTOR, others)
            before = dict(task.doc)
            task = Change(TASK, "updated", {**before, "name": str(number)}, before, n=task.n)
            log.apply(tx, world.ACTOR, [task])

    db.write_sync(unit)
    return db


def ask(db: Database, steps: int = READ, **params: Any) -> tuple[list[Any], str]:
    """The events of an answer that may do so much, and the query string of the next one ("" if there is none)."""
    query = "&".join(f"{name}={value}" for name, value in {"workspace_id": WORKSPACE, **params}.items())

    def unit(tx):
        tx.budget = Budget(steps)
        return events.listing(Call(ME, world.SECRET, "req_1", [], query), tx)

    reply = db.read_sync(unit, snapshot=True)
    address = dict(reply.headers).get(b"link", b"").decode()
    return json.decode(reply.body or ""), address.partition("?")[2].partition(">")[0]


def walk(db: Database, steps: int = READ, **params: Any) -> tuple[list[Any], int]:
    """All events, by the links, and how many answers that took."""
    found, following = ask(db, steps, **params)
    answers = 1
    while following:
        more, following = ask(db, steps, **dict(part.split("=") for part in following.split("&")))
        found, answers = found + more, answers + 1
        assert answers < 200
    return found, answers


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_the_log_is_looked_through_piece_by_piece(busy, order):
    whole, _ = walk(busy, order=order)
    wanted = [event for event in whole if event["type"] == "task.updated"]
    with mock.patch.multiple(events, SCAN=10, PASSED_A_STEP=1, EVENT_STEPS=10_000):
        found, answers = walk(busy, FEW, order=order, types="task.updated")
        assert found == wanted and answers > 2, "each does little"
    with mock.patch.multiple(events, SCAN=10):
        assert walk(busy, order=order, types="task.updated") == (wanted, 1), "what is narrow comes in one answer"
        assert ask(busy, order=order, types="task.deleted") == ([], ""), "and so does the news that there is nothing"


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_the_events_of_one_object_are_found_at_once_wherever_they_lie(busy, order):
    with mock.patch.object(events, "SCAN", 10):
        found, following = ask(busy, order=order, object_id=ONE)
    names = [event["data"]["name"] for event in found]
    assert names == sorted(names, reverse=order == "desc") and len(names) == 9
    assert not following


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_few_of_many_events_of_one_object_are_found_piece_by_piece(busy, order):
    with mock.patch.object(events, "SCAN", 3):
        found, _ = walk(busy, order=order, object_id=ONE, types="task.created", limit=1)
    assert [event["data"]["id"] for event in found] == [ONE]


@pytest.mark.parametrize(("after", "before"), [(3, 2), (3, 3), (3, 4), (3, 5)])
def test_the_place_to_go_on_from_is_never_before_where_it_began(busy, after, before):
    query = f"workspace_id={WORKSPACE}&after={after}&before={before}&types=task.deleted"
    reply = busy.read_sync(lambda tx: events.listing(Call(ME, world.SECRET, "req_1", [], query), tx), snapshot=True)
    assert int(dict(reply.headers)[b"next-after"]) == max(after, before - 1)


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_of_these_one_answer_looks_at_so_many_too(busy, order):
    with mock.patch.object(events, "EVENT_STEPS", 10_000):
        found, answers = walk(busy, FEW, order=order, object_id=ONE, limit=2)
    assert len({event["id"] for event in found}) == len(found) == 9
    assert answers > 3


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_an_answer_compares_a_filter_for_so_much_work_and_says_where_to_go_on(busy, order):
    """However dear the filter is: each answer does its part, and by the links they give what one would have given."""
    conditions = ",".join(f'{{"name":{{"$contains":"qq{number}"}}}}' for number in range(190))
    wanted = f'{{"$or":[{conditions},{{"name":"7"}}]}}'
    with mock.patch.object(events, "LOOK_STEPS", 1_000):
        found, following = ask(busy, types="task.*", filter=wanted, order=order, limit=1, after=0)
        assert found == [] and following, "an answer may be empty and yet not the last"
        everything, answers = walk(busy, types="task.*", filter=wanted, order=order)
    assert [event["data"]["name"] for event in everything] == ["7"]
    assert answers >= 190 * 2 * 57 // (1_000 + 190 * 3), "each of them does little"
    with mock.patch.object(events, "LOOK_STEPS", 10**9):
        assert walk(busy, types="task.*", filter=wanted, order=order) == (everything, 1)


def test_in_a_batch_the_work_of_filters_is_taken_from_what_all_its_operations_may_do(busy):
    """However many operations there are: together they do no more than one request may."""
    conditions = ",".join(f'{{"name":{{"$contains":"qq{number}"}}}}' for number in range(190))
    query = f'workspace_id={WORKSPACE}&types=task.*&filter={{"$or":[{conditions}]}}'
    budget = Budget(300_000)

    def unit(tx):
        tx.budget = budget
        for _ in range(1_000):
            events.listing(Call(ME, world.SECRET, "req_1", [], query), tx)

    with pytest.raises(BudgetSpent):
        busy.read_sync(unit, snapshot=True)
    assert budget.used < 400_000
