"""Trying an automation on the past: it tells of the runs that there would have been, and of no others."""

import time
from fnmatch import fnmatch
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api.asking import create, everything, problem
from tests.api.test_automations import PATIENCE, UPDATED, a_task_in, batch, comment, faults, patch, runs_of

STOP = {"do": "stop"}


def previewed(client: httpx2.Client, **body: Any) -> Any:
    response = client.post("/v1/automations/preview", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def marks(client: httpx2.Client) -> int:
    """How long the log of the caller's workspace is."""
    home = client.get("/v1/users/me").json()["workspace_id"]
    project = create(client, "projects", name="A mark", workspace_id=home)
    (event,) = client.get("/v1/events", params={"object_id": project["id"], "types": "project.created"}).json()
    return int(event["seq"])


# ---- what it tells ---------------------------------------------------------------------------------------------------


def test_a_rule_that_is_not_saved_is_tried_on_the_past(api, a_project, expect_events):
    urgent = a_task_in(api, a_project, priority="urgent")
    a_task_in(api, a_project, priority="low")
    for priority in ("high", "urgent"):
        api.patch(f"/v1/tasks/{urgent['id']}", json={"priority": priority})
    rule = {
        "name": "A rule",
        "project_id": a_project["id"],
        "actions": [comment("Seen")],
        "trigger": {"on": "event", "types": ["task.*"]},
        "condition": {"priority": "urgent"},
    }
    with expect_events():
        found = previewed(api, automation=rule)
    assert (found["count"], found["circles"], found["object_count"]) == (2, 0, 1)
    assert [start["type"] for start in found["starts"]] == ["task.created", "task.updated"]
    assert found["objects"] == [{"object_id": urgent["id"], "starts": 2}]
    assert found["looked"] >= 4
    assert (found["next_after_seq"], found["disabled_reason"], found["limited"]) == (None, None, False)
    first, _ = found["trials"]
    assert first["event"] == found["starts"][0]
    assert [change["type"] for change in first["changes"]] == ["comment.created"]


def test_each_trial_begins_with_what_there_is(api, a_project):
    for name in "ab":
        create(api, "tasks", name=name, project_id=a_project["id"])
    rule = {
        "name": "A rule",
        "project_id": a_project["id"],
        "trigger": {"on": "event", "types": ["task.created"]},
        "actions": [batch(patch(labels=["x"]))],
    }
    found = previewed(api, automation=rule)
    assert [len(trial["changes"]) for trial in found["trials"]] == [1, 1]
    assert {trial["changes"][0]["data"]["version"] for trial in found["trials"]} == {2}


def test_a_preview_without_trials_only_reads(api, a_project, a_task, automate):
    rule = automate(batch(patch(labels=["x"])))
    found = previewed(api, automation_id=rule["id"], trials=0)
    assert (found["count"], found["trials"]) == (1, [])


def test_a_preview_begins_at_a_time_or_behind_an_event(api, a_project, automate):
    first, second = (a_task_in(api, a_project) for _ in range(2))
    rule = automate(STOP)
    both = previewed(api, automation_id=rule["id"], trials=0, since="-1h")["starts"]
    assert [start["object_id"] for start in both] == [first["id"], second["id"]]
    later = previewed(api, automation_id=rule["id"], trials=0, after_seq=both[0]["seq"])["starts"]
    assert [start["object_id"] for start in later] == [second["id"]]


def test_what_a_rule_did_itself_is_told_as_a_circle(api, a_project, automate):
    rule = automate(batch(patch(estimate=3)), trigger=UPDATED)
    task = a_task_in(api, a_project)
    api.patch(f"/v1/tasks/{task['id']}", json={"name": "B"})
    until = time.monotonic() + PATIENCE
    while len(runs_of(api, rule)) < 2:
        assert time.monotonic() < until
        time.sleep(0.05)
    found = previewed(api, automation_id=rule["id"])
    assert (found["count"], found["circles"]) == (1, 1)


def test_a_preview_tells_nothing_that_its_caller_does_not_see(api, a_project, an_admin, a_member, automate, key_with):
    elsewhere = create(api, "projects", name="Elsewhere")
    hidden = a_task_in(api, elsewhere)
    seen = a_task_in(api, a_project)
    rule = automate(batch(patch(labels=["x"])), project_id=a_project["id"])
    limited = key_with(["*"], project_ids=[a_project["id"]])
    found = previewed(limited, automation_id=rule["id"])
    assert [start["object_id"] for start in found["starts"]] == [seen["id"]]
    assert (found["limited"], hidden["id"] in str(found)) == (True, False)
    unseeing = key_with(["automations:run", "automations:read"])
    found = previewed(unseeing, automation_id=rule["id"])
    assert (found["count"], found["trials"]) == (0, [])
    assert previewed(an_admin.client, automation_id=rule["id"])["count"] == 1
    problem(a_member.client.post("/v1/automations/preview", json={"automation_id": rule["id"]}), 422)


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({}, "", "required"),
        ({"automation_id": "auto_x"}, "/automation_id", "unknown_reference"),
        ({"automation": {"name": "A rule"}}, "/automation/trigger", "required"),
        ({"automation_id": "auto_x", "trials": 11}, "/trials", "out_of_range"),
        ({"automation_id": "auto_x", "sinse": "-1d"}, "/sinse", "unknown_field"),
    ],
)
def test_what_cannot_be_previewed_is_told_with_its_place(api, body, pointer, code):
    document = problem(api.post("/v1/automations/preview", json=body), 422)
    assert faults(document)[pointer] == code


