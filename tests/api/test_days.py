"""Days are somebody's days: time zones of people and workspaces, and what dates and `today` mean in them.

Why the expected values are computed with `zoneinfo` here: a server that asked itself would always be right.
"""

import json
from datetime import UTC, datetime, timedelta

import pytest

from tests.api.asking import codes, create, everything, listed, names, pages, problem
from tests.support import recurring, rfc5545
from tests.support.receiver import Receiver

NEW_YORK = {
    "all day 1 Dec": "2026-12-01",
    "all day 2 Dec": "2026-12-02",
    "1 Dec 09:00": "2026-12-01T09:00:00-05:00",
    "1 Dec 20:00": "2026-12-01T20:00:00-05:00",
    "30 Nov 20:00": "2026-11-30T20:00:00-05:00",
}


@pytest.fixture
def in_new_york(api, a_project):
    """Tasks as somebody in New York has them, and the question which of them a filter finds."""
    tasks = [{"name": name, "due_date": due} for name, due in NEW_YORK.items()]
    create(api, "tasks/bulk", project_id=a_project["id"], tasks=tasks)
    return lambda **params: names(api, "tasks", project_id=a_project["id"], **params)


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York", "UTC"])
def test_the_ends_of_the_calendar_may_be_asked_for_in_any_zone(in_new_york, api, a_project, home, zone):
    everyone, begin, end = sorted(NEW_YORK), "0001-01-01", "9999-12-31"
    assert in_new_york(timezone=zone, **{"due_date[$lt]": begin}) == []
    assert sorted(in_new_york(timezone=zone, **{"due_date[$gte]": begin, "due_date[$lte]": end})) == everyone
    assert in_new_york(timezone=zone, **{"due_date[$gt]": end}) == []
    asked = {"filter": {"project_id": a_project["id"], "due_date": {"$gte": begin, "$lte": end}}, "timezone": zone}
    assert len(api.post("/v1/tasks/query", json=asked).raise_for_status().json()) == len(everyone)
    for place in (begin, "9999-12-31"):
        listed(api, "audit", workspace_id=home, limit=1, timezone=zone, **{"from": place})
        listed(api, "audit", workspace_id=home, limit=1, timezone=zone, to=place)


def test_whose_days_are_far_from_utc_may_name_the_ends_of_the_calendar_everywhere(a_team, api):
    workspace, person = a_team
    far = person.client
    far.patch(f"/v1/users/{person.id}", json={"timezone": "Asia/Tokyo"}).raise_for_status()
    project = create(far, "projects", name="Far away", workspace_id=workspace)["id"]
    create(far, "tasks", name="One", project_id=project, due_date="2026-12-01")
    for begin, number in (("0001-01-01", 0), ("9999-12-31", 1)):
        condition = {"project_id": project, "due_date": {"$lt": begin}}
        done = far.patch("/v1/tasks/bulk", json={"filter": condition, "set": {"priority": "high"}}).raise_for_status()
        assert len(done.json()) == number
        told = listed(far, "events", workspace_id=workspace, types="task.*", filter=json.dumps(condition))
        assert bool(told) == bool(number)


FIRST = ["all day 1 Dec", "1 Dec 09:00", "1 Dec 20:00"]


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        ({"due_date": "2026-12-01"}, FIRST),
        ({"due_date[$gte]": "2026-12-01", "due_date[$lt]": "2026-12-02"}, FIRST),
        ({"due_date[$gte]": "2026-12-01T00:00:00-05:00", "due_date[$lt]": "2026-12-02T00:00:00-05:00"}, FIRST),
        ({"due_date[$lt]": "2026-12-01"}, ["30 Nov 20:00"]),
        ({"due_date[$lte]": "2026-12-01"}, [*FIRST, "30 Nov 20:00"]),
        ({"due_date[$gt]": "2026-12-01"}, ["all day 2 Dec"]),
        ({"due_date[$ne]": "2026-12-01"}, ["all day 2 Dec", "30 Nov 20:00"]),
        ({"due_date[$in]": ["2026-12-01", "2026-12-02"]}, [*FIRST, "all day 2 Dec"]),
    ],
)
def test_a_date_is_that_day_in_the_zone(in_new_york, condition, wanted):
    assert sorted(in_new_york(timezone="America/New_York", **condition)) == sorted(wanted)


