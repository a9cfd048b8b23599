"""Webhooks over HTTP: what is registered, what is sent, what proves it, and what is on record afterwards."""

import hashlib
import hmac
import json
import time

import pytest
from taskade_server.kit import ids, webhook_signatures

from tests.api.asking import create, problem
from tests.support.receiver import Receiver

SECRET = "your_webhook_secret"


@pytest.fixture
def receiver():
    with Receiver() as found:
        yield found


@pytest.fixture
def hook(api, a_project):
    """Makes a webhook about `a_project`, which is gone afterwards."""
    made = []

    def make(url, **more):
        body = {"url": url, "events": ["task.*"], "project_id": a_project["id"], "secret": SECRET, **more}
        made.append(create(api, "webhooks", **body))
        return made[-1]

    yield make
    for webhook in made:
        api.delete(f"/v1/webhooks/{webhook['id']}")


@pytest.fixture
def deliveries(api):
    """The deliveries of a webhook, once there are so many that are over (or, with `state`, in that state)."""

    def read(webhook, count, state="succeeded,failed"):
        until = time.monotonic() + 60
        while True:
            found = api.get(f"/v1/webhooks/{webhook['id']}/deliveries", params={"state": state}).json()
            if len(found) >= count:
                return found
            assert time.monotonic() < until, found
            time.sleep(0.01)

    return read


def add(api, project, **body):
    return create(api, "tasks", **{"name": "A task", "project_id": project["id"], **body})


# ---- what is registered ----------------------------------------------------------------------------------------------


def test_the_secret_is_in_the_answer_to_the_creation_and_nowhere_else(api, hook, receiver, expect_events):
    with expect_events("webhook.created") as seen:
        webhook = hook(receiver.url)
    assert webhook["secret"] == SECRET and webhook["enabled"] and webhook["public_key"].startswith("whpk_")
    assert SECRET not in seen[0].data
    read = api.get(f"/v1/webhooks/{webhook['id']}")
    assert "secret" not in read.json() and SECRET not in read.text
    assert api.get(f"/v1/webhooks/{webhook['id']}/secret").json()["secret"] == SECRET


def test_the_secret_is_not_readable_in_the_database(hook, receiver, database_of):
    webhook = hook(receiver.url)
    row = database_of.read_sync(lambda tx: tx.one("SELECT secrets FROM webhooks WHERE id = ?", (webhook["id"],)))
    assert row[0] and SECRET not in row[0]


def test_a_repeated_creation_gives_the_same_secret(api, a_project, receiver):
    body = {"url": receiver.url, "project_id": a_project["id"], "events": ["task.*"]}
    headers = {"Idempotency-Key": ids.new("req")}
    first, second = (api.post("/v1/webhooks", json=body, headers=headers) for _ in range(2))
    assert second.headers["idempotent-replayed"] == "true" and first.json() == second.json()
    assert first.json()["secret"].startswith("whsec_")
    api.delete(f"/v1/webhooks/{first.json()['id']}")


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"url": "http://10.0.0.1/x"}, "/url"),
        ({"url": "http://169.254.169.254/"}, "/url"),
        ({"url": "ftp://example.com/"}, "/url"),
        ({"url": "https://user:word@example.com/"}, "/url"),
        ({"events": ["task.finished"]}, "/events/0"),
        ({"events": []}, "/events"),
        ({"filter": {"priority": "hgih"}}, "/filter/priority"),
        ({"filter": {"nonsense": 1}}, "/filter/nonsense"),
        ({"filter": {}}, "/filter"),
        ({"filter": {"custom_fields": {}}}, "/filter/custom_fields"),
        ({"filter": {"$and": [{}]}}, "/filter"),
        ({"filter": {"labels": {"$nin": []}}}, "/filter"),
        ({"headers": {"Host": "x"}}, "/headers/Host"),
        ({"headers": {"webhook-id": "x"}}, "/headers/webhook-id"),
        ({"headers": {"X-A": "a\r\nb"}}, "/headers/X-A"),
        ({"headers": {"X-A": 1}}, "/headers/X-A"),
        ({"secret": "short"}, "/secret"),
        ({"secret": 12345678}, "/secret"),
        ({"project_id": ids.new("proj")}, "/project_id"),
        ({"max_concurrency": 0}, "/max_concurrency"),
    ],
)
def test_what_cannot_be_registered(api, change, pointer):
    response = api.post("/v1/webhooks", json={"url": "https://example.com/", **change})
    assert pointer in [issue["pointer"] for issue in problem(response, 422)["errors"]]