def test_a_preview_asks_for_what_creating_the_rule_would(api, a_member):
    rule = {"name": "A rule", "trigger": UPDATED, "actions": [STOP]}
    problem(a_member.client.post("/v1/automations/preview", json={"automation": rule}), 403)
    body = {"automation": {**rule, "trigger": {"on": "evnt"}}, "since": "tomorrow"}
    assert "/automation/trigger/on" in faults(problem(api.post("/v1/automations/preview", json=body), 422))


# ---- a preview equals what runs, and a plain model of it -------------------------------------------------------------

PRIORITIES = ["none", "low", "high"]
LABELS = ["a", "b"]
CONDITIONS = st.recursive(
    st.one_of(
        st.builds(lambda value: {"priority": value}, st.sampled_from(PRIORITIES)),
        st.builds(
            lambda values: {"priority": {"$in": values}},
            st.lists(st.sampled_from(PRIORITIES), min_size=1, max_size=2, unique=True),
        ),
        st.builds(lambda value: {"labels": value}, st.sampled_from(LABELS)),
        st.builds(lambda value: {"estimate": {"$gte": value}}, st.integers(0, 3)),
        st.builds(lambda flag: {"estimate": {"$exists": flag}}, st.booleans()),
    ),
    lambda inner: st.one_of(
        st.builds(lambda parts: {"$or": parts}, st.lists(inner, min_size=1, max_size=2)),
        st.builds(lambda parts: {"$and": parts}, st.lists(inner, min_size=1, max_size=2)),
        st.builds(lambda part: {"$not": part}, inner),
    ),
    max_leaves=3,
)
VALUES: dict[str, list[Any]] = {"priority": PRIORITIES, "labels": LABELS, "estimate": [0, 1, 2, 3]}


@st.composite
def changes(draw: st.DrawFn) -> dict[str, Any]:
    name = draw(st.sampled_from(sorted(VALUES)))
    sides = draw(st.lists(st.sampled_from(["from", "to"]), unique=True))
    values = st.lists(st.sampled_from(VALUES[name]), min_size=1, max_size=2, unique=True)
    return {name: {side: draw(values) for side in sides}}


TRIGGERS = st.fixed_dictionaries(
    {
        "types": st.lists(
            st.sampled_from(
                [
                    "task.created",
                    "task.updated",
                    "task.*",
                    "task.completed",
                    "task.deleted",
                    "task.restored",
                    "comment.*",
                ]
            ),
            min_size=1,
            max_size=2,
            unique=True,
        )
    },
    optional={"changed": changes()},
)
RULES = st.fixed_dictionaries({"trigger": TRIGGERS}, optional={"condition": CONDITIONS})
STEPS = st.one_of(
    st.builds(lambda task, value: (task, {"priority": value}), st.integers(0, 2), st.sampled_from(PRIORITIES)),
    st.builds(
        lambda task, value: (task, {"labels": value}),
        st.integers(0, 2),
        st.lists(st.sampled_from(LABELS), max_size=2, unique=True),
    ),
    st.builds(lambda task, value: (task, {"estimate": value}), st.integers(0, 2), st.none() | st.integers(0, 3)),
    st.builds(
        lambda task, value: (task, value),
        st.integers(0, 2),
        st.sampled_from(["complete", "reopen", "delete", "restore", "comment", "new"]),
    ),
)