def test_without_a_zone_days_are_those_of_utc(in_new_york):
    assert sorted(in_new_york(due_date="2026-12-01")) == ["1 Dec 09:00", "30 Nov 20:00", "all day 1 Dec"]


@pytest.fixture
def a_team(api, invite):
    """A workspace of its own, with somebody in it who has no other."""
    workspace = create(api, "workspaces", name="A team far away")["id"]
    return workspace, invite("admin", workspace_id=workspace)


def test_the_parameter_wins_over_the_user_and_the_user_over_the_workspace(api, a_team):
    workspace, ana = a_team
    project = create(ana.client, "projects", name="Days", workspace_id=workspace)["id"]
    tasks = [{"name": name, "due_date": due} for name, due in NEW_YORK.items()]
    create(ana.client, "tasks/bulk", project_id=project, tasks=tasks)

    def found(**params):
        return set(names(ana.client, "tasks", due_date="2026-12-01", **params))

    assert "1 Dec 20:00" not in found()
    assert api.patch(f"/v1/workspaces/{workspace}", json={"timezone": "America/New_York"}).status_code == 200
    assert found() == set(FIRST)
    assert ana.client.patch(f"/v1/users/{ana.id}", json={"timezone": "Asia/Tokyo"}).json()["timezone"] == "Asia/Tokyo"
    assert found() == {"all day 1 Dec", "30 Nov 20:00", "1 Dec 09:00"}
    assert found(timezone="America/New_York") == set(FIRST)
    ana.client.patch(f"/v1/users/{ana.id}", json={"timezone": None})
    assert found() == set(FIRST)
    # The workspace that a list names is the one that decides, whichever is the caller's own.
    theirs = names(api, "tasks", workspace_id=workspace, due_date="2026-12-01")
    assert set(theirs) == set(FIRST)


def test_there_are_zones_everywhere_and_no_other_ones(api, home, a_project, me):
    for answer, place in [
        (api.get("/v1/tasks", params={"timezone": "Berlin"}), {"parameter": "timezone"}),
        (api.post("/v1/tasks/query", json={"timezone": "europe/berlin"}), {"pointer": "/timezone"}),
        (api.get("/v1/audit", params={"timezone": "CEST+2"}), {"parameter": "timezone"}),
    ]:
        [issue] = problem(answer, 400)["errors"]
        assert issue["code"] == "unknown_timezone" and place.items() <= issue.items()
    [issue] = problem(api.get("/v1/tasks?timezone=europe/berlin"), 400)["errors"]
    assert 'Did you mean "Europe/Berlin"?' in issue["detail"]
    for path in (f"users/{me['id']}", f"workspaces/{home}"):
        [issue] = problem(api.patch(f"/v1/{path}", json={"timezone": "Mars/Olympus"}), 422)["errors"]
        assert (issue["code"], issue["pointer"]) == ("unknown_timezone", "/timezone")


# ---- every day on which a clock is changed ---------------------------------------------------------------------------

SIX = (
    "Europe/Berlin",
    "America/New_York",
    "America/Santiago",
    "Australia/Lord_Howe",
    "Africa/Cairo",
    "Africa/Casablanca",
)