def test_a_weaker_key_does_not_read_through_a_webhook(api, hook, receiver, key_with):
    webhook = hook(receiver.url)
    weak = key_with(["webhooks:write"])
    path = f"/v1/webhooks/{webhook['id']}"
    assert weak.get(path).status_code == 200
    problem(weak.get(f"{path}/secret"), 403)
    problem(weak.patch(path, json={"url": "https://example.com/mine"}), 403)
    problem(weak.post(f"{path}/rotate-secret"), 403)


# ---- what is sent ----------------------------------------------------------------------------------------------------


def test_an_event_arrives_signed(api, hook, receiver, a_project):
    webhook = hook(receiver.url, headers={"X-Environment": "tests"})
    task = add(api, a_project, custom_fields={"2024": 1.0, "b": 0.1})
    (found,) = receiver.wait(1)
    event = found.event
    assert event["type"] == "task.created" and event["data"] == task and event["previous_seq"] is None
    assert found.headers["webhook-id"] == event["id"]
    assert found.headers["x-environment"] == "tests" and found.headers["x-taskade-event"] == "task.created"
    expected = hmac.new(SECRET.encode(), found.body, hashlib.sha256).hexdigest()
    assert found.headers["x-taskade-signature"] == f"sha256={expected}"
    for key in (SECRET, webhook["public_key"]):
        webhook_signatures.verify(found.headers, found.body, [key], now=time.time())


def test_events_about_an_object_come_in_order_and_tell_of_gaps(api, hook, receiver, a_project):
    hook(receiver.url)
    task = add(api, a_project)
    for number in range(5):
        api.patch(f"/v1/tasks/{task['id']}", json={"name": f"Name {number}"})
    found = [received.event for received in receiver.wait(6)]
    assert [event["data"]["version"] for event in found] == [1, 2, 3, 4, 5, 6]
    assert [event["previous_seq"] for event in found] == [None, *(event["seq"] for event in found[:-1])]


def test_only_what_is_wanted(api, hook, receiver, a_project):
    hook(receiver.url, events=["task.created"], filter={"priority": {"$in": ["high", "urgent"]}, "labels": "x"})
    add(api, a_project, priority="low", labels=["x"])
    add(api, a_project, priority="high", labels=["y"])
    wanted = add(api, a_project, priority="urgent", labels=["x", "y"])
    create(api, "tasks", name="Elsewhere", priority="urgent", labels=["x"])
    last = add(api, a_project, priority="high", labels=["x"])
    # Events of different objects are sent side by side.
    assert sorted(found.event["data"]["id"] for found in receiver.wait(2)) == sorted([wanted["id"], last["id"]])


def test_what_its_owner_may_not_see_is_not_sent(api, an_admin, a_member, receiver, home):
    body = {"url": receiver.url, "events": ["task.created"], "workspace_id": home}
    webhook = create(a_member.client, "webhooks", **body)
    hidden = create(api, "projects", name="Hidden", visibility="private")
    shown = create(api, "projects", name="Shown")
    add(api, hidden, name="Hidden")
    add(api, shown, name="Shown")
    names = [found.event["data"]["name"] for found in receiver.wait(1)]
    assert "Hidden" not in names and "Shown" in names
    assert an_admin.client.delete(f"/v1/webhooks/{webhook['id']}").status_code == 204


def test_a_batch_that_fails_sends_nothing(api, hook, receiver, a_project):
    hook(receiver.url)
    good = {"method": "POST", "path": "/tasks", "body": {"name": "x", "project_id": a_project["id"]}}
    bad = {"method": "POST", "path": "/tasks", "body": {"project_id": a_project["id"]}}
    problem(api.post("/v1/batch", json={"operations": [good, bad]}), 422)
    after = add(api, a_project, name="Afterwards")
    assert [found.event["data"]["id"] for found in receiver.wait(1)] == [after["id"]]


