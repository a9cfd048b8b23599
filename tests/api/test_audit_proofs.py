"""Proofs of the audit log over HTTP, and exports: all is checked as a stranger would, from the documentation.

Why the checks are written out once more: a proof that only the program that made it can check proves nothing.
"""

import base64
import csv
import hashlib
import io
import json
import threading
import time

import pytest
from taskade_server.kit import merkle, notes
from taskade_server.kit.notes import Verifier

from tests.api.asking import codes, create, problem

CHANGES = (
    "workspace_id", "seq", "id", "type", "resource", "object_id", "project_id", "actor_id", "key_id", "request_id",
    "at", "data", "previous", "address", "user_agent", "origin",
)  # fmt: skip


def leaf_hash(log, columns):
    """As the guide says: a line that names the form, then name, length and bytes of each column that is not null."""
    data = f"taskade.audit/{log}/v1\n".encode()
    for name in CHANGES if log == "changes" else columns:
        if columns.get(name) is not None:
            raw = str(columns[name]).encode()
            data += f"{name} {len(raw)}\n".encode() + raw + b"\n"
    return hashlib.sha256(b"\x00" + data).digest()


def raw(text):
    return base64.b64decode(text, validate=True)


@pytest.fixture(scope="module")
def place(api):
    """A workspace of its own, in which a few things have happened."""
    workspace = create(api, "workspaces", name="Proven")["id"]
    project = create(api, "projects", name="x", workspace_id=workspace)["id"]
    for number in range(9):
        create(api, "tasks", name=f"Task {number}", project_id=project)
    return workspace, project


def ask(client, path, **params):
    response = client.get(f"/v1/audit{path}", params=params)
    assert response.status_code == 200, response.text
    return response.json()


def changes_in(client, workspace):
    """The entries of the log of changes, oldest first."""
    found = ask(client, "", workspace_id=workspace, limit=1000, order="asc")
    return [entry for entry in found if entry["log"] == "changes"]


def checked(client, workspace, found):
    """A checkpoint that the installation's key has signed."""
    key = ask(client, "/key", workspace_id=workspace)["key"]
    checkpoint = notes.checkpoint_of(Verifier(key).verified(found["note"]))
    assert (checkpoint.size, checkpoint.root) == (found["size"], raw(found["root"]))
    assert checkpoint.origin == found["origin"] == f"taskade.audit/{workspace}/{found['log']}"
    return checkpoint


def test_a_checkpoint_covers_everything_that_was_answered(api, place):
    workspace, project = place
    done = create(api, "tasks", name="Just now", project_id=project)
    newest = ask(api, "", object_id=done["id"], workspace_id=workspace)[0]
    found = ask(api, "/checkpoint", workspace_id=workspace)
    assert checked(api, workspace, found).size == newest["seq"]


def test_every_entry_is_proven_to_be_in_the_log(api, place):
    workspace, _ = place
    for entry in changes_in(api, workspace):
        proof = ask(api, "/proof", workspace_id=workspace, event=entry["id"])
        checkpoint = checked(api, workspace, proof["checkpoint"])
        leaf = leaf_hash("changes", proof["columns"])
        assert leaf == raw(proof["leaf_hash"]) and proof["index"] == entry["seq"] - 1
        path = [raw(hashed) for hashed in proof["hashes"]]
        assert merkle.included(leaf, proof["index"], proof["size"], path, checkpoint.root)
        changed = leaf_hash("changes", {**proof["columns"], "address": "192.0.2.1"})
        assert not merkle.included(changed, proof["index"], proof["size"], path, checkpoint.root)
    assert json.loads(proof["columns"]["data"])["name"]


def test_a_later_log_is_proven_to_have_grown_out_of_the_earlier(api, place):
    workspace, project = place
    before = checked(api, workspace, ask(api, "/checkpoint", workspace_id=workspace))
    for number in range(5):
        create(api, "tasks", name=f"More {number}", project_id=project)
    after = checked(api, workspace, ask(api, "/checkpoint", workspace_id=workspace))
    assert after.size == before.size + 5
    proof = ask(api, "/proof", workspace_id=workspace, first=before.size, second=after.size)
    path = [raw(hashed) for hashed in proof["hashes"]]
    assert merkle.consistent(before.size, after.size, before.root, after.root, path)
    assert not merkle.consistent(before.size, after.size, hashlib.sha256(b"another").digest(), after.root, path)