def utc(moment):
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@pytest.mark.parametrize("name", SIX)
def test_the_days_of_a_change_are_as_long_as_the_clock_says(api, a_project, name):
    place = rfc5545.zone(name)
    days = [rfc5545.shown(change, place).date() for change in recurring.changes(name, 2024, 2031)]
    tasks = {}
    for day in days:
        noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
        for minutes in range(-36 * 60, 37 * 60, 90):
            for moment in (noon + timedelta(minutes=minutes), noon + timedelta(minutes=minutes, milliseconds=-1)):
                tasks[utc(moment)] = rfc5545.shown(moment, place).date()
        for distance in (-1, 0, 1):
            tasks[str(day + timedelta(distance))] = day + timedelta(distance)
    entries = [{"name": due, "due_date": due} for due in tasks]
    for place_in_list in range(0, len(entries), 1000):
        some = entries[place_in_list : place_in_list + 1000]
        create(api, "tasks/bulk", project_id=a_project["id"], tasks=some)

    def found(**condition):
        question = {"project_id": a_project["id"], "fields": "name", "limit": 1000, "timezone": name}
        return {task["name"] for page in pages(api, "tasks", **question, **condition) for task in page}

    for day in days:
        text = str(day)
        assert found(due_date=text) == {due for due, theirs in tasks.items() if theirs == day}
        before, behind = found(**{"due_date[$lt]": text}), found(**{"due_date[$gt]": text})
        assert before == {due for due, theirs in tasks.items() if theirs < day}
        assert behind == {due for due, theirs in tasks.items() if theirs > day}
        assert found(**{"due_date[$gte]": text}) == set(tasks) - before
        assert found(**{"due_date[$lte]": text}) == set(tasks) - behind


def test_what_is_overdue_depends_on_where_one_is(api, a_project):
    """Between the first and the last zone it is never the same day."""
    east, west = "Pacific/Kiritimati", "Pacific/Pago_Pago"
    while True:
        today = {name: rfc5545.shown(datetime.now(UTC), rfc5545.zone(name)).date() for name in (east, west)}
        project = create(api, "projects", name="Overdue")["id"]
        tasks = [
            {"name": f"{name} {distance:+}", "due_date": str(today[name] + timedelta(distance))}
            for name in today
            for distance in (-1, 0)
        ]
        create(api, "tasks/bulk", project_id=project, tasks=tasks)
        answers = {}
        for name in today:
            for condition in ("today", "now"):
                asked = {"project_id": project, "timezone": name, "due_date[$lt]": condition}
                answers[name, condition] = {
                    task for task in names(api, "tasks", **asked) if task.startswith(name) or name == east
                }
            asked = {"project_id": project, "timezone": name, "due_date": "today"}
            answers[name, "on"] = {task for task in names(api, "tasks", **asked) if task.startswith(name)}
        if today == {name: rfc5545.shown(datetime.now(UTC), rfc5545.zone(name)).date() for name in today}:
            break
    assert answers[west, "today"] == answers[west, "now"] == {f"{west} -1"}
    # What is due today in the west is overdue in the east already.
    assert answers[east, "today"] == answers[east, "now"] == {f"{west} -1", f"{west} +0", f"{east} -1"}
    assert answers[east, "on"] == {f"{east} +0"} and answers[west, "on"] == {f"{west} +0"}


# ---- wherever a filter stands ----------------------------------------------------------------------------------------


def test_changes_of_many_mean_the_days_of_the_zone(api, in_new_york, a_project):
    condition = {"project_id": a_project["id"], "due_date": "2026-12-01"}
    changed = api.patch(
        "/v1/tasks/bulk", json={"filter": condition, "timezone": "America/New_York", "set": {"labels": ["that day"]}}
    )
    assert changed.status_code == 200, changed.text
    assert sorted(in_new_york(labels="that day")) == sorted(FIRST)
    body = {"filter": {**condition, "labels": "that day"}, "timezone": "Asia/Tokyo"}
    gone = api.request("DELETE", "/v1/tasks/bulk", json=body)
    assert sorted(task["name"] for task in gone.json()) == ["1 Dec 09:00", "all day 1 Dec"]
    [issue] = problem(api.patch("/v1/tasks/bulk", json={**body, "timezone": "Tokyo", "set": {}}), 400)["errors"]
    assert (issue["code"], issue["pointer"]) == ("unknown_timezone", "/timezone")
    ids = {"ids": [task["id"] for task in gone.json()], "timezone": "Asia/Tokyo"}
    assert problem(api.request("DELETE", "/v1/tasks/bulk", json=ids), 422)["errors"][0]["pointer"] == "/timezone"


