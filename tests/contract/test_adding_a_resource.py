"""A resource is added as CONTRIBUTING.md says, in a copy of the server, and everything the server does has it."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.server import Server

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "server" / "taskade_server"


def blocks() -> list[str]:
    """The code of the section, in order: the module, the row of the table, the migration."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.partition("## Add a resource in ten minutes\n")[2].partition("\n## ")[0]
    return re.findall(r"```(?:python|sql)\n(.*?)```", section, re.DOTALL)


def insert(module: Path, before: str, text: str) -> None:
    """Put a text in front of the only place where `before` stands."""
    content = module.read_text(encoding="utf-8")
    assert content.count(before) == 1, f"{module.name} no longer has {before!r} once: bring CONTRIBUTING.md up to date"
    module.write_text(content.replace(before, text + before), encoding="utf-8")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the server as it is after the steps of the section."""
    folder = tmp_path_factory.mktemp("adding")
    package = folder / "taskade_server"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    module, row, migration = blocks()
    (package / "domain" / "notes.py").write_text(module, encoding="utf-8")
    resources = package / "domain" / "resources.py"
    content = resources.read_text(encoding="utf-8")
    content = content.replace(" identity, projects,", " identity, notes, projects,", 1)
    end = ')\n"""In the order of the documents.'
    content = content.replace(end, row + end, 1)
    resources.write_text(content, encoding="utf-8")
    assert "notes.NOTE" in content and " identity, notes," in content
    insert(package / "domain" / "identity" / "resources.py", '    "users",\n    "api-keys",', '    "notes",\n')
    numbers = sorted(path.name for path in (package / "store" / "migrations").glob("*.sql"))
    number = int(numbers[-1][:4]) + 1
    (package / "store" / "migrations" / f"{number:04}_notes.sql").write_text(migration, encoding="utf-8")
    return folder


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def server(request, copy, tmp_path_factory) -> Iterator[Server]:
    url = ""
    if request.param == "postgresql":
        postgres = request.getfixturevalue("postgres")
        url = postgres.create_database()
    environment = {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    running = Server(tmp_path_factory.mktemp("added"), url, environment=environment).start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def api(server) -> Iterator[httpx2.Client]:
    key = server.command("keys", "create", "--name", "tests")
    with httpx2.Client(base_url=f"{server.url}/v1", headers={"Authorization": f"Bearer {key}"}, timeout=180) as client:
        yield client


def ok(answer: httpx2.Response) -> Any:
    assert answer.is_success, answer.text
    return answer.json() if answer.content else None


def test_the_module_says_what_the_table_must_have(copy):
    """Each column of the resource stands in the migration."""
    found = re.findall(r"^    (\w+) \{\{(\w+)\}\}", blocks()[2], re.MULTILINE)
    module: dict[str, Any] = {}
    exec(blocks()[0], module)
    wanted = set(module["NOTE"].columns)
    assert wanted <= set(found) and {name for name, _ in set(found) - wanted} == {"n", "doc"}


def test_a_note_is_written_read_found_and_changed(api):
    made = ok(api.post("/notes", json={"name": "Wi-Fi", "body": "The password is on the board."}))
    assert made["id"].startswith("note_") and made["version"] == 1
    assert ok(api.get(f"/notes/{made['id']}"))["name"] == "Wi-Fi"
    assert [note["id"] for note in ok(api.get("/notes", params={"q": "password", "sort": "-name"}))] == [made["id"]]
    assert ok(api.get("/notes", params={"name": "Wi-Fi", "include": "created_by"}))[0]["created_by"]["id"]
    changed = ok(api.patch(f"/notes/{made['id']}", json={"body": None}, headers={"If-Match": '"1"'}))
    assert (changed["body"], changed["version"]) == (None, 2)
    assert ok(api.get(f"/notes/{made['id']}", params={"as_of": made["updated_at"]}))["body"] is not None


def test_a_fault_is_named(api):
    answer = api.post("/notes", json={"nam": "x"})
    assert answer.status_code == 422
    assert {fault["pointer"] for fault in answer.json()["errors"]} == {"/nam", "/name"}


def test_its_changes_are_events_and_can_be_undone(api):
    made = ok(api.post("/notes", json={"name": "Undone"}))
    ok(api.patch(f"/notes/{made['id']}", json={"name": "Changed"}))
    events = ok(api.get("/events", params={"object_id": made["id"]}))
    assert [event["type"] for event in events] == ["note.created", "note.updated"]
    ok(api.post(f"/events/{events[1]['id']}/revert"))
    assert ok(api.get(f"/notes/{made['id']}"))["name"] == "Undone"
    assert "note.created" in api.get("/event-types").text
    assert ok(api.get("/audit", params={"object_id": made["id"]}))[0]["action"].startswith("note.")


def test_it_goes_to_the_trash_and_comes_back(api):
    made = ok(api.post("/notes", json={"name": "Trash"}))
    ok(api.delete(f"/notes/{made['id']}"))
    assert api.get(f"/notes/{made['id']}").status_code == 404
    ok(api.post(f"/notes/{made['id']}/restore"))
    assert ok(api.get(f"/notes/{made['id']}"))["deleted_at"] is None


def test_it_is_synced(api):
    made = ok(api.post("/notes", json={"name": "Synced"}))
    page = ok(api.get("/sync", params={"resources": "notes"}))
    assert made["id"] in {note["id"] for note in page["changes"]["notes"]["created"]}


def test_a_batch_writes_it_or_nothing(api):
    operations = [
        {"id": "first", "method": "POST", "path": "/notes", "body": {"name": "In a batch"}},
        {"method": "PATCH", "path": "/notes/{first.id}", "body": {"name": ""}},
    ]
    answer = api.post("/batch", json={"operations": operations})
    assert not answer.is_success
    assert ok(api.get("/notes", params={"name": "In a batch"})) == []


def test_rights_are_kept(api, server):
    made = ok(api.post("/notes", json={"name": "Rights"}))
    tasks_only = server.command("keys", "create", "--name", "tasks", "--scopes", "tasks:write")
    reading = server.command("keys", "create", "--name", "reading", "--scopes", "notes:read")
    for key, statuses in ((tasks_only, (403, 403)), (reading, (200, 403)), ("wrong", (401, 401))):
        headers = {"Authorization": f"Bearer {key}"}
        read = api.get(f"/notes/{made['id']}", headers=headers).status_code
        written = api.patch(f"/notes/{made['id']}", json={"name": "x"}, headers=headers).status_code
        assert (read, written) == statuses
    guest = ok(api.post("/users", json={"name": "Guest", "email": "guest@example.com", "role": "guest"}))
    key = server.command("keys", "create", "--name", "guest", "--user", guest["email"])
    assert api.get(f"/notes/{made['id']}", headers={"Authorization": f"Bearer {key}"}).status_code == 404


def test_the_documents_describe_it(server):
    document = httpx2.get(f"{server.url}/openapi.json", timeout=180).json()
    for path in ("/v1/notes", "/v1/notes/{id}", "/v1/notes/query", "/v1/notes/{id}/restore"):
        assert path in document["paths"] or path.removeprefix("/v1") in document["paths"], path
    assert set(document["components"]["schemas"]["Note"]["properties"]) > {"id", "name", "body"}
    assert "note.created" in httpx2.get(f"{server.url}/asyncapi.json", timeout=180).text