# ---- what becomes of it ----------------------------------------------------------------------------------------------


def test_a_success_on_record(api, hook, receiver, a_project, deliveries):
    webhook = hook(receiver.url)
    add(api, a_project)
    (delivery,) = deliveries(webhook, 1)
    assert delivery["state"] == "succeeded" and delivery["attempts"] == 1 and delivery["last_status"] == 200
    for name in (delivery["id"], delivery["event_id"]):
        whole = api.get(f"/v1/webhooks/{webhook['id']}/deliveries/{name}").json()
        (attempt,) = whole["attempt_log"]
        assert attempt["status"] == 200 and attempt["error"] is None and attempt["duration_ms"] > 0
        assert attempt["address"] in receiver.url
        assert ["webhook-id", delivery["event_id"]] in attempt["request_headers"]


@pytest.mark.parametrize(("status", "error"), [(500, "bad_status"), (404, "bad_status"), (302, "redirect")])
def test_a_failure_is_tried_again_and_its_reason_told(api, hook, receiver, a_project, deliveries, status, error):
    receiver.answer = lambda received: (status, {"Location": "http://127.0.0.1:1/"})
    webhook = hook(receiver.url)
    task = add(api, a_project)
    receiver.wait(1)
    api.patch(f"/v1/tasks/{task['id']}", json={"name": "Later"})
    first = deliveries(webhook, 2, "pending")[-1]
    while not first["attempts"]:
        first = api.get(f"/v1/webhooks/{webhook['id']}/deliveries/{first['id']}").json()
    assert first["last_error"] == error and first["last_status"] == status and first["next_attempt_at"]
    later = api.get(f"/v1/webhooks/{webhook['id']}/deliveries").json()[0]
    assert later["attempts"] == 0 and later["next_attempt_at"] is None, "it waits for the one before"


def test_a_retry_has_the_same_id_and_another_time(api, hook, receiver, a_project, deliveries):
    answers = iter([500])
    receiver.answer = lambda received: (next(answers, 200), {})
    webhook = hook(receiver.url)
    add(api, a_project)
    receiver.wait(1)
    (delivery,) = deliveries(webhook, 1, "pending,succeeded")
    assert api.post(f"/v1/webhooks/{webhook['id']}/deliveries/{delivery['id']}/resend").status_code == 202
    first, second = receiver.wait(2)
    assert first.body == second.body and first.headers["webhook-id"] == second.headers["webhook-id"]
    assert deliveries(webhook, 1)[0]["state"] == "succeeded"


def test_410_disables(api, hook, receiver, a_project, deliveries):
    receiver.answer = lambda received: (410, {})
    webhook = hook(receiver.url)
    add(api, a_project)
    assert deliveries(webhook, 1)[0]["state"] == "failed"
    found = api.get(f"/v1/webhooks/{webhook['id']}").json()
    assert not found["enabled"] and found["disabled_reason"] == "gone" and found["disabled_at"]
    problem(api.post(f"/v1/webhooks/{webhook['id']}/deliveries/{deliveries(webhook, 1)[0]['id']}/resend"), 409)


def test_what_happens_while_it_is_disabled_is_not_sent(api, hook, receiver, a_project):
    webhook = hook(receiver.url)
    path = f"/v1/webhooks/{webhook['id']}"
    api.patch(path, json={"enabled": False})
    add(api, a_project, name="Meanwhile")
    assert api.patch(path, json={"enabled": True}).json()["disabled_at"] is None
    add(api, a_project, name="Afterwards")
    assert [found.event["data"]["name"] for found in receiver.wait(1)] == ["Afterwards"]


def test_one_dead_endpoint_does_not_hold_up_another(api, hook, receiver, a_project):
    hook("http://127.0.0.1:59999/dead")
    hook(receiver.url)
    api.post(
        "/v1/tasks/bulk", json={"tasks": [{"name": f"Task {n}"} for n in range(50)], "project_id": a_project["id"]}
    )
    assert len({json.loads(found.body)["id"] for found in receiver.wait(50)}) == 50


