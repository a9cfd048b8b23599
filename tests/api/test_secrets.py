"""Secrets: credentials of other systems that can be put in, used and replaced, and never read again.

Why every way in is tried together and then everything that comes out is searched: a value leaks where nobody thought of
it, and a test of one answer looks only where somebody did.
"""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import httpx2
import pytest
from taskade_server.kit import ids
from taskade_server.store.database import Database, Tx

from tests.api.asking import codes, create, everything, listed, places, problem
from tests.support.receiving import receiver
from tests.support.server import Server

NEEDLE = "n33dLe~Q7x/+Zk"
"""In every value of these tests that is looked for."""


def a_name() -> str:
    return f"s-{ids.new('x')[-12:]}"


def a_body(**more: Any) -> dict[str, Any]:
    return {"name": a_name(), "hosts": ["api.crm.example"], "value": f"{NEEDLE}-{ids.new('x')}", **more}


@pytest.fixture
def a_secret(api) -> Iterator[Any]:
    """A secret of the owner's."""
    made = create(api, "secrets", **a_body())
    yield made
    api.delete(f"/v1/secrets/{made['id']}")


def path_of(secret: Any) -> str:
    return f"/v1/secrets/{secret['id']}"


# ---- what it is ------------------------------------------------------------------------------------------------------


def test_a_secret_is_made_without_being_shown(api, me, home, expect_events):
    body = a_body(description="The token of the billing robot.")
    with expect_events("secret.created"):
        made = create(api, "secrets", **body)
    assert made["id"].startswith("sec_")
    assert {name: made[name] for name in ("name", "description", "hosts", "workspace_id", "user_id", "created_by")} == {
        "name": body["name"],
        "description": body["description"],
        "hosts": ["api.crm.example"],
        "workspace_id": home,
        "user_id": me["id"],
        "created_by": me["id"],
    }
    assert "value" not in made and made["value_set_at"] and made["version"] == 1
    assert api.get(path_of(made)).json() == made
    assert listed(api, "secrets", name=body["name"]) == [made]
    assert listed(api, "secrets", name=body["name"], include="user")[0]["user"]["id"] == me["id"]
    with expect_events("secret.deleted"):
        assert api.delete(path_of(made)).status_code == 204
    problem(api.get(path_of(made)), 404)


def test_hosts_are_kept_as_requests_name_them(api):
    given = ["API.CRM.Example.", "bücher.example", "api.crm.example", "192.0.2.1", "[2001:DB8::1]"]
    made = create(api, "secrets", **a_body(hosts=given))
    assert made["hosts"] == ["api.crm.example", "xn--bcher-kva.example", "192.0.2.1", "2001:db8::1"]
    again = api.patch(path_of(made), json={"hosts": given})
    assert again.status_code == 200 and again.json()["version"] == 1, "the same hosts are no change"
    api.delete(path_of(made))