def test_the_background_job_signs_by_itself(start_server):
    """And what it keeps is what is computed on demand."""
    server = start_server()
    with server.client() as client:
        create(client, "projects", name="x")
        workspace = client.get("/v1/users/me").json()["workspace_id"]
        until = time.monotonic() + 180
        while True:
            kept = server.command("audit", "checkpoints", "--workspace", workspace)
            if kept:
                break
            assert time.monotonic() < until
            time.sleep(0.2)
        note = kept.split("\n\n\n")[0] + "\n"
        key = ask(client, "/key")["key"]
        checkpoint = notes.checkpoint_of(Verifier(key).verified(note))
        proof = ask(client, "/proof", first=checkpoint.size)
        assert raw(proof["first_root"]) == checkpoint.root


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({}, "required"),
        ({"event": "evt_x", "first": "1"}, "required"),
        ({"first": "1000000"}, "out_of_range"),
        ({"first": "3", "second": "2"}, "out_of_range"),
        ({"first": "0"}, "out_of_range"),
        ({"first": "1", "log": "changed"}, "not_allowed"),
        ({"frist": "1"}, "unknown_parameter"),
    ],
)
def test_what_cannot_be_proven(api, place, params, code):
    response = api.get("/v1/audit/proof", params={"workspace_id": place[0], **params})
    assert codes(problem(response, 400)) == [code]


def test_an_entry_of_another_workspace_is_none(api, place, home):
    entry = ask(api, "", workspace_id=place[0])[0]
    problem(api.get("/v1/audit/proof", params={"workspace_id": home, "event": entry["id"]}), 404)
    problem(api.get("/v1/audit/proof", params={"workspace_id": place[0], "event": "evt_nonsense"}), 404)
    size = {"workspace_id": place[0], "event": entry["id"], "size": entry["seq"] - 1}
    assert codes(problem(api.get("/v1/audit/proof", params=size), 400)) == ["out_of_range"]


# ---- exports ---------------------------------------------------------------------------------------------------------


def exported(client, workspace, **params):
    response = client.get("/v1/audit/export", params={"workspace_id": workspace, **params})
    assert response.status_code == 200, response.text
    return response


def test_an_export_proves_itself(api, place):
    workspace, _ = place
    response = exported(api, workspace)
    assert response.headers["content-type"] == "application/jsonl"
    head, *lines = [json.loads(line) for line in response.text.splitlines()]
    assert head["audit_export"]["workspace_id"] == workspace
    footer = next(line["proof"] for line in lines if "proof" in line and line["proof"]["log"] == "changes")
    entries = [line for line in lines if line.get("log") == "changes"]
    assert [line["entry"]["seq"] for line in entries] == list(range(1, len(entries) + 1))
    frontier = merkle.Frontier()
    for line in entries:
        hashed = leaf_hash("changes", line["entry"])
        assert hashed == raw(line["leaf"])
        frontier.add(hashed)
    checkpoint = notes.checkpoint_of(Verifier(head["audit_export"]["key"]).verified(footer["checkpoint"]))
    assert frontier.root() == checkpoint.root and footer["size"] == checkpoint.size == len(entries)


