"""One question in every spelling: whatever a client's library makes of a list, the same tasks come back."""

import json
from urllib.parse import urlencode

import pytest
import requests

ASSIGNEES = ["user_456", "user_789"]
LABELS = ["urgent", "client-work"]
INCLUDE = ["assignee", "project"]


def criteria(project_id):
    """The question as one JSON document."""
    return {
        "project_id": project_id,
        "assignee": ASSIGNEES,
        "due_date": {"$gte": "2024-01-01", "$lte": "2024-01-31"},
        "priority": "high",
        "labels": {"$in": LABELS},
    }


def flat(project_id, **lists):
    """The question as the parameters of a query string, but for its lists."""
    return {
        "project_id": project_id,
        "due_date[$gte]": "2024-01-01",
        "due_date[$lte]": "2024-01-31",
        "priority": "high",
        "sort": "-due_date",
        "limit": 50,
    } | lists


SPELLINGS = {
    "repeated": lambda name, values: {name: values},
    "bracketed": lambda name, values: {f"{name}[]": values},
    "numbered": lambda name, values: {f"{name}[{index}]": value for index, value in enumerate(values)},
    "joined by commas": lambda name, values: {name: ",".join(values)},
}


def parameters(project_id, spelling):
    if spelling == "one JSON filter":
        return {
            "filter": json.dumps(criteria(project_id)),
            "sort": "-due_date",
            "limit": 50,
            "include": INCLUDE,
        }
    spell = SPELLINGS[spelling]
    lists = spell("assignee", ASSIGNEES) | spell("labels[$in]", LABELS) | spell("include", INCLUDE)
    return flat(project_id, **lists)


def rows(tasks):
    return [[task["id"], task["assignee"]["name"], task["project"]["name"]] for task in tasks]


every_spelling = pytest.mark.parametrize("spelling", [*SPELLINGS, "one JSON filter"])


@every_spelling
def test_httpx2(api, january, spelling):
    response = api.get("/v1/tasks", params=parameters(january.project_id, spelling))
    assert response.status_code == 200, response.text
    assert rows(response.json()) == january.rows


@every_spelling
def test_requests(server, january, spelling):
    with requests.Session() as session:
        session.trust_env = False
        session.headers["Authorization"] = f"Bearer {server.key}"
        params = parameters(january.project_id, spelling)
        response = session.get(f"{server.url}/v1/tasks", params=params, timeout=120)
    assert response.status_code == 200, response.text
    assert rows(response.json()) == january.rows


@pytest.mark.parametrize("method, path", [("QUERY", "/v1/tasks"), ("POST", "/v1/tasks/query")])
def test_the_question_as_a_body(api, january, method, path):
    body = {
        "filter": criteria(january.project_id),
        "sort": "-due_date",
        "limit": 50,
        "include": INCLUDE,
    }
    response = api.request(method, path, json=body)
    assert response.status_code == 200, response.text
    assert rows(response.json()) == january.rows


@every_spelling
def test_curl_encoding_each_parameter(shell, server, january, spelling):
    pairs = [
        (name, value)
        for name, values in parameters(january.project_id, spelling).items()
        for value in (values if isinstance(values, list) else [values])
    ]
    options = " ".join(f"--data-urlencode '{name}={value}'" for name, value in pairs)
    printed = shell(f"curl -s -G '{server.url}/v1/tasks' -H 'Authorization: Bearer {server.key}' {options}")
    assert rows(json.loads(printed)) == january.rows


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_curl_with_a_typed_address(shell, server, january, spelling):
    """Brackets, dollars and commas as a person types them, not encoded."""
    query = urlencode(parameters(january.project_id, spelling), doseq=True, safe="[]$,")
    printed = shell(f"curl -s -g '{server.url}/v1/tasks?{query}' -H 'Authorization: Bearer {server.key}'")
    assert rows(json.loads(printed)) == january.rows


def test_axios_fetch_and_qs(node, server, january):
    found = node(server, "filters.mjs", project_id=january.project_id)
    assert len(found) == 21
    assert found == dict.fromkeys(found, january.rows)


def test_go(go, server, january):
    found = go(server, "filters", project_id=january.project_id)
    assert len(found) == 5
    assert found == dict.fromkeys(found, january.rows)


def test_without_include_a_reference_stays_an_id(api, january, people):
    tasks = api.get("/v1/tasks", params=flat(january.project_id, assignee="user_789")).json()
    assert {task["assignee"] for task in tasks} == {people["user_789"]}
    assert {task["project_id"] for task in tasks} == {january.project_id}