def test_a_query_and_its_pages_mean_the_days_of_the_zone(api, in_new_york, a_project):
    body = {
        "filter": {"project_id": a_project["id"], "due_date": "2026-12-01"},
        "timezone": "America/New_York",
        "limit": 2,
        "sort": "due_date",
    }
    first = api.post("/v1/tasks/query", json=body)
    cursor = first.headers["link"].partition("cursor=")[2].partition(">")[0].partition("&")[0]
    second = api.post("/v1/tasks/query", json={**body, "cursor": cursor})
    assert sorted(task["name"] for task in [*first.json(), *second.json()]) == sorted(FIRST)
    other = problem(api.post("/v1/tasks/query", json={**body, "cursor": cursor, "timezone": "Asia/Tokyo"}), 400)
    assert codes(other) == ["cursor_of_another_query"]


def test_a_webhook_means_the_days_of_its_owner(a_team):
    workspace, ana = a_team
    ana.client.patch(f"/v1/users/{ana.id}", json={"timezone": "America/New_York"})
    project = create(ana.client, "projects", name="Days", workspace_id=workspace)["id"]
    with Receiver() as receiver:
        create(
            ana.client,
            "webhooks",
            url=receiver.url,
            events=["task.created"],
            project_id=project,
            filter={"due_date": "2026-12-01"},
        )
        tasks = [{"name": name, "due_date": due} for name, due in NEW_YORK.items()]
        create(ana.client, "tasks/bulk", project_id=project, tasks=tasks)
        heard = [found.event["data"]["name"] for found in receiver.wait(len(FIRST))]
    assert sorted(heard) == sorted(FIRST)


def test_the_past_begins_with_the_day_of_who_asks(a_team):
    """In the last zone a day begins almost a day after it began in the first."""
    workspace, ana = a_team
    made = create(ana.client, "projects", name="Days", workspace_id=workspace)
    for zone in ("Pacific/Pago_Pago", "Pacific/Kiritimati"):
        ana.client.patch(f"/v1/users/{ana.id}", json={"timezone": zone})
        today = rfc5545.shown(datetime.now(UTC), rfc5545.zone(zone)).date()
        # Just now it did not exist when that day began, and a day that is still to come there is refused.
        assert ana.client.get(f"/v1/projects/{made['id']}", params={"as_of": str(today)}).status_code == 404
        tomorrow = ana.client.get(f"/v1/projects/{made['id']}", params={"as_of": str(today + timedelta(2))})
        assert codes(problem(tomorrow, 400)) == ["out_of_range"]


# ---- recurring -------------------------------------------------------------------------------------------------------


@pytest.fixture
def berlin(a_team):
    """Somebody in Berlin, and a project of theirs."""
    workspace, ana = a_team
    assert ana.client.patch(f"/v1/users/{ana.id}", json={"timezone": "Europe/Berlin"}).status_code == 200
    return ana.client, create(ana.client, "projects", name="Weekly", workspace_id=workspace)["id"]


def complete(client, task):
    done = client.post(f"/v1/tasks/{task['id']}/complete")
    assert done.status_code == 200, done.text
    return done.json()


def the_open_one(client, project, **params):
    [task] = listed(client, "tasks", project_id=project, completed_at="null", **params)
    return task


def test_a_task_recurs_at_the_same_local_time_whoever_completes_it(api, berlin):
    client, project = berlin
    made = create(
        client,
        "tasks",
        name="Stand-up",
        project_id=project,
        recurrence="FREQ=WEEKLY;BYDAY=MO",
        start_date="2026-10-19T08:30:00+02:00",
        due_date="2026-10-19T09:00:00+02:00",
    )
    assert made["timezone"] == "Europe/Berlin"
    for due, start in [("2026-10-26T08:00", "2026-10-26T07:30"), ("2026-11-02T08:00", "2026-11-02T07:30")]:
        complete(api, the_open_one(client, project))  # by somebody whose days are those of UTC
        following = the_open_one(client, project)
        assert (following["due_date"][:16], following["start_date"][:16]) == (due, start)
        assert following["timezone"] == "Europe/Berlin"


