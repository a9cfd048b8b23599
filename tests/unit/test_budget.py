"""The work that is counted is bounded by what was sent, and covers what was done."""

import unicodedata
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from taskade_server.domain import projects, tasks
from taskade_server.domain.occurrences import RULE_STEPS, SEARCH_STEPS
from taskade_server.domain.tasks import TASK
from taskade_server.engine import filters, log
from taskade_server.engine.edit import Context
from taskade_server.engine.log import Actor
from taskade_server.http.api import json_patch
from taskade_server.http.api.batch import Batch
from taskade_server.http.api.weight import Weight
from taskade_server.http.routes import all_routes
from taskade_server.http.wire.body import JsonPatch
from taskade_server.kit import json, recurrence, text
from taskade_server.kit.budget import LIGHT, UNLIMITED, WRITE, Budget, BudgetSpent
from taskade_server.kit.errors import Problem

from tests.unit import world
from tests.unit.examples import examples
from tests.unit.occurring import next_due

GROWS = "\ufdfa"
PIECES = st.sampled_from(["a", " ", "é", "e\u0301", GROWS, "한", "ß", "İ", "🚀", "\u0301", "-", "word ", "ﬁ", "１"])
TEXTS = st.builds("".join, st.lists(st.builds(lambda piece, times: piece * times, PIECES, st.integers(1, 3000))))


def test_a_budget_refuses_the_first_step_too_many_and_every_later_one():
    budget = Budget(10)
    budget.spend(4)
    budget.spend(6)
    for steps in (1, 0):
        with pytest.raises(BudgetSpent):
            budget.spend(steps)
    assert budget.used == 11