def test_secrets_overlap_while_they_are_replaced(api, hook, receiver, a_project):
    webhook = hook(receiver.url)
    path = f"/v1/webhooks/{webhook['id']}/rotate-secret"
    fresh = api.post(path, json={"overlap_hours": 1}).json()
    assert fresh["previous"][0]["secret"] == SECRET
    add(api, a_project)
    (found,) = receiver.wait(1)
    for key in (SECRET, fresh["secret"]):
        webhook_signatures.verify(found.headers, found.body, [key], now=time.time())
    assert api.post(path, json={"overlap_hours": 0, "secret": "another_secret"}).json()["secret"] == "another_secret"
    problem(api.post(path, json={"overlap_hours": 1000}), 422)
    problem(api.post(path, json={"overlap": 1}), 422)


@pytest.mark.parametrize("query", ["state=done", "limit=0", "limit=x", "nonsense=1"])
def test_wrong_parameters_of_deliveries(api, hook, receiver, query):
    problem(api.get(f"/v1/webhooks/{hook(receiver.url)['id']}/deliveries?{query}"), 400)


def test_deliveries_come_page_by_page(api, hook, receiver, a_project, deliveries):
    webhook = hook(receiver.url)
    for number in range(5):
        add(api, a_project, name=f"Task {number}")
    newest = [delivery["seq"] for delivery in deliveries(webhook, 5)]
    assert newest == sorted(newest, reverse=True)
    found, url = [], f"/v1/webhooks/{webhook['id']}/deliveries?limit=2&state=succeeded"
    while url:
        response = api.get(url)
        found += [delivery["seq"] for delivery in response.json()]
        url = response.links.get("next", {}).get("url")
    assert found == newest


def test_deliveries_of_an_object_an_event_or_a_time(api, hook, receiver, a_project, deliveries):
    webhook = hook(receiver.url)
    tasks = [add(api, a_project, name=f"Task {number}") for number in range(3)]
    found = deliveries(webhook, 3)
    path = f"/v1/webhooks/{webhook['id']}/deliveries"
    asked = {"object_id": ",".join(task["id"] for task in tasks[:2])}
    assert {one["object_id"] for one in api.get(path, params=asked).json()} == {task["id"] for task in tasks[:2]}
    assert api.get(path, params={"event_id": found[0]["event_id"]}).json() == [found[0]]
    assert api.get(path, params={"after": found[0]["created_at"], "type": "task.created"}).json()[0] == found[0]
    assert api.get(path, params={"before": found[2]["created_at"]}).json() == []
    problem(api.get(path, params={"before": "yesterday"}), 400)
    problem(api.get(path, params={"cursor": ids.new("dlv")}), 400)


def test_a_thin_webhook_tells_only_what_happened_to_which_object(api, hook, receiver, a_project):
    hook(receiver.url, payload="thin")
    task = add(api, a_project, name="A secret name")
    (found,) = receiver.wait(1)
    assert found.event["data"] == {"id": task["id"]} and found.event["previous"] is None
    assert found.event["type"] == "task.created" and b"secret" not in found.body


def test_no_more_at_a_time_than_allowed(api, hook, a_project, receiver):
    under_way, most = [], []

    def slow(received):
        under_way.append(received)
        most.append(len(under_way))
        time.sleep(0.05)
        under_way.remove(received)
        return 200, {}

    receiver.answer = slow
    hook(receiver.url, max_concurrency=3, events=["task.created"])
    tasks = [{"name": f"Task {number}"} for number in range(20)]
    api.post("/v1/tasks/bulk", json={"tasks": tasks, "project_id": a_project["id"]})
    receiver.wait(20)
    assert 1 < max(most) <= 3


def test_retry_after_is_kept_and_others_wait_too(api, hook, receiver, a_project, deliveries):
    receiver.answer = lambda received: (429, {"Retry-After": "3600"})
    webhook = hook(receiver.url, max_concurrency=1)
    for number in range(3):
        add(api, a_project, name=f"Task {number}")
    receiver.wait(1)
    (first,) = [one for one in deliveries(webhook, 3, "pending") if one["attempts"]] or [None]
    while first is None:
        first = next((one for one in deliveries(webhook, 3, "pending") if one["attempts"]), None)
    assert first["last_status"] == 429
    health = api.get(f"/v1/webhooks/{webhook['id']}/health").json()
    assert health["pending"] == 3 and health["failing_since"] and health["paused_until"] > first["created_at"]
    assert len(receiver.received) == 1, "the endpoint asked to be left alone"