def test_a_rule_counts_in_the_zone_that_its_task_is_given(api, a_project):
    body = {"project_id": a_project["id"], "recurrence": "FREQ=WEEKLY;BYDAY=MO"}
    made = create(api, "tasks", name="x", due_date="2026-11-30T20:00:00-05:00", timezone="America/New_York", **body)
    complete(api, made)
    assert the_open_one(api, a_project["id"])["due_date"] == "2026-12-08T01:00:00.000Z"
    refused = api.post("/v1/tasks", json={"name": "x", "timezone": "New York", **body})
    assert codes(problem(refused, 422)) == ["unknown_timezone"]
    assert create(api, "tasks", name="x", **body)["timezone"] == "UTC"
    assert create(api, "tasks", name="x", project_id=a_project["id"])["timezone"] is None


def test_a_task_may_recur_from_its_completion(berlin):
    client, project = berlin
    made = create(
        client,
        "tasks",
        name="Water",
        project_id=project,
        due_date="2024-01-15",
        start_date="2024-01-13",
        recurrence="FREQ=DAILY;INTERVAL=3",
        recurrence_from="completion",
    )
    done = complete(client, made)
    day = rfc5545.shown(datetime.fromisoformat(done["completed_at"]), rfc5545.zone("Europe/Berlin")).date()
    following = the_open_one(client, project)
    assert (following["due_date"], following["start_date"]) == (str(day + timedelta(3)), str(day + timedelta(1)))
    assert following["recurrence_from"] == "completion"
    refused = client.patch(f"/v1/tasks/{following['id']}", json={"recurrence_from": "due"})
    assert codes(problem(refused, 422)) == ["not_allowed"]


def test_a_day_is_on_no_side_of_a_time_that_lies_on_it(berlin):
    client, project = berlin
    late = {"start_date": "2026-12-01T23:30:00+01:00", "due_date": "2026-12-01"}
    for path in ("tasks", "projects"):
        assert client.post(f"/v1/{path}", json={"name": "x", **late}).status_code == 201
        crossing = {"start_date": "2026-12-02T00:30:00+01:00", "due_date": "2026-12-01"}
        assert codes(problem(client.post(f"/v1/{path}", json={"name": "x", **crossing}), 422)) == ["invalid_range"]
    assert project


# ---- what comes along ------------------------------------------------------------------------------------------------


@pytest.fixture
def a_review(berlin):
    """A weekly review with what has to be done for it, some of it done."""
    client, project = berlin
    review = create(
        client,
        "tasks",
        name="Review",
        project_id=project,
        due_date="2026-10-23T16:00:00+02:00",
        recurrence="FREQ=WEEKLY",
    )
    inbox = create(client, "tasks", name="Inbox zero", parent_id=review["id"], due_date="2026-10-22", labels=["a"])
    plan = create(
        client,
        "tasks",
        name="Plan",
        parent_id=review["id"],
        blocked_by=[inbox["id"]],
        start_date="2026-10-23T09:00:00+02:00",
        assignee="me",
    )
    create(client, "tasks", name="Ask", parent_id=plan["id"], position=None)
    complete(client, inbox)
    return review


def tree(client, parent):
    """What lies below a task, by name."""
    return {task["name"]: task for task in listed(client, "tasks", parent_id=parent["id"])}


def test_subtasks_come_along_open(berlin, a_review):
    client, project = berlin
    complete(client, a_review)
    following = the_open_one(client, project, parent_id="null")
    assert following["due_date"] == "2026-10-30T15:00:00.000Z"
    below = tree(client, following)
    assert list(below) == ["Inbox zero", "Plan"]
    assert all(task["status"] == "pending" and task["completed_at"] is None for task in below.values())
    assert (below["Inbox zero"]["due_date"], below["Inbox zero"]["labels"]) == ("2026-10-29", ["a"])
    assert below["Plan"]["start_date"] == "2026-10-30T08:00:00.000Z"
    assert below["Plan"]["assignee"] == below["Inbox zero"]["created_by"]
    assert below["Plan"]["blocked_by"] == [below["Inbox zero"]["id"]]
    assert list(tree(client, below["Plan"])) == ["Ask"]
    left = tree(client, a_review)
    assert {name: bool(task["completed_at"]) for name, task in left.items()} == {"Inbox zero": True, "Plan": False}
    complete(client, following)
    assert len(tree(client, the_open_one(client, project, parent_id="null"))) == 2