@examples(100)
@given(TEXTS)
def test_finding_the_words_of_a_text_costs_at_most_what_its_length_allows(given_text):
    budget = Budget(UNLIMITED)
    found = text.tokens(given_text, budget=budget)
    assert len(found) <= text.MAX_TOKENS
    most = min(18 * len(given_text), text.MAX_NORMALISED + 18 * text.PIECE)
    assert budget.used <= most // text.NORMALISED_A_STEP
    assert budget.used * text.NORMALISED_A_STEP >= min(len(given_text) // 18, text.MAX_NORMALISED // 2) - text.PIECE


def is_plain(char: str) -> bool:
    """Whether a character has nothing to it but accents and case."""
    letters = [one for one in unicodedata.normalize("NFKD", char.casefold()) if not unicodedata.combining(one)]
    return "".join(letters).isascii() and unicodedata.category(char) not in ("Cf", "Nd") and char != "\u034f"


@examples(60)
@given(st.text(st.characters(max_codepoint=0x2FF).filter(is_plain), max_size=300))
def test_the_words_of_a_short_text_are_what_they_were(given_text):
    """As one pass over its characters would find them."""
    chars = unicodedata.normalize("NFKD", given_text.casefold())
    plain = "".join(
        char if char.isalnum() or unicodedata.category(char) == "Mc" else "" if unicodedata.combining(char) else " "
        for char in chars
    )
    words = [word[: text.MAX_TOKEN_LENGTH] for word in plain.lower().split()]
    assert text.tokens(given_text) == list(dict.fromkeys(words))


def test_a_text_that_grows_without_end_is_read_in_part_only():
    budget = Budget(WRITE)
    text.tokens(GROWS * 100_000, budget=budget)
    assert budget.used <= (text.MAX_NORMALISED + 18 * text.PIECE) // text.NORMALISED_A_STEP
    assert len(text.fold(GROWS * 100_000)) <= 18 * text.MAX_FOLDED


def test_words_stop_at_once_when_the_budget_is_spent():
    budget = Budget(1000)
    with pytest.raises(BudgetSpent):
        text.tokens(GROWS * 100_000, budget=budget)
    assert budget.used <= 1000 + 18 * text.PIECE // text.NORMALISED_A_STEP


# ---- recurrence ------------------------------------------------------------------------------------------------------


@st.composite
def rules(draw: st.DrawFn) -> str:
    parts = [f"FREQ={draw(st.sampled_from(['DAILY', 'WEEKLY', 'MONTHLY', 'YEARLY']))}"]
    numbers = {"BYMONTH": (1, 12), "BYMONTHDAY": (-31, 31), "BYYEARDAY": (-366, 366), "BYWEEKNO": (-53, 53),
               "INTERVAL": (1, 400), "BYHOUR": (0, 23), "BYSETPOS": (-366, 366),
               "COUNT": (1, 5)}  # fmt: skip
    for name in draw(st.lists(st.sampled_from(list(numbers)), unique=True, max_size=5)):
        low, high = numbers[name]
        most = 1 if name in ("INTERVAL", "COUNT") else 40
        values = draw(st.lists(st.integers(low, high).filter(bool), min_size=1, max_size=most, unique=True))
        parts.append(f"{name}={','.join(map(str, values))}")
    if draw(st.booleans()):
        parts.append(f"BYDAY={','.join(draw(st.lists(st.sampled_from(['MO', 'TU', 'SU']), min_size=1, unique=True)))}")
    return ";".join(parts)


@examples(80)
@given(rules(), st.sampled_from(["2024-01-15", "2026-11-30T10:30:00.000Z", "9998-01-01"]))
def test_the_search_for_a_next_date_ends_within_a_bounded_number_of_steps(rule, due):
    budget = Budget(WRITE)
    with suppress(ValueError):  # what a rule may not say is tried elsewhere
        next_due(rule, due, spend=budget.spend)
    assert budget.used <= RULE_STEPS + SEARCH_STEPS * recurrence.MAX_STEPS


def test_a_search_in_vain_is_charged_period_by_period():
    in_vain = Budget(WRITE)
    assert next_due("FREQ=WEEKLY;BYMONTH=2;BYMONTHDAY=30", "2024-01-15", spend=in_vain.spend) is None
    assert in_vain.used > SEARCH_STEPS * recurrence.MAX_STEPS - 100
    near = Budget(WRITE)
    assert next_due("FREQ=WEEKLY", "2024-01-15", spend=near.spend) == "2024-01-22"
    assert near.used < 150
    with pytest.raises(BudgetSpent):
        next_due("FREQ=WEEKLY;BYMONTH=2;BYMONTHDAY=30", "2024-01-15", spend=Budget(1000).spend)


# ---- patches, batches, templates, filters ----------------------------------------------------------------------------


def nodes(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(nodes, inner))


@st.composite
def operations(draw: st.DrawFn) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"op": "add", "path": "/custom_fields/a", "value": ["x"] * draw(st.integers(0, 50))}]
    for number in range(draw(st.integers(0, 20))):
        places = [f"/custom_fields/{n}" for n in range(number)] + ["/custom_fields", "/custom_fields/a", "/labels"]
        source, place = draw(st.sampled_from(places)), f"/custom_fields/{number}"
        kind = draw(st.sampled_from(["copy", "copy", "add", "test"]))
        found.append({"op": kind, "from": source, "path": place, "value": [number] * draw(st.integers(0, 20))})
    return found


@examples(80)
@given(operations())
def test_what_a_json_patch_makes_is_no_larger_than_what_was_counted(given_operations):
    document = world.whole(TASK, id=world.an_id("task", 1), name="t", version=1, labels=["a", "b"])
    budget = Budget(WRITE)
    try:
        patch = json_patch.merge_patch(TASK, document, JsonPatch(given_operations), budget)
    except (Problem, BudgetSpent):
        return
    assert nodes(patch) <= nodes(document) + budget.used
    assert budget.used >= json_patch.OPERATION_STEPS * len(given_operations)


def test_a_patch_that_doubles_is_stopped_by_its_budget():
    document = world.whole(TASK, id=world.an_id("task", 1), name="t", version=1)
    doubling = [{"op": "add", "path": "/custom_fields/a", "value": [1] * 1000}]
    doubling += [{"op": "copy", "from": "/custom_fields/a", "path": "/custom_fields/a/0"}] * 25
    budget = Budget(LIGHT)
    with pytest.raises(BudgetSpent):
        json_patch.merge_patch(TASK, document, JsonPatch(doubling), budget)


TREES = st.recursive(
    st.lists(st.builds(lambda: {"name": "t"}), max_size=100),
    lambda below: st.lists(st.builds(lambda subtasks: {"name": "t", "subtasks": subtasks}, below), max_size=60),
    max_leaves=60,
)