def holds(condition: dict[str, Any], data: dict[str, Any]) -> bool:
    """The model of a condition, which knows what the rules here are made of."""
    ((name, wanted),) = condition.items()
    if name in ("$or", "$and"):
        return (any if name == "$or" else all)(holds(part, data) for part in wanted)
    if name == "$not":
        return not holds(wanted, data)
    value = data.get(name)
    if not isinstance(wanted, dict):
        return bool(wanted in value if isinstance(value, list) else value == wanted)
    ((operator, operand),) = wanted.items()
    if operator == "$exists":
        return bool((value is not None) == operand)
    return value is not None and bool(value in operand if operator == "$in" else value >= operand)


def starts(rule: dict[str, Any], event: dict[str, Any]) -> bool:
    """The model of a rule."""
    trigger, data, previous = rule["trigger"], event["data"], event["previous"]
    if not any(fnmatch(event["type"], kind) for kind in trigger["types"]):
        return False
    for name, change in (trigger.get("changed") or {}).items():
        if name not in data:
            return False
        if previous is None and data[name] in (None, []):
            return False
        if previous is not None and name not in previous:
            return False
        before = previous[name] if previous is not None else None
        for side, value in (("from", before), ("to", data[name])):
            if side in change and not any(
                wanted in value if isinstance(value, list) else value == wanted for wanted in change[side]
            ):
                return False
    condition = rule.get("condition")
    if condition is None:
        return True
    return event["type"].startswith("task.") and holds(condition, data)


def happen(client: httpx2.Client, project: Any, steps: list[Any]) -> None:
    """A history of three tasks; what cannot be done of it is refused, and so does not happen."""
    tasks = [a_task_in(client, project)["id"] for _ in range(3)]
    for index, what in steps:
        path = f"/v1/tasks/{tasks[index]}"
        if isinstance(what, dict):
            client.patch(path, json=what)
        elif what == "comment":
            client.post("/v1/comments", json={"task_id": tasks[index], "body": "A word"})
        elif what == "new":
            tasks[index] = a_task_in(client, project, labels=["a"], estimate=index)["id"]
        elif what == "delete":
            client.delete(path)
        elif what == "restore":
            client.post(f"{path}/restore")
        else:
            client.patch(path, json={"status": "completed" if what == "complete" else "pending"})


def wait_until_read(client: httpx2.Client, rule: Any, event: Any) -> None:
    until = time.monotonic() + PATIENCE
    while client.post(f"/v1/automations/{rule['id']}/explain", json={"event_id": event["id"]}).json()["pending"]:
        assert time.monotonic() < until
        time.sleep(0.02)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(st.lists(RULES, min_size=4, max_size=6), st.lists(STEPS, min_size=8, max_size=16))
def test_a_preview_is_what_runs_and_what_a_plain_replay_computes(api, rules, steps):
    project = create(api, "projects", name="A project")
    mark = marks(api)
    made = [
        create(
            api,
            "automations",
            name="A rule",
            project_id=project["id"],
            actions=[STOP],
            mode="parallel",
            trigger={"on": "event", **rule["trigger"]},
            condition=rule.get("condition"),
        )
        for rule in rules
        if not excludes_nothing(api, rule)
    ]
    rules = [{"trigger": one["trigger"], "condition": one["condition"]} for one in made]
    happen(api, project, steps)
    api.patch(f"/v1/projects/{project['id']}", json={"name": "The end"})
    history = everything(api, "events", project_id=project["id"])
    history.sort(key=lambda event: event["seq"])
    for rule, one in zip(made, rules, strict=True):
        wait_until_read(api, rule, history[-1])
        model = [event["id"] for event in history if event["seq"] > mark and starts(one, event)]
        found = previewed(api, automation_id=rule["id"], after_seq=mark, trials=0)
        ran = [run["event_id"] for run in reversed(runs_of(api, rule))]
        assert [start["event_id"] for start in found["starts"]] == model, one
        assert ran == model, one
        assert (found["count"], found["next_after_seq"]) == (len(model), None)
        for event in history:
            answer = api.post(f"/v1/automations/{rule['id']}/explain", json={"event_id": event["id"]}).json()
            if answer["version"] is not None:
                assert answer["starts"] == (event["id"] in model), (one, answer)
    for rule in made:
        api.delete(f"/v1/automations/{rule['id']}")


def excludes_nothing(client: httpx2.Client, rule: Any) -> bool:
    """Whether the server refuses a rule: a condition that is always true, or that no wanted event can satisfy."""
    body = {
        "name": "A rule",
        "trigger": {"on": "event", **rule["trigger"]},
        "actions": [STOP],
        "condition": rule.get("condition"),
    }
    return client.post("/v1/automations?dry_run=true", json=body).status_code == 422