def test_each_of_them_is_told(berlin, a_review, a_team):
    client, project = berlin
    before = int(client.get("/v1/events", params={"after": "latest", "workspace_id": a_team[0]}).headers["next-after"])
    complete(client, a_review)
    events = everything(client, "events", after=before, workspace_id=a_team[0])
    assert [event["type"] for event in events if event["type"] == "task.created"] == ["task.created"] * 4
    assert project


@pytest.mark.parametrize("kind", ["task.completed", "task.updated", "the request"])
def test_undoing_the_completion_takes_all_of_them_back(berlin, a_review, kind):
    client, project = berlin
    before = {task["id"]: task["recurrence"] for task in listed(client, "tasks", project_id=project)}
    complete(client, a_review)
    event = next(
        one
        for one in everything(client, "events", object_id=a_review["id"], after=0)
        if one["type"] == ("task.completed" if kind == "the request" else kind)
    )
    if kind == "the request":
        undone = client.post("/v1/events/revert", json={"request_id": event["request_id"]})
    else:
        undone = client.post(f"/v1/events/{event['id']}/revert")
    assert undone.status_code == 200, undone.text
    assert {task["id"]: task["recurrence"] for task in listed(client, "tasks", project_id=project)} == before
    complete(client, a_review)
    assert len(tree(client, the_open_one(client, project, parent_id="null"))) == 2


def test_a_subtask_with_a_rule_of_its_own_comes_along_once(berlin):
    client, project = berlin
    week = create(client, "tasks", name="Week", project_id=project, due_date="2026-11-06", recurrence="FREQ=WEEKLY")
    daily = create(client, "tasks", name="Daily", parent_id=week["id"], due_date="2026-11-02", recurrence="FREQ=DAILY")
    complete(client, daily)
    [second] = [task for task in listed(client, "tasks", parent_id=week["id"]) if task["completed_at"] is None]
    complete(client, second)
    complete(client, week)
    following = the_open_one(client, project, parent_id="null")
    [below] = listed(client, "tasks", parent_id=following["id"])
    assert (below["due_date"], below["recurrence"]) == ("2026-11-11", "FREQ=DAILY")


@pytest.mark.parametrize("count", [1, 2, 3])
def test_of_a_series_that_is_over_the_last_one_comes_along(berlin, count):
    client, project = berlin
    week = create(client, "tasks", name="Week", project_id=project, due_date="2026-11-06", recurrence="FREQ=WEEKLY")
    create(
        client,
        "tasks",
        name="Some days",
        parent_id=week["id"],
        due_date="2026-11-02",
        recurrence=f"FREQ=DAILY;COUNT={count}",
    )
    for number in range(count):
        [still] = [task for task in listed(client, "tasks", parent_id=week["id"]) if task["completed_at"] is None]
        if number == count - 1:
            last = still
            create(client, "tasks", name="Not done yet", parent_id=last["id"])
        complete(client, still)
    before = listed(client, "tasks", parent_id=week["id"])
    assert len(before) == count and all(task["completed_at"] for task in before)
    complete(client, week)
    following = the_open_one(client, project, name="Week")
    [below] = listed(client, "tasks", parent_id=following["id"])
    assert (below["name"], below["completed_at"]) == ("Some days", None)
    assert below["due_date"] == str(datetime.fromisoformat(last["due_date"]).date() + timedelta(7))
    assert [task["name"] for task in listed(client, "tasks", parent_id=below["id"])] == ["Not done yet"]