@examples(60)
@given(TREES)
def test_a_template_that_passes_makes_two_hundred_tasks_at_most(tree):
    def count(listed: list[dict[str, Any]]) -> int:
        return sum(1 + count(task.get("subtasks", [])) for task in listed)

    assert bool(projects.check_template_size({"tasks": tree})) == (count(tree) > projects.MAX_TEMPLATE_TASKS)


@examples(60)
@given(st.lists(st.lists(st.text(max_size=3), max_size=200), min_size=1, max_size=20))
def test_reading_a_filter_costs_a_step_for_each_value(lists):
    budget = Budget(UNLIMITED)
    document = {"$or": [{"labels": {"$in": values}} for values in lists]}
    parser = filters.Parser(TASK, lambda target, reference: None, world.NOW, typed=True, budget=budget)
    parser.parse(document)
    values = sum(map(len, lists))
    assert values <= budget.used <= 20 * (values + len(lists))


def weigh(operations: Any) -> Weight:
    """What the operations of a batch come to."""
    return Batch(all_routes()[:-1]).weigh({"operations": operations})


@pytest.mark.parametrize(
    ("operations", "reads"),
    [
        ([{"method": "GET", "path": "/tasks"}, {"method": "QUERY", "path": "/tasks"}], True),
        ([{"method": "get", "path": "/tasks?a=/bulk"}, {"method": "POST", "path": "/v1/tasks/query"}], True),
        ([{"method": "POST", "path": "/tasks/query?cursor=x"}], True),
        ([{"method": "GET", "path": "/tasks"}, {"method": "DELETE", "path": "/tasks/x"}], False),
        ([{"method": "POST", "path": "/tasks?/query"}], False),
        (["no operation"], True),
        (None, False),
    ],
)
def test_a_batch_is_a_read_if_no_operation_can_write(operations, reads):
    assert weigh(operations).writes is not reads


NAMED = [{"name": "x"}] * 120


@pytest.mark.parametrize(
    ("path", "body", "cost"),
    [
        ("/tasks/bulk", {"tasks": NAMED}, 3),
        ("/v1/tasks/%62ulk?dry_run=true", {"ids": NAMED}, 3),
        ("/%74%61%73%6B%73/%62%75%6C%6B", {"tasks": NAMED}, 3),
        ("/tasks/bulk", {"tasks": {"$ref": "l"}}, 21),
        ("/tasks/bulk", {"ids": '{"$ref": "l"}'}, 21),
        ("/tasks/bulk", {"$ref": "l"}, 21),
        ("/tasks/bulk", {"filter": {"id": {"$ref": "l"}}, "set": {}}, 1),
        ("/tasks", {"labels": {"$ref": "l"}}, 1),
        ("/tasks?q=/bulk", {"tasks": NAMED}, 1),
    ],
)
def test_what_an_operation_of_a_batch_costs_however_it_is_written(path, body, cost):
    operation = {"method": "PATCH", "path": path, "body": body}
    assert weigh([operation]).cost == cost
    assert weigh([operation]).heavy is ("ulk" in path.partition("?")[0] or "%6B" in path)
    assert weigh([operation, {"method": "POST", "path": "/%70rojects/x/restore"}]).heavy


def test_no_route_that_writes_can_be_taken_for_a_read():
    for route in all_routes():
        assert weigh([{"method": route.method, "path": route.path}]).writes or not route.writes, route.operation_id


def test_a_deletion_counts_the_size_of_what_it_deletes(db):
    """A few large documents are as much work as many small ones."""
    db.write_sync(world.found_world)
    context = Context(world.a_member(world.WORKSPACES[0]), Actor(world.USERS[0]), world.SECRET)

    def used(description: str) -> int:
        bodies = [{"name": "t", "project_id": world.PROJECTS[0], "description": description}] * 20
        made = db.write_sync(lambda tx: tasks.create_bulk(tx, context, {"tasks": bodies}))
        names = [json.decode(one)["id"] for one in made]

        def unit(tx: Any) -> int:
            tasks.delete_bulk(tx, context, names)
            spent: int = tx.budget.used
            return spent

        return int(db.write_sync(unit))

    small, large = used("x"), used("x " * 20_000)
    assert 20 * (log.ROW_STEPS + log.EVENT_STEPS) <= small < 20 * 200
    assert large - small >= 20 * 40_000 // 250
