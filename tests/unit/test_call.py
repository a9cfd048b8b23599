"""A call is the same each time it is used: a unit of work that is run again must give the same answer."""

from typing import Any

import pytest
from taskade_server.domain.tasks import TASK
from taskade_server.engine import log
from taskade_server.engine.log import Change
from taskade_server.http.api import generic
from taskade_server.http.wire.call import Call
from taskade_server.http.wire.query_string import link_to_next, take
from taskade_server.kit import ids, json
from taskade_server.kit.errors import InvalidQuery
from taskade_server.store.database import Database, Tx

from tests.unit import world

WORKSPACE, PROJECT = world.WORKSPACES[0], world.PROJECTS[0]
ME = world.a_member(WORKSPACE)


def test_a_read_as_of_the_past_that_is_run_again_is_of_the_past_again(db: Database):
    task = ids.new("task")
    home = {"workspace_id": WORKSPACE, "project_id": PROJECT, "status": "pending"}
    made = world.created(TASK, id=task, name="Before", **home)
    db.write_sync(world.found_world)
    db.write_sync(lambda tx: log.apply(tx, world.ACTOR, [made]))
    seq = db.read_sync(lambda tx: log.head(tx, WORKSPACE))
    before = dict(made.doc)
    after = Change(TASK, "updated", {**before, "name": "After"}, before, n=made.n)
    db.write_sync(lambda tx: log.apply(tx, world.ACTOR, [after]))
    call = Call(ME, world.SECRET, "req_1", [task], f"as_of={seq}")

    def twice(tx: Tx) -> list[Any]:
        handle = generic.reading(TASK)
        return [json.decode(handle(call, tx).body or "")["name"] for _ in range(2)]

    assert db.read_sync(twice, snapshot=True) == ["Before", "Before"]


def test_nobody_can_change_a_call():
    call = Call(ME, world.SECRET, "req_1", [])
    with pytest.raises(AttributeError):
        call.query_string = "as_of=1"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("query_string", "found"),
    [
        ("", (None, "")),
        ("b=1", (None, "b=1")),
        ("a=1", ("1", "")),
        ("a=", ("", "")),
        ("a", ("", "")),
        ("b=1&a=x%20y+z&c=2", ("x y z", "b=1&c=2")),
        ("ba=1&a[x]=2", (None, "ba=1&a[x]=2")),
    ],
)
def test_a_parameter_is_taken_out_of_a_query_string(query_string, found):
    assert take(query_string, "a") == found


def test_a_parameter_that_stands_twice_is_refused():
    with pytest.raises(InvalidQuery):
        take("a=1&b=2&a=1", "a")


@pytest.mark.parametrize(
    ("query_string", "link"),
    [
        ("", b'</v1/tasks?cursor=new>; rel="next"'),
        ("cursor=old", b'</v1/tasks?cursor=new>; rel="next"'),
        ("a=%20&cursor=old&b", b'</v1/tasks?a=%20&b&cursor=new>; rel="next"'),
    ],
)
def test_a_link_keeps_what_the_client_asked(query_string, link):
    assert link_to_next("/v1/tasks", query_string, "cursor", "new") == (b"link", link)