FAULTS: dict[str, tuple[dict[str, Any], list[str], list[str]]] = {
    "no value": ({"value": ...}, ["/value"], ["required"]),
    "null for a value": ({"value": None}, ["/value"], ["required"]),
    "an empty value": ({"value": ""}, ["/value"], ["too_short"]),
    "a value that is no text": ({"value": [NEEDLE]}, ["/value"], ["wrong_type"]),
    "a value that is an object": ({"value": {NEEDLE: NEEDLE}}, ["/value"], ["wrong_type"]),
    "a value that is too long": ({"value": NEEDLE * 300}, ["/value"], ["too_long"]),
    "a value that is too long in UTF-8": ({"value": "ü" * 2049}, ["/value"], ["too_long"]),
    "no hosts": ({"hosts": ...}, ["/hosts"], ["required"]),
    "an empty list of hosts": ({"hosts": []}, ["/hosts"], ["required"]),
    "too many hosts": ({"hosts": [f"h{n}.example" for n in range(21)]}, ["/hosts"], ["too_many"]),
    "a wildcard": ({"hosts": ["a.example", "*.crm.example"]}, ["/hosts/1"], ["invalid_format"]),
    "a URL": ({"hosts": ["https://api.crm.example"]}, ["/hosts/0"], ["invalid_format"]),
    "a port": ({"hosts": ["api.crm.example:8443"]}, ["/hosts/0"], ["invalid_format"]),
    "no name": ({"name": ...}, ["/name"], ["required"]),
    "a name in capitals": ({"name": "CRM"}, ["/name"], ["invalid_format"]),
    "a name that begins with a digit": ({"name": "1crm"}, ["/name"], ["invalid_format"]),
    "a name that is too long": ({"name": "a" * 65}, ["/name"], ["too_long"]),
    "a value in the description": ({"description": f"It is {NEEDLE}-1.", "value": f"{NEEDLE}-1"}, ["/description"],
                                   ["not_allowed"]),
    "a user": ({"user_id": "user_00000000000000000000000000"}, ["/user_id"], ["read_only"]),
    "an unknown member": ({"scheme": NEEDLE}, ["/scheme"], ["unknown_field"]),
    "several": ({"name": "", "value": 1}, ["/name", "/value"], ["too_short", "wrong_type"]),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_each_fault_is_named_and_quotes_no_value(case, api, heads):
    change, where, what = FAULTS[case]
    body = {name: value for name, value in (a_body() | change).items() if value is not ...}
    before = heads()
    answer = api.post("/v1/secrets", json=body)
    document = problem(answer, 422)
    assert (places(document), codes(document)) == (where, what)
    assert NEEDLE not in answer.text
    assert heads() == before


def test_the_longest_value_is_taken(api):
    assert create(api, "secrets", **a_body(value="ü" * 2048))["version"] == 1


def test_a_name_is_given_once_in_a_workspace(api, a_secret, heads):
    other = create(api, "secrets", **a_body())
    elsewhere = create(api, "workspaces", name="Elsewhere")["id"]
    before = heads()
    taken = api.post("/v1/secrets", json=a_body(name=a_secret["name"]))
    assert codes(problem(taken, 409, "conflict")) == ["name_in_use"]
    assert codes(problem(api.patch(path_of(other), json={"name": a_secret["name"]}), 409)) == ["name_in_use"]
    assert heads() == before
    assert create(api, "secrets", **a_body(name=a_secret["name"], workspace_id=elsewhere))["version"] == 1
    renamed = api.patch(path_of(other), json={"name": a_name()})
    assert renamed.status_code == 200
    api.delete(path_of(other))
    assert create(api, "secrets", **a_body(name=renamed.json()["name"]))["version"] == 1, "it is free again"


def test_a_workspace_holds_so_many(api):
    workspace = create(api, "workspaces", name="Full")["id"]
    bodies = [a_body(workspace_id=workspace, name=f"s{number}") for number in range(200)]
    operations = [{"method": "POST", "path": "/secrets", "body": body} for body in bodies]
    assert api.post("/v1/batch", json={"operations": operations}).status_code == 200
    assert codes(problem(api.post("/v1/secrets", json=a_body(workspace_id=workspace)), 422)) == ["too_many"]


# ---- who may ---------------------------------------------------------------------------------------------------------


def test_members_see_that_it_is_there_and_guests_do_not(api, as_member, as_guest, outsider, key_with, a_secret, home):
    limited = key_with(["*"], project_ids=[create(api, "projects", name="P")["id"]])
    assert as_member.get(path_of(a_secret)).json() == a_secret
    for client in (as_guest, outsider, limited):
        problem(client.get(path_of(a_secret)), 404)
        assert listed(client, "secrets", id=a_secret["id"]) == []
        assert everything(client, "events", object_id=a_secret["id"]) == []
        problem(client.patch(path_of(a_secret), json={"description": "x"}), 404)
    assert [event["type"] for event in everything(as_member, "events", object_id=a_secret["id"])] == ["secret.created"]


def test_admins_write_and_members_do_not(api, an_admin, as_member, as_guest, key_with, a_secret, heads):
    before = heads()
    for client in (as_member, as_guest, key_with(["secrets:read"])):
        problem(client.post("/v1/secrets", json=a_body()), 403)
    for method, body in (("PATCH", {"description": "x"}), ("PATCH", {"value": "x"}), ("DELETE", None)):
        for client in (as_member, key_with(["secrets:read"])):
            problem(client.request(method, path_of(a_secret), json=body), 403)
    limited = key_with(["*"], project_ids=[create(api, "projects", name="P")["id"]])
    before = heads()
    problem(limited.post("/v1/secrets", json=a_body()), 403)
    assert heads() == before
    made = create(an_admin.client, "secrets", **a_body())
    assert made["user_id"] == an_admin.id
    assert api.delete(path_of(made)).status_code == 204, "who can do without a value may delete it"


# ---- changes ---------------------------------------------------------------------------------------------------------


def test_a_value_is_replaced(api, a_secret, expect_events):
    with expect_events("secret.updated") as seen:
        changed = api.patch(path_of(a_secret), json={"value": "another"})
    assert changed.status_code == 200 and changed.json()["version"] == 2
    assert "value" not in changed.json()
    assert set(json.loads(seen[0].previous or "")) >= {"version"}
    assert changed.json()["value_set_at"] >= a_secret["value_set_at"]


def test_nobody_can_try_which_value_it_is(api, as_member):
    """The right value and a wrong one are answered alike, by every way that compares."""
    value = f"{NEEDLE}-{ids.new('x')}"
    made = create(api, "secrets", **a_body(value=value))
    versions = [
        api.patch(path_of(made), json={"value": guess}).json()["version"] for guess in (value, value, "wrong", "wrong")
    ]
    assert versions == [2, 3, 4, 5], "the same value is a change, too"
    answers = []
    for guess in (value, "wrong"):
        api.patch(path_of(made), json={"value": value})
        for steps in (
            [{"op": "test", "path": "/value", "value": guess}],
            [{"op": "test", "path": "", "value": {**made, "value": guess}}],
            [{"op": "replace", "path": "/value", "value": guess}],
            [{"op": "remove", "path": "/value"}],
            [{"op": "copy", "from": "/value", "path": "/description"}],
            [{"op": "move", "from": "/value", "path": "/description"}],
        ):
            headers = {"content-type": "application/json-patch+json"}
            answer = api.patch(path_of(made), content=json.dumps(steps), headers=headers)
            document = answer.json()
            answers.append((guess, answer.status_code, document["code"], document["detail"], codes(document)))
            assert answer.status_code in (409, 422)
    half = len(answers) // 2
    assert [row[1:] for row in answers[:half]] == [row[1:] for row in answers[half:]]
    text = api.get(path_of(made)).text
    assert NEEDLE not in text
    problem(api.get("/v1/secrets", params={"value": value}), 400)
    for name in ("value", "sealed"):
        problem(api.post("/v1/secrets/query", json={"filter": {name: {"$exists": True}}}), 400)
        problem(api.get("/v1/secrets", params={"sort": name}), 400)
        problem(api.get("/v1/secrets", params={"fields": name}), 400)


def test_other_hosts_take_the_value(api, a_secret, expect_events, heads):
    before = heads()
    for hosts in (["evil.example"], ["api.crm.example", "evil.example"]):
        for method in ("PATCH", "PUT"):
            refused = problem(api.request(method, path_of(a_secret), json={"hosts": hosts}), 422)
            assert (places(refused), codes(refused)) == (["/value"], ["required"])
    steps = [{"op": "add", "path": "/hosts/-", "value": "evil.example"}]
    headers = {"content-type": "application/json-patch+json"}
    patched = api.patch(path_of(a_secret), content=json.dumps(steps), headers=headers)
    assert places(problem(patched, 422)) == ["/value"]
    inner = {"method": "PATCH", "path": f"/secrets/{a_secret['id']}", "body": {"hosts": ["evil.example"]}}
    problem(api.post("/v1/batch", json={"operations": [inner]}), 422)
    assert heads() == before
    with expect_events("secret.updated"):
        body = {"hosts": ["eu.crm.example"], "value": "another"}
        assert api.patch(path_of(a_secret), json=body).json()["hosts"] == ["eu.crm.example"]


def test_a_change_by_somebody_else_takes_a_value_and_makes_it_theirs(api, an_admin, me, a_secret, heads):
    before = heads()
    for body in ({"description": "Mine now"}, {"name": a_name()}):
        assert places(problem(an_admin.client.patch(path_of(a_secret), json=body), 422)) == ["/value"]
    unchanged = an_admin.client.put(path_of(a_secret), json=a_secret)
    assert unchanged.json() == a_secret, "what was read can be sent back"
    assert heads() == before
    theirs = an_admin.client.patch(path_of(a_secret), json={"description": "Mine now", "value": "another"}).json()
    assert (theirs["user_id"], theirs["created_by"]) == (an_admin.id, me["id"])
    assert an_admin.client.patch(path_of(a_secret), json={"description": "Mine"}).status_code == 200
    assert places(problem(api.patch(path_of(a_secret), json={"description": "x"}), 422)) == ["/value"]


# ---- undo ------------------------------------------------------------------------------------------------------------


def newest(api: httpx2.Client, secret: Any) -> Any:
    return listed(api, "events", object_id=secret["id"], order="desc", limit=1)[0]


def test_undo_takes_back_words_and_creation_and_nothing_that_takes_a_value(api, an_admin, a_secret, heads):
    def undo(event: Any, client: httpx2.Client = api, dry_run: str = "false") -> httpx2.Response:
        return client.post(f"/v1/events/{event['id']}/revert", params={"dry_run": dry_run})

    path = path_of(a_secret)
    api.patch(path, json={"description": "Other words"})
    words = newest(api, a_secret)
    assert "somebody else" in problem(undo(words, an_admin.client), 422, "not-revertible")["detail"]
    assert undo(words).status_code == 200
    assert api.get(path).json()["description"] is None
    for body in (
        {"value": "another"},
        {"value": "another", "hosts": ["evil.example"]},
        {"value": "x", "name": a_name()},
    ):
        api.patch(path, json=body)
        event, before = newest(api, a_secret), heads()
        for dry_run in ("false", "true"):
            assert "value" in problem(undo(event, dry_run=dry_run), 422, "not-revertible")["detail"]
        problem(api.post("/v1/events/revert", json={"event_ids": [event["id"]]}), 422, "not-revertible")
        assert heads() == before
    assert api.delete(path).status_code == 204
    gone, before = newest(api, a_secret), heads()
    assert "its value is gone" in problem(undo(gone), 422, "not-revertible")["detail"]
    assert heads() == before


def test_undoing_the_creation_deletes_it(api):
    made = create(api, "secrets", **a_body())
    assert api.post(f"/v1/events/{newest(api, made)['id']}/revert").status_code == 200
    problem(api.get(path_of(made)), 404)


def test_a_workspace_comes_back_from_the_trash_with_its_secrets(api):
    workspace = create(api, "workspaces", name="Over")["id"]
    made = create(api, "secrets", **a_body(workspace_id=workspace))
    assert api.delete(f"/v1/workspaces/{workspace}").status_code == 204
    problem(api.get(path_of(made)), 404)
    assert api.post(f"/v1/workspaces/{workspace}/restore").status_code == 200
    assert api.get(path_of(made)).json() == made


# ---- what is put in is found nowhere ---------------------------------------------------------------------------------


def needles(text: str) -> list[bytes]:
    """A text, and what it decides alone in the base64 of any text with it."""
    raw, found = text.encode(), [text.encode(), json.dumps(text)[1:-1].encode()]
    for before in range(3):
        whole = base64.b64encode(bytes(before) + raw)
        decided = whole[-(-8 * before // 6) : 8 * (before + len(raw)) // 6]
        found += [decided, decided.replace(b"+", b"-").replace(b"/", b"_")]
    return found


def rows(database: Database) -> Iterator[tuple[str, bytes]]:
    """Every row of every table, as a text."""

    def tables(tx: Tx) -> list[str]:
        if tx.dialect == "postgresql":
            return [row[0] for row in tx.all("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
        return [row[0] for row in tx.all("SELECT name FROM sqlite_master WHERE type = 'table'")]

    def content(tx: Tx, table: str) -> list[Any]:
        return tx.all(f'SELECT * FROM "{table}"')

    for table in database.read_sync(tables):
        for row in database.read_sync(partial(content, table=table)):
            yield (
                table,
                b"\n".join(cell if isinstance(cell, bytes) else str(cell).encode("utf-8", "replace") for cell in row),
            )


@contextmanager
def listening(server: Server) -> Iterator[tuple[httpx2.Client, list[tuple[str, bytes]]]]:
    """A client of the owner's that keeps every answer, with its headers."""
    answers: list[tuple[str, bytes]] = []
    with server.client(event_hooks={}) as client:

        def keep(answer: httpx2.Response) -> None:
            answer.read()
            request = answer.request
            answers.append((f"{request.method} {request.url}", str(answer.headers.raw).encode() + answer.content))

        client.event_hooks = {"response": [keep]}
        yield client, answers


def put_in(client: httpx2.Client, member: httpx2.Client) -> Iterator[int]:
    """Send values that hold the needle by every way, right and wrong; the statuses."""
    patch = {"content-type": "application/json-patch+json"}

    def value() -> str:
        return f"{NEEDLE}-{ids.new('x')}"

    def stepped(*steps: dict[str, Any]) -> int:
        return client.patch(path, content=json.dumps(list(steps)), headers=patch).status_code

    made = client.post("/v1/secrets", json=a_body())
    path = path_of(made.json())
    yield made.status_code
    yield client.patch(path, json={"value": value()}).status_code
    yield client.put(path, json={**made.json(), "value": value(), "hosts": ["eu.crm.example"]}).status_code
    yield stepped({"op": "add", "path": "/value", "value": value()})
    yield client.patch(path, json={"value": value()}, params={"dry_run": "true"}).status_code
    yield client.post("/v1/secrets", json=a_body(), params={"dry_run": "true"}).status_code
    yield client.patch(path, json={"value": value()}, headers={"prefer": "return=minimal"}).status_code
    for method, where, body in (("POST", "/v1/secrets", a_body()), ("PATCH", path, {"value": value()})):
        key = {"idempotency-key": ids.new("x")}
        for _ in range(2):
            yield client.request(method, where, json=body, headers=key).status_code
        yield client.request(method, where, json={**body, "value": value()}, headers=key).status_code
    operations = [
        {"id": "one", "method": "POST", "path": "/secrets", "body": a_body()},
        {"method": "PATCH", "path": "/secrets/{one.id}", "body": {"value": value(), "description": "x"}},
        {"method": "PUT", "path": path.removeprefix("/v1"), "body": {"value": value()}},
    ]
    for key in ({"idempotency-key": ids.new("x")}, {}):
        yield client.post("/v1/batch", json={"operations": operations}, headers=key).status_code
        operations[0]["body"] = a_body()
    operations.append({"method": "PATCH", "path": "/secrets/{one.id}", "body": {"value": [value()], "name": 1}})
    operations[0]["body"] = a_body()
    yield client.post("/v1/batch", json={"operations": operations}).status_code
    yield client.post(
        "/v1/batch", json={"operations": [{"method": "PATCH", "path": value(), "body": value()}]}
    ).is_success
    for wrong in ([value()], {"x": value()}, value() * 300):
        yield client.patch(path, json={"value": wrong}).status_code
    yield client.patch(path, json={"value": value(), "hosts": ["*"], "nme": "x"}).status_code
    yield client.patch(path, json={"value": value()}, headers={"if-match": '"1"'}).status_code
    yield client.patch(path, content=f'{{"value": "{value()}", "value": "{value()}"}}', headers=JSON).status_code
    yield client.patch(path, content=f'{{"value": "{value()}"', headers=JSON).status_code
    yield client.patch(path, content=f"value={value()}", headers={"content-type": "text/plain"}).status_code
    yield client.post("/v1/secrets", json=a_body(name=made.json()["name"])).status_code
    yield client.patch("/v1/secrets/sec_01j9zq3v5kfg8wt2m4n6p8r0s2", json={"value": value()}).status_code
    yield stepped({"op": "test", "path": "/value", "value": value()})
    yield stepped({"op": "replace", "path": "/value", "value": value()})
    yield stepped({"op": "add", "path": "/value/inside", "value": value()})
    yield stepped({"op": "add", "path": "/value", "value": value()}, {"op": "test", "path": "/value", "value": value()})
    secret = value()
    yield stepped(
        {"op": "add", "path": "/value", "value": secret}, {"op": "copy", "from": "/value", "path": "/description"}
    )
    yield stepped({"op": "add", "path": "/hosts/99", "value": value()})
    yield member.post("/v1/secrets", json=a_body()).status_code
    yield member.patch(path, json={"value": value()}).status_code
    yield client.delete(path, params={"dry_run": "true"}).status_code
    yield client.delete(path).status_code


JSON = {"content-type": "application/json"}


def test_a_value_that_was_put_in_by_every_way_is_found_nowhere(server, api, as_member, database_of, home):
    since = {row["workspace_id"]: row["seq"] for row in listed(api, "events", order="desc", limit=1)}[home]
    start = server.log.stat().st_size
    token = api.get("/v1/sync").json()["next"]
    with receiver() as endpoint, listening(server) as (client, answers):
        hook = create(api, "webhooks", url=endpoint.url, events=["secret.*"])
        statuses = list(put_in(client, as_member))
        assert statuses.count(200) >= 8 and statuses.count(201) >= 4 and statuses.count(422) >= 11, statuses
        assert {403, 404, 409, 412, 400, 415, 204} <= set(statuses), statuses
        told = everything(client, "events", after=since, types="secret.*")
        assert {"secret.created", "secret.updated", "secret.deleted"} == {event["type"] for event in told}
        updated = next(event for event in told if event["type"] == "secret.updated")
        with client.stream("GET", "/v1/events/stream", params={"after": since, "seconds": 1}) as stream:
            stream.read()
        everything(client, "audit", workspace_id=home, action="secret.*")
        client.get("/v1/audit/export", params={"workspace_id": home})
        client.get("/v1/sync", params={"since": token})
        client.get("/v1/sync", params={"resources": "secrets"})
        client.get(f"/v1/secrets/{updated['data']['id']}", params={"as_of": updated["seq"]})
        everything(client, "secrets", include="user")
        deliveries = endpoint.wait(len(told))
        for delivery in everything(client, f"webhooks/{hook['id']}/deliveries"):
            client.get(f"/v1/webhooks/{hook['id']}/deliveries/{delivery['id']}")
        api.delete(f"/v1/webhooks/{hook['id']}")
    with server.log.open("rb") as log:
        log.seek(start)
        logged = log.read()
    places = [*answers, *(("a delivery", body) for _, body in deliveries), ("the log", logged), *rows(database_of)]
    if not server.database_url:
        places += [(name.name, name.read_bytes()) for name in server.data.glob("taskade.db*")]
    assert [(name, needle) for name, text in places for needle in needles(NEEDLE) if needle in text] == []
    assert any(b"secret.updated" in text for _, text in rows(database_of)), "the search sees what is there"
    assert b"/v1/secrets" in logged, "and so does that of the log"