def test_a_webhook_that_is_deleted_or_changed_amid_its_retries(api, hook, receiver, a_project, deliveries):
    """What is sent again goes to the new address, signed with the new secret; after the end nothing is sent."""
    receiver.answer = lambda received: (500, {})
    webhook = hook(receiver.url)
    path = f"/v1/webhooks/{webhook['id']}"
    add(api, a_project)
    receiver.wait(1)
    with Receiver() as other:
        api.patch(path, json={"url": other.url})
        fresh = api.post(f"{path}/rotate-secret", json={"overlap_hours": 0}).json()["secret"]
        (delivery,) = deliveries(webhook, 1, "pending,succeeded")
        api.post(f"{path}/deliveries/{delivery['event_id']}/resend")
        (found,) = other.wait(1)
        webhook_signatures.verify(found.headers, found.body, [fresh], now=time.time())
        assert found.headers["webhook-id"] == receiver.received[0].headers["webhook-id"]
        assert len(deliveries(webhook, 1)) == 1
        add(api, a_project, name="The last")
        other.wait(2)
        assert api.delete(path).status_code == 204
        add(api, a_project, name="Not told any more")
        api.post("/v1/tasks", json={"name": "x"})
        problem(api.get(f"{path}/deliveries"), 404)
        assert len(other.received) == 2


# ---- tests, recovery, replays ----------------------------------------------------------------------------------------


def finished(api, webhook, replay):
    """A replay, once nothing of it is pending."""
    until = time.monotonic() + 60
    while True:
        found = api.get(f"/v1/webhooks/{webhook['id']}/replays/{replay['id']}").json()
        if found["state"] != "running" and not found["deliveries"]["pending"]:
            return found
        assert time.monotonic() < until, found
        time.sleep(0.02)


def test_a_test_is_sent_once(api, hook, receiver, deliveries):
    receiver.answer = lambda received: (500, {})
    webhook = hook(receiver.url, events=["task.created"])
    made = api.post(f"/v1/webhooks/{webhook['id']}/test")
    assert made.status_code == 202 and made.json()["type"] == "webhook.test"
    (found,) = receiver.wait(1)
    webhook_signatures.verify(found.headers, found.body, [SECRET], now=time.time())
    assert found.event["type"] == "webhook.test" and found.event["data"]["id"] == webhook["id"]
    assert found.headers["webhook-id"] == found.event["id"] == made.json()["event_id"]
    (over,) = deliveries(webhook, 1)
    assert over["state"] == "failed" and over["attempts"] == 1 and over["last_status"] == 500


def test_what_has_failed_is_recovered_in_order(api, hook, receiver, a_project, deliveries):
    """Four versions of a task and a few others meet an endpoint that is gone, and then is not."""
    webhook = hook(receiver.url)
    path = f"/v1/webhooks/{webhook['id']}"
    receiver.answer = lambda received: (410, {})
    task = add(api, a_project)
    assert deliveries(webhook, 1)[0]["state"] == "failed"
    api.patch(path, json={"enabled": True})
    receiver.answer = lambda received: (200, {})
    for number in range(3):
        api.patch(f"/v1/tasks/{task['id']}", json={"name": f"Name {number}"})
    deliveries(webhook, 3, "succeeded")
    replay = api.post(f"{path}/recover", json={"since": webhook["created_at"]})
    assert replay.status_code == 202 and replay.headers["location"].endswith(replay.json()["id"])
    over = finished(api, webhook, replay.json())
    assert over["queued"] == 1 and over["deliveries"]["succeeded"] == 1 and over["state"] == "done"
    versions = [found.event["data"]["version"] for found in receiver.received]
    assert versions == [1, 2, 3, 4, 1]
    problem(api.post(f"{path}/recover", json={}), 422)
    problem(api.post(f"{path}/recover", json={"since": "soon"}), 422)


