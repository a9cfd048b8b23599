"""Pages of the audit log are bounded in bytes as well as in entries, and lead on to the rest."""

import json

import pytest

from tests.api.asking import create

MIB = 1 << 20


@pytest.fixture
def long_history(api, a_project):
    """A task of half a million characters that was changed eleven times."""
    fields = {f"field {number}": "é" * 4_500 for number in range(100)}
    task = create(api, "tasks", name="0", project_id=a_project["id"], custom_fields=fields, description="d" * 20_000)
    for number in range(1, 12):
        changed = dict.fromkeys(fields, f"{number}{'é' * 4000}")
        response = api.patch(f"/v1/tasks/{task['id']}", json={"custom_fields": changed})
        assert response.status_code == 200, response.text
    return task["id"]


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_pages_of_the_audit_log_end_at_some_bytes_and_go_on(api, long_history, order):
    params = {"object_id": long_history, "limit": 1000, "include": "data", "order": order}
    url: str | None = str(api.build_request("GET", "/v1/audit", params=params).url)
    pages = []
    while url:
        response = api.get(url)
        assert response.status_code == 200, response.text
        page = response.json()
        shown = [len(json.dumps(entry, ensure_ascii=False)) for entry in page]
        assert sum(shown) < 9 * MIB or len(page) == 1
        pages.append(page)
        url = response.links["next"]["url"] if "next" in response.links else None
    entries = [entry for page in pages for entry in page]
    numbers = [entry["seq"] for entry in entries]
    assert numbers == sorted(set(numbers), reverse=order == "desc"), "an entry came twice, or in another order"
    assert [entry["action"] for entry in entries].count("task.updated") == 11
    assert len(pages) > 1


def test_an_export_has_what_is_longer_than_a_page(api, long_history):
    response = api.get("/v1/audit/export", params={"from": "-1d"})
    assert response.status_code == 200, response.text[:500]
    lines = [json.loads(line) for line in response.text.splitlines()]
    of_task = [one["entry"]["type"] for one in lines if one.get("entry", {}).get("object_id") == long_history]
    assert of_task == ["task.created"] + ["task.updated"] * 11


def test_a_large_answer_without_compression_is_whole(api, long_history):
    url = f"/v1/audit?object_id={long_history}&include=data&limit=5"
    plain = api.get(url, headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert len(plain.content) == int(plain.headers["content-length"]) > MIB
    assert plain.json() == api.get(url, headers={"accept-encoding": "gzip"}).json()
