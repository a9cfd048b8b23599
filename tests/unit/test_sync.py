"""Sync where time or size decide: tokens that are too old, logs that begin late, and workspaces with many projects."""

from contextlib import ExitStack
from typing import Any
from unittest import mock

import pytest
from taskade_server.domain import sync, visibility_history
from taskade_server.domain.projects import DEFAULT_STATUSES, PROJECT
from taskade_server.domain.sync import SyncSelection, Token, following, walking
from taskade_server.domain.sync import answer as sync_answer
from taskade_server.domain.tasks import TASK
from taskade_server.engine import log
from taskade_server.engine.access import Grant, Principal
from taskade_server.kit import ids, json, time
from taskade_server.kit.errors import InvalidQuery, TokenExpired
from taskade_server.store.database import Database

from tests.unit import world

WORKSPACE = world.WORKSPACES[0]
ME = Principal(world.USERS[0], None, frozenset("*"), {WORKSPACE: Grant(WORKSPACE, "member")}, WORKSPACE)


@pytest.fixture(scope="module")
def founded(db: Database) -> Database:
    """The world of the tests, with seven projects more and forty tasks in them."""
    db.write_sync(world.found_world)
    projects = [ids.new("proj") for _ in range(7)]
    found = [
        world.created(PROJECT, id=name, workspace_id=WORKSPACE, name="P", statuses=DEFAULT_STATUSES)
        for name in projects
    ]
    found += [
        world.created(
            TASK, id=ids.new("task"), workspace_id=WORKSPACE, project_id=projects[n % 7], name="T", status="pending"
        )
        for n in range(40)
    ]
    db.write_sync(lambda tx: log.apply(tx, world.ACTOR, found))
    return db


def answer(db: Database, token: Token | None, limit: int = 1000) -> Any:
    def unit(tx):
        wanted = SyncSelection(WORKSPACE, None, ())
        return json.decode(sync.proceed(tx, ME, {}, token or sync.begin(tx, ME, {}, wanted), limit, world.SECRET))

    return db.read_sync(unit, snapshot=True)


def accepted(text: str) -> Token:
    return sync.accept(world.SECRET, text, ME, {})


def test_a_token_is_good_for_thirty_days_and_no_longer(founded):
    text = answer(founded, None)["next"]
    made = sync.unseal(world.SECRET, text)
    assert made is not None
    last = made.at + 30 * time.DAY_MS
    with world.frozen_clock(lambda: last):
        accepted(text)
    with world.frozen_clock(lambda: last + 1), pytest.raises(TokenExpired):
        accepted(text)


def test_each_answer_makes_it_good_for_thirty_more(founded):
    text = answer(founded, None)["next"]
    token = accepted(text)
    later = token.at + 29 * time.DAY_MS
    with world.frozen_clock(lambda: later):
        again = sync.unseal(world.SECRET, answer(founded, token)["next"])
    assert again is not None and again.at == later


def test_a_token_of_before_the_log_begins_cannot_be_served(founded):
    token = accepted(answer(founded, None)["next"])
    text, done = sync.seal(world.SECRET, token), token.done
    with mock.patch.object(log, "bounds", lambda tx, name: (done + 1, done)):
        answer(founded, accepted(text))  # nothing is missing yet
    late = mock.patch.object(log, "bounds", lambda tx, name: (done + 2, done + 5))
    with late, pytest.raises(TokenExpired):
        answer(founded, accepted(text))


def test_too_many_changes_of_rights_to_go_through_are_an_expired_token_too(founded):
    token = accepted(answer(founded, None)["next"])
    token.rights = 0
    with mock.patch.object(visibility_history, "MAX_CHANGES", 1), pytest.raises(TokenExpired):
        answer(founded, token)


def test_a_token_of_another_server_is_none(founded):
    text = answer(founded, None)["next"]
    with pytest.raises(InvalidQuery):
        sync.accept(b"another secret, long enough to be one", text, ME, {})


@pytest.mark.parametrize("narrow", [0, 1000])
def test_many_projects_are_walked_through_as_a_whole_with_the_same_outcome(founded, narrow):
    rows = founded.read_sync(lambda tx: tx.all("SELECT id, doc FROM tasks WHERE workspace_id = ?", (WORKSPACE,)))
    for limit in (3, 1000):
        has: dict[str, Any] = {}
        token, more, steps = None, True, 0
        with mock.patch.object(walking, "NARROW", narrow):
            while more:
                found_now = answer(founded, token, limit)
                change = found_now["changes"]["tasks"]
                has |= {item["id"]: item for item in change["created"] + change["updated"]}
                token, more, steps = accepted(found_now["next"]), found_now["has_more"], steps + 1
        assert has == {name: json.decode(text) for name, text in rows}
        assert steps > 10 or limit > 3


def test_one_answer_looks_at_so_much_and_says_that_there_is_more(founded):
    has: dict[str, Any] = {}
    token, more, steps = None, True, 0
    with ExitStack() as small:
        small.enter_context(mock.patch.object(walking, "LEGS", 2))
        for module in (sync_answer, following, walking):
            small.enter_context(mock.patch.object(module, "PAGE_TEXT", 2000))
        while more:
            found = answer(founded, token)
            for change in found["changes"].values():
                has |= {item["id"]: item for item in change["created"] + change["updated"]}
            token, more, steps = accepted(found["next"]), found["has_more"], steps + 1
            assert steps < 500
    whole = answer(founded, None)
    expected = {item["id"]: item for change in whole["changes"].values() for item in change["created"]}
    assert has == expected and steps > 10