def test_a_replay_sends_everything_in_order_with_the_same_ids(api, hook, receiver, a_project, deliveries):
    webhook = hook(receiver.url)
    task = add(api, a_project)
    for number in range(4):
        api.patch(f"/v1/tasks/{task['id']}", json={"name": f"Name {number}"})
    sent = deliveries(webhook, 5)
    replay = api.post(f"/v1/webhooks/{webhook['id']}/replay", json={"after_seq": sent[-1]["seq"] - 1}).json()
    assert finished(api, webhook, replay)["deliveries"] == {"pending": 0, "succeeded": 5, "failed": 0, "cancelled": 0}
    first, again = receiver.received[:5], receiver.received[5:]
    assert [one.headers["webhook-id"] for one in again] == [one.headers["webhook-id"] for one in first]
    assert [one.event["data"]["version"] for one in again] == [1, 2, 3, 4, 5]


def test_a_replay_of_what_was_missed_only(api, hook, receiver, a_project, deliveries):
    before = add(api, a_project, name="Before there was a webhook")
    webhook = hook(receiver.url, events=["task.created"])
    path = f"/v1/webhooks/{webhook['id']}"
    add(api, a_project, name="Told")
    api.patch(path, json={"enabled": False})
    between = add(api, a_project, name="While it was disabled")
    problem(api.post(f"{path}/replay", json={"after_seq": 0}), 409)
    api.patch(path, json={"enabled": True})
    deliveries(webhook, 1)
    replay = api.post(f"{path}/replay", json={"from": before["created_at"], "missing_only": True}).json()
    assert finished(api, webhook, replay)["queued"] == 2
    assert {found.event["data"]["id"] for found in receiver.wait(3)[1:]} == {before["id"], between["id"]}


def test_a_replay_is_cancelled_with_what_it_has_queued(api, hook, receiver, a_project, deliveries):
    webhook = hook(receiver.url, rate_limit=1)
    path = f"/v1/webhooks/{webhook['id']}"
    for number in range(3):
        add(api, a_project, name=f"Task {number}")
    receiver.wait(1)
    api.patch(path, json={"enabled": False})
    later = [add(api, a_project, name=f"Later {number}") for number in range(3)]
    api.patch(path, json={"enabled": True})
    replay = api.post(f"{path}/replay", json={"from": later[0]["created_at"], "missing_only": True}).json()
    twice = {"method": "POST", "path": f"{path.removeprefix('/v1')}/replay", "body": {"after_seq": 0}}
    problem(api.post("/v1/batch", json={"operations": [twice, twice]}), 409)
    while not (found := api.get(f"{path}/replays").json()[0])["queued"]:
        time.sleep(0.02)
    ended = api.post(f"{path}/replays/{replay['id']}/cancel").json()
    assert ended["deliveries"]["cancelled"] >= 2 and ended["deliveries"]["pending"] == 0, found
    problem(api.get(f"{path}/replays/{ids.new('rpl')}"), 404)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/after_seq"),
        ({"after_seq": "x"}, "/after_seq"),
        ({"after_seq": True}, "/after_seq"),
        ({"from": 5}, "/from"),
        ({"after_seq": 0, "events": []}, "/events"),
        ({"after_seq": 0, "events": ["task.finished"]}, "/events/0"),
        ({"after_seq": 0, "missing_only": 1}, "/missing_only"),
        ({"after_seq": 0, "afterseq": 1}, "/afterseq"),
    ],
)
def test_wrong_replays(api, hook, receiver, body, pointer):
    response = api.post(f"/v1/webhooks/{hook(receiver.url)['id']}/replay", json=body)
    assert pointer in [issue["pointer"] for issue in problem(response, 422)["errors"]]


def test_how_webhooks_are_doing_is_measured(server, api, hook, receiver, a_project, deliveries):
    webhook = hook(receiver.url)
    add(api, a_project)
    deliveries(webhook, 1)
    text = api.get("/metrics").text
    assert 'taskade_webhook_attempts_total{outcome="succeeded"}' in text
    for name in ("taskade_webhook_pending", "taskade_webhook_oldest_pending_seconds", "taskade_reader_lag_events"):
        assert f"\n{name}" in text
