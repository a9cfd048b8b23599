"""Custom texts around and beyond the length that an index holds: filters compare the whole text."""

import hashlib
import operator
import random
from collections.abc import Callable
from contextlib import closing

import pytest

from tests.api.asking import create, names
from tests.support.websocket import WebSocket

INDEXED = 200
BEGINNING = 160

WORDS = ("invoice", "Invoice", "é", "0f", "ab", " ", "z", "中", "x")
COMPARED: dict[str, Callable[[str, str], bool]] = {
    "$eq": operator.eq,
    "$ne": operator.ne,
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
    "$contains": operator.contains,
    "$prefix": str.startswith,
}


def stored(text):
    """What an index holds of a long text, written down here once more: a beginning and a digest."""
    return text[:BEGINNING] + hashlib.blake2b(text.encode(), digest_size=20).hexdigest()


def fitting(name, operand, texts):
    """The tasks whose texts a condition chooses; nothing of the server is asked."""
    return {task for task, text in texts.items() if COMPARED[name](text, operand)}


def asked(client, project_id, condition, key="note"):
    body = {"filter": {"project_id": project_id, "custom_fields": {key: condition}}, "limit": 1000}
    response = client.post("/v1/tasks/query", json=body)
    assert response.status_code == 200, response.text
    return {task["name"] for task in response.json()}


@pytest.fixture
def notes(api, a_project):
    """Makes tasks whose custom field `note` has these texts; they are named by their places in the list."""

    def make(texts):
        tasks = [{"name": str(place), "custom_fields": {"note": text}} for place, text in enumerate(texts)]
        create(api, "tasks/bulk", project_id=a_project["id"], tasks=tasks)
        return {str(place): text for place, text in enumerate(texts)}

    return make


def test_a_word_behind_the_indexed_part_is_found_and_the_digest_is_not(api, a_project, notes):
    notes(["a" * 300 + " invoice", "short invoice", "b" * 300])
    assert asked(api, a_project["id"], {"$contains": "invoice"}) == {"0", "1"}
    digest = stored("b" * 300)[BEGINNING:]
    assert asked(api, a_project["id"], {"$contains": digest[:4]}) == set()
    assert asked(api, a_project["id"], {"$prefix": "b" * 250}) == {"2"}
    found = names(api, "tasks", project_id=a_project["id"], **{"custom_fields[note][$contains]": "invoice"})
    assert set(found) == {"0", "1"}


def test_a_text_that_looks_like_an_indexed_one_is_not_taken_for_it(api, a_project, notes):
    long = "c" * 500
    notes([long, stored(long), "c" * 501])
    assert asked(api, a_project["id"], long) == {"0"}
    assert asked(api, a_project["id"], stored(long)) == {"1"}
    assert asked(api, a_project["id"], {"$in": ["no", stored(long), "c" * 501]}) == {"1", "2"}
    assert asked(api, a_project["id"], {"$nin": [stored(long)]}) == {"0", "2"}


def test_the_strings_of_lists_are_compared_whole(api, a_project):
    at_bound = "d" * 195 + "ready"
    create(api, "tasks", name="list", project_id=a_project["id"], custom_fields={"note": ["x", at_bound]})
    assert asked(api, a_project["id"], {"$contains": "ready"}) == {"list"}
    assert asked(api, a_project["id"], at_bound) == {"list"}
    assert asked(api, a_project["id"], {"$contains": '"'}) == set()


def test_keys_of_all_kinds_find_their_texts(api, a_project):
    keys = ["a.b", "2024", "naïve ключ", "it's", "{x}", "a,b"]
    fields = {key: "e" * 300 + key for key in keys}
    create(api, "tasks", name="many", project_id=a_project["id"], custom_fields=fields)
    for key in keys:
        assert asked(api, a_project["id"], {"$contains": "e" + key}, key) == {"many"}, key
        assert asked(api, a_project["id"], {"$contains": "no" + key}, key) == set(), key


