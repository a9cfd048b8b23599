"""What events are called, who may see one, and how it reads."""

import pytest
from taskade_server.domain.resources import RESOURCES
from taskade_server.engine import events
from taskade_server.engine.access import Grant, Principal
from taskade_server.engine.log import Event, Sight
from taskade_server.kit import json

from tests.unit.world import PROJECTS, USERS, WORKSPACES

assert RESOURCES, "all resources are declared by now"
HOME, ELSEWHERE = WORKSPACES
AT = 1_705_314_600_000


def event(resource: str = "task", kind: str = "task.updated", **more) -> Event:
    known = {
        "workspace_id": HOME, "seq": 7, "id": "evt_1", "type": kind, "resource": resource, "object_id": "task_1",
        "project_id": PROJECTS[0], "actor_id": USERS[0], "key_id": "key_1", "request_id": "req_1", "at": AT,
        "data": '{"id":"task_1","name":"x"}', "previous": '{"name":"y"}', "address": "192.0.2.1", "user_agent": "curl",
        "origin": None, "sight": Sight(open=frozenset({(HOME, PROJECTS[0])})),
    }  # fmt: skip
    return Event(**{**known, **more})


def principal(*grants: Grant, scopes: tuple[str, ...] = ("*",)) -> Principal:
    return Principal(USERS[0], "key_1", frozenset(scopes), {grant.workspace_id: grant for grant in grants}, HOME)


def test_the_types_follow_from_the_resources():
    names = events.catalogue()
    assert {
        "task.created",
        "task.updated",
        "task.deleted",
        "task.restored",
        "task.completed",
        "member.added",
        "member.removed",
        "project.archived",
        "api_key.deleted",
        "task.purged",
    } <= set(names)
    assert "member.restored" not in names and "member.deleted" not in names
    assert names["task.completed"].resource.name == "task"
    assert all(kind.summary.endswith(".") for kind in names.values())


@pytest.mark.parametrize(
    ("patterns", "fitting"),
    [
        (["*"], True),
        (["task.*"], True),
        (["task.updated"], True),
        (["task.created", "project.*"], False),
        (["tas.*"], False),
        (["task."], False),
        ([], False),
        (["task"], False),
    ],
)
def test_patterns(patterns, fitting):
    assert events.fits(patterns, "task.updated") is fitting


@pytest.mark.parametrize("pattern", ["*", "task.*", "task.completed", "api_key.*"])
def test_a_pattern_that_fits_something_has_no_fault(pattern):
    assert events.fault(pattern) is None


@pytest.mark.parametrize(("pattern", "hint"), [("task.complete", "task.completed"), ("tasks.*", "task.*")])
def test_a_pattern_that_fits_nothing_is_told_what_was_meant(pattern, hint):
    assert hint in str(events.fault(pattern)) and pattern in str(events.fault(pattern))


@pytest.mark.parametrize(
    ("who", "seen"),
    [
        (principal(Grant(HOME, "member")), True),
        (principal(), False),
        (principal(Grant(ELSEWHERE, "owner")), False),
        (principal(Grant(HOME, "member", live=False)), False),
        (principal(Grant(HOME, "member", hidden=frozenset(PROJECTS[:1]))), False),
        (principal(Grant(HOME, "guest", only=frozenset(PROJECTS[:1]))), True),
        (principal(Grant(HOME, "guest", only=frozenset(PROJECTS[1:]))), False),
        (principal(Grant(HOME, "member"), scopes=("tasks:read",)), True),
        (principal(Grant(HOME, "member"), scopes=("projects:write",)), False),
    ],
)
def test_who_sees_a_task_change(who, seen):
    assert events.sees(who, event()) is seen


def test_what_belongs_to_one_user_is_seen_by_that_user_alone():
    def key_of(user_id, created_by):
        data = json.encode({"user_id": user_id, "created_by": created_by})
        return event("api_key", "api_key.created", project_id=None, data=data)

    assert events.sees(principal(Grant(HOME, "member")), key_of(USERS[0], USERS[0]))
    assert not events.sees(principal(Grant(HOME, "owner")), key_of(USERS[1], USERS[1]))
    # Made by somebody else: the key of a service user, which those who administer the workspace look after.
    assert events.sees(principal(Grant(HOME, "admin")), key_of(USERS[1], USERS[2]))
    assert not events.sees(principal(Grant(HOME, "member")), key_of(USERS[1], USERS[0]))


def test_members_of_a_project_hide_with_it():
    added = event("member", "member.added", object_id="mem_1")
    assert not events.sees(principal(Grant(HOME, "member", hidden=frozenset(PROJECTS[:1]))), added)
    assert events.sees(principal(Grant(HOME, "member"), scopes=("projects:read",)), added)
    assert not events.sees(principal(Grant(HOME, "member"), scopes=("workspaces:read",)), added)
    assert events.sees(principal(Grant(HOME, "member"), scopes=("workspaces:read",)), added._replace(project_id=None))


def test_an_event_reads_the_same_everywhere():
    assert json.decode(events.render(event())) == {
        "id": "evt_1",
        "type": "task.updated",
        "timestamp": "2024-01-15T10:30:00.000Z",
        "workspace_id": HOME,
        "seq": 7,
        "actor": {"type": "user", "id": USERS[0], "api_key_id": "key_1"},
        "request_id": "req_1",
        "origin": None,
        "data": {"id": "task_1", "name": "x"},
        "previous": {"name": "y"},
    }
    purged = json.decode(events.render(event(actor_id=None, key_id=None, previous=None, origin='{"type":"rule"}')))
    assert purged["actor"] == {"type": "system", "id": None, "api_key_id": None}
    assert purged["previous"] is None and purged["origin"] == {"type": "rule"}


def test_the_body_of_a_webhook_is_the_event_and_says_what_came_before():
    text = events.render(event(data='{"id":"task_1","estimate":3.0,"custom_fields":{"b":1,"2":2}}'))
    body = events.webhook_body(text, 5)
    known = json.decode(text)
    assert json.decode(body) == {**known, "previous_seq": 5}
    assert b'"estimate":3,"custom_fields":{"2":2,"b":1}' in body, "as JSON.stringify writes it"
    assert json.decode(events.webhook_body(text, None))["previous_seq"] is None