def test_a_part_of_the_log_proves_itself_too(api, place):
    workspace, _ = place
    everything = changes_in(api, workspace)
    since, until = everything[3]["timestamp"], everything[-2]["timestamp"]
    head, *lines = [
        json.loads(line) for line in exported(api, workspace, **{"from": since, "to": until}).text.splitlines()
    ]
    wanted = [entry["id"] for entry in everything if since <= entry["timestamp"] < until]
    assert [line["entry"]["id"] for line in lines if line.get("log") == "changes"] == wanted
    footer = next(line["proof"] for line in lines if "proof" in line and line["proof"]["log"] == "changes")
    frontier = merkle.Frontier()
    for (level, _), hashed in zip(merkle.subtrees(0, footer["first"] - 1), footer["left"], strict=True):
        frontier.add(raw(hashed), level)
    for line in lines:
        if line.get("log") == "changes":
            frontier.add(leaf_hash("changes", line["entry"]))
    for (level, _), hashed in zip(merkle.subtrees(footer["last"], footer["size"]), footer["right"], strict=True):
        frontier.add(raw(hashed), level)
    checkpoint = notes.checkpoint_of(Verifier(head["audit_export"]["key"]).verified(footer["checkpoint"]))
    assert frontier.root() == checkpoint.root


def test_rows_for_spreadsheets_hold_no_formula(api, place):
    workspace, project = place
    for name in ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", 'a "quoted", thing'):
        create(api, "tasks", name=name, project_id=project)
    hostile = {"User-Agent": '=HYPERLINK("http://example.com")'}
    assert api.post("/v1/tasks", json={"name": "x", "project_id": project}, headers=hostile).status_code == 201
    response = exported(api, workspace, format="csv")
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert "attachment" in response.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(response.text)))
    assert not [cell for row in rows for cell in row.values() if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert [row["user_agent"] for row in rows if "HYPERLINK" in row["user_agent"]] == ["'" + hostile["User-Agent"]]
    entries = changes_in(api, workspace)
    changes = [row for row in rows if row["log"] == "changes"]
    assert [row["id"] for row in changes] == [entry["id"] for entry in entries]
    quoted = next(entry for entry in entries if entry["changes"].get("name", {}).get("to") == 'a "quoted", thing')
    row = next(row for row in changes if row["id"] == quoted["id"])
    assert json.loads(row["changes"]) == quoted["changes"] and row["actor_email"] == quoted["actor"]["email"]


def test_an_export_is_on_record(api, place, me):
    workspace, _ = place
    response = exported(api, workspace)
    until = time.monotonic() + 180
    while not (found := ask(api, "", workspace_id=workspace, request_id=response.headers["x-request-id"])):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert (found[0]["action"], found[0]["outcome"], found[0]["actor"]["id"]) == ("audit.exported", "success", me["id"])


def test_an_export_longer_than_a_page_is_whole(api):
    workspace = create(api, "workspaces", name="Long")["id"]
    project = create(api, "projects", name="x", workspace_id=workspace)["id"]
    body = {"project_id": project, "tasks": [{"name": f"Task {number}"} for number in range(700)]}
    assert api.post("/v1/tasks/bulk", json=body).status_code == 201
    lines = exported(api, workspace).text.splitlines()
    entries = [json.loads(line)["entry"] for line in lines if '"log":"changes","leaf"' in line]
    assert [entry["seq"] for entry in entries] == list(range(1, len(entries) + 1)) and len(entries) > 700
    assert {*json.loads(lines[1])} == {"proof"}


# ---- following -------------------------------------------------------------------------------------------------------


def test_following_the_log_as_it_grows(api, place):
    workspace, project = place
    params = {"workspace_id": workspace, "order": "asc", "cursor": "latest", "wait": 0}
    response = api.get("/v1/audit", params=params)
    assert response.json() == []
    url = response.links["next"]["url"].replace("wait=0", "wait=60")
    found = []

    def follow():
        found.append(api.get(url))

    following = threading.Thread(target=follow)
    following.start()
    time.sleep(0.2)
    task = create(api, "tasks", name="Something new", project_id=project)
    following.join(180)
    assert [entry["object_id"] for entry in found[0].json()] == [task["id"]]
    assert api.get(found[0].links["next"]["url"].replace("wait=60", "wait=0")).json() == []


def test_only_what_comes_can_be_waited_for(api):
    assert codes(problem(api.get("/v1/audit", params={"wait": 5}), 400)) == ["not_allowed"]
    assert codes(problem(api.get("/v1/audit", params={"wait": 61, "order": "asc"}), 400)) == ["out_of_range"]