def test_a_bulk_change_by_a_long_text_changes_what_has_it(api, a_project, notes):
    texts = notes(["f" * 300 + " invoice", "f" * 300, "g" * 199])
    digit = stored(texts["1"])[BEGINNING : BEGINNING + 2]
    scope = {"project_id": a_project["id"]}
    body = {"filter": {**scope, "custom_fields.note": {"$contains": digit}}}
    assert api.request("DELETE", "/v1/tasks/bulk", json=body).json() == []
    body = {"filter": {**scope, "custom_fields.note": {"$contains": "invoice"}}, "set": {"priority": "high"}}
    changed = api.patch("/v1/tasks/bulk", json=body)
    assert [task["name"] for task in changed.json()] == ["0"], changed.text
    assert names(api, "tasks", project_id=a_project["id"]) == ["0", "1", "2"]


def test_random_texts_against_plain_python(api, a_project, notes):
    chance = random.Random(20261201)

    def a_text():
        bound = chance.choice([BEGINNING, INDEXED, INDEXED, 400])
        base = chance.choice(["k", "m"]) * max(0, bound - chance.randint(0, 12))
        text = base + "".join(chance.choice(WORDS) for _ in range(chance.randint(0, 8)))
        return chance.choice([text, text, stored(text), chance.choice(WORDS)]).strip() or "n"

    texts = notes([a_text() for _ in range(150)])
    for _ in range(120):
        name = chance.choice(list(COMPARED))
        operand = chance.choice([*texts.values(), *WORDS, *[stored(text)[-43:] for text in texts.values()]])
        if name in ("$contains", "$prefix") and chance.random() < 0.7:
            start = 0 if name == "$prefix" else chance.randrange(len(operand))
            operand = operand[start : start + chance.choice([2, 30, 190, 210])]
        expected = fitting(name, operand, texts)
        assert asked(api, a_project["id"], {name: operand}) == expected, (name, operand)
        negated = {"filter": {"project_id": a_project["id"], "$not": {"custom_fields": {"note": {name: operand}}}}}
        found = api.post("/v1/tasks/query", json=negated | {"limit": 1000}).json()
        assert {task["name"] for task in found} == set(texts) - expected, (name, operand)


def test_long_texts_sort_by_their_beginning_and_never_by_a_digest(api, a_project, notes):
    chance = random.Random(7)
    texts = notes([chance.choice("op") * chance.choice([100, 170, 250]) + chance.choice("xyz") for _ in range(40)])
    expected = sorted(texts, key=lambda place: (texts[place][:BEGINNING], int(place)))
    assert names(api, "tasks", project_id=a_project["id"], sort="custom_fields.note") == expected
    paged, cursor = [], None
    while True:
        params = {"project_id": a_project["id"], "sort": "custom_fields.note", "limit": 7}
        response = api.get("/v1/tasks", params=params if cursor is None else params | {"cursor": cursor})
        paged += [task["name"] for task in response.json()]
        if "next" not in response.links:
            break
        cursor = response.links["next"]["url"].partition("cursor=")[2].partition("&")[0]
    assert paged == expected


def test_what_follows_the_log_compares_whole_texts_too(server, api, a_project):
    digits = stored("q" * 300)[BEGINNING : BEGINNING + 3]
    with closing(WebSocket(server.url, server.key, "/v1/realtime")) as socket:
        for name, word in (("word", "invoice"), ("digits", digits), ("all", "q")):
            condition = {"custom_fields.note": {"$contains": word}}
            socket.send(type="subscribe", id=name, events="task.*", project_id=a_project["id"], filter=condition)
            socket.until_type("subscribed", id=name)
        for place, text in enumerate(["q" * 300, "q" * 300 + " invoice"]):
            create(api, "tasks", name=str(place), project_id=a_project["id"], custom_fields={"note": text})
        for name in ("word", "all"):
            socket.until_type("event", 1 if name == "word" else 2, subscription=name)
        told = [
            (one["subscription"], one["event"]["data"]["name"]) for one in socket.messages if one["type"] == "event"
        ]
    assert sorted(told) == [("all", "0"), ("all", "1"), ("word", "1")]
