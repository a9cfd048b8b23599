"""`taskade audit`: the installation's own log, exports on the command line, and verifying without a server."""

import json
import time

import pytest
from taskade_server.kit import ids

from tests.api.asking import create, problem


@pytest.fixture(scope="module")
def workspace(api):
    found = create(api, "workspaces", name="On the command line")["id"]
    create(api, "projects", name="x", workspace_id=found)
    return found


@pytest.fixture
def exported(server, workspace, tmp_path):
    path = tmp_path / "audit.jsonl"
    server.command("audit", "export", "--workspace", workspace, str(path))
    return path


def test_failed_logins_with_unknown_keys_are_listed(server):
    with server.client("nonsense") as client:
        response = client.get("/v1/tasks", headers={"User-Agent": "somebody"})
    problem(response, 401)
    until = time.monotonic() + 60
    while not (
        lines := [line for line in server.command("audit", "list", "--json").splitlines() if "somebody" in line]
    ):
        assert time.monotonic() < until
        time.sleep(0.2)
    entry = json.loads(lines[0])
    assert (entry["action"], entry["address"], entry["workspace_id"]) == ("login.failed", "127.0.0.1", None)
    assert "login.failed" in server.command("audit", "list", "--outcome", "failed", "--limit", "5")


def test_a_workspace_that_is_not_there_is_refused_and_no_file_touched(server, tmp_path):
    path = tmp_path / "audit.jsonl"
    path.write_text("what was there", encoding="utf-8")
    unknown = ids.new("ws")
    for command in (("list",), ("checkpoints",), ("export", str(path)), ("verify",)):
        with pytest.raises(RuntimeError, match=f"There is no workspace {unknown} in this installation"):
            server.command("audit", *command, "--workspace", unknown)
    assert path.read_text(encoding="utf-8") == "what was there"


def test_the_log_of_a_workspace_is_listed_whatever_it_is_about(server, api, workspace):
    project = create(api, "projects", name="x", workspace_id=workspace)["id"]
    create(api, "tasks", name="x", project_id=project)
    lines = server.command("audit", "list", "--workspace", workspace).splitlines()
    assert "task.created" in lines[0]
    assert "task.created" in server.command("audit", "export", "--workspace", workspace, "--format", "csv")


def test_an_export_is_verified_without_the_server(server, api, workspace, exported, tmp_path):
    key = api.get("/v1/audit/key").json()["key"]
    checkpoint = tmp_path / "checkpoint.json"
    checkpoint.write_text(api.get("/v1/audit/checkpoint", params={"workspace_id": workspace}).text)
    nothing = tmp_path / "nothing"
    told = server.command(
        "audit", "verify", str(exported), "--key", key, "--checkpoint", str(checkpoint), "--data", str(nothing)
    )
    assert told.endswith("nothing was changed, removed, put in or moved.") and not nothing.exists()


def test_a_changed_export_is_named(server, exported):
    lines = exported.read_text().splitlines()
    place = next(place for place, line in enumerate(lines) if '"project.created"' in line)
    entry = json.loads(lines[place])["entry"]
    lines[place] = lines[place].replace('"address":"127.0.0.1"', '"address":"127.0.0.2"')
    exported.write_text("\n".join(lines) + "\n")
    with pytest.raises(RuntimeError, match=f"number {entry['seq']}: the entry {entry['id']} was changed."):
        server.command("audit", "verify", str(exported))


def test_the_database_is_verified_while_the_server_runs(server, workspace):
    assert "nothing was changed" in server.command("audit", "verify")
    assert "nothing was changed" in server.command("audit", "verify", "--workspace", workspace)


def test_rows_for_spreadsheets(server, workspace):
    first, *rows = server.command("audit", "export", "--workspace", workspace, "--format", "csv").splitlines()
    assert first.startswith('"timestamp","log","seq"') and rows
    assert server.command("audit", "export", "--workspace", workspace, "--format", "csv", "--to", "2020-01-01") == first


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["export", "--from", "yesterdayish"], "--from must be a date"),
        (["verify", "--key", "nonsense"], "is no public key"),
    ],
)
def test_what_cannot_be_understood(server, arguments, words):
    with pytest.raises(RuntimeError, match=words):
        server.command("audit", *arguments)