def change_together(client, *changes):
    response = client.patch("/v1/tasks/bulk", json={"tasks": list(changes)})
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("order", [1, -1])
def test_what_leaves_or_enters_in_the_same_request_is_seen(berlin, order):
    client, project = berlin
    week = create(client, "tasks", name="Week", project_id=project, due_date="2026-11-06", recurrence="FREQ=WEEKLY")
    stays, leaves = (create(client, "tasks", name=name, parent_id=week["id"]) for name in ("Stays", "Leaves"))
    create(client, "tasks", name="Below what leaves", parent_id=leaves["id"])
    enters, goes_down = (create(client, "tasks", name=name, project_id=project) for name in ("Enters", "Goes down"))
    create(client, "tasks", name="Below what enters", parent_id=enters["id"])
    changes = [
        {"id": leaves["id"], "parent_id": None},
        {"id": enters["id"], "parent_id": week["id"]},
        {"id": goes_down["id"], "parent_id": stays["id"]},
        {"id": week["id"], "status": "completed"},
    ]
    change_together(client, *changes[::order])
    following = the_open_one(client, project, name="Week")
    below = tree(client, following)
    assert sorted(below) == ["Enters", "Stays"]
    assert list(tree(client, below["Enters"])) == ["Below what enters"]
    assert list(tree(client, below["Stays"])) == ["Goes down"]
    assert len(listed(client, "tasks", name="Below what leaves", project_id=project)) == 1


def test_what_goes_to_another_project_in_the_same_request_is_left_out(berlin, a_team):
    client, project = berlin
    other = create(client, "projects", name="Other", workspace_id=a_team[0])["id"]
    week = create(client, "tasks", name="Week", project_id=project, due_date="2026-11-06", recurrence="FREQ=WEEKLY")
    stays, leaves = (create(client, "tasks", name=name, parent_id=week["id"]) for name in ("Stays", "Leaves"))
    change_together(client, {"id": leaves["id"], "project_id": other}, {"id": week["id"], "status": "completed"})
    assert list(tree(client, the_open_one(client, project, name="Week"))) == [stays["name"]]
    assert [task["parent_id"] for task in listed(client, "tasks", project_id=other)] == [None]


def test_another_zone_may_not_put_the_start_behind_the_end(berlin):
    """In New York the time lies on the day, in UTC it is behind it."""
    client, project = berlin
    dates = {"start_date": "2026-11-30T20:00:00-05:00", "due_date": "2026-11-30"}
    task = create(client, "tasks", name="Late", project_id=project, timezone="America/New_York", **dates)
    posted = client.post("/v1/tasks", json={"name": "Late", "project_id": project, "timezone": "UTC", **dates})
    assert codes(problem(posted, 422)) == ["invalid_range"]
    for path, body in (
        (f"/v1/tasks/{task['id']}", {"timezone": "UTC"}),
        (f"/v1/tasks/{task['id']}", {"timezone": None}),
        ("/v1/tasks/bulk", {"ids": [task["id"]], "set": {"timezone": "UTC"}}),
    ):
        assert codes(problem(client.patch(path, json=body), 422)) == ["invalid_range"], body
    changed = client.patch(f"/v1/tasks/{task['id']}", json={"timezone": "Pacific/Pago_Pago"})
    assert (changed.status_code, changed.json()["timezone"]) == (200, "Pacific/Pago_Pago")


def test_more_subtasks_than_one_request_may_write_are_refused(berlin):
    client, project = berlin
    many = create(client, "tasks", name="Many", project_id=project, due_date="2026-11-06", recurrence="FREQ=WEEKLY")
    for _ in range(5):
        create(client, "tasks/bulk", tasks=[{"name": "x", "parent_id": many["id"]}] * 1000)
    assert client.patch(f"/v1/tasks/{many['id']}", json={"status": "in_progress"}).status_code == 200
    refused = client.post(f"/v1/tasks/{many['id']}/complete")
    assert refused.status_code == 422, refused.text
    assert client.patch(f"/v1/tasks/{many['id']}", json={"recurrence": None}).status_code == 200
    assert complete(client, many)["completed_at"]
