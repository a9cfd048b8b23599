"""Which events a webhook is sent: what its filter says, whatever the order of work, and for a bounded amount of it.

Why a second meaning of filters in here: the product's own says what it says; only another reading of the same sentence
notices when it is wrong.
"""

import asyncio
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from taskade_server.consumers import log_reader, matching, webhooks
from taskade_server.consumers.feed import Feed
from taskade_server.consumers.follower import document_of
from taskade_server.consumers.pace import MATCH_STEPS, SLICE_STEPS, Pace
from taskade_server.domain import webhooks as domain_webhooks
from taskade_server.domain.projects import PRIORITIES
from taskade_server.domain.tasks import TASK
from taskade_server.engine import filters, log
from taskade_server.engine.edit import Context
from taskade_server.engine.log import Actor, Change
from taskade_server.kit import ids, json
from taskade_server.kit.budget import Budget
from taskade_server.kit.errors import Invalid
from taskade_server.store.database import Database, Tx
from taskade_server.store.tables import cursors, deliveries
from taskade_server.store.tables.deliveries import FAILED, PENDING

from tests.unit import world
from tests.unit.examples import examples

HOME, ELSEWHERE = world.WORKSPACES
ANA, TOM, MIA = world.USERS
EXPENSIVE = {"$or": [{f"custom_fields.a{number}": {"$contains": "zz"}} for number in range(190)]}


@pytest.fixture(scope="module")
def db(db: Database) -> Database:
    """With people in it."""
    db.write_sync(world.found_world)
    return db


@pytest.fixture(autouse=True)
def empty(db: Database) -> None:
    db.write_sync(forget)


def forget(tx: Tx) -> None:
    world.forget_tasks(tx)
    for table in ("webhooks", "deliveries", "attempts", "webhook_states", "webhook_replays", "cursors"):
        tx.run(f"DELETE FROM {table}")


def add_hook(db: Database, workspace: str = HOME, **body: Any) -> Any:
    context = Context(world.a_member(workspace), Actor(ANA), world.SECRET)
    given = {"url": "https://example.com/", "events": ["task.*"], "workspace_id": workspace, **body}
    return json.decode(db.write_sync(lambda tx: domain_webhooks.create(tx, context, given))[0])


def stored_before(db: Database, document: Any, **body: Any) -> str:
    """The id of a webhook whose filter was stored by a version that kept it as it was written, and of any size."""
    made = add_hook(db, **body)
    text = json.encode({**made, "filter": document})
    db.write_sync(lambda tx: tx.run("UPDATE webhooks SET doc = ? WHERE id = ?", (text, made["id"])))
    return str(made["id"])


def add_tasks(db: Database, number: int, project: str = world.PROJECTS[0], **members: Any) -> None:
    home = world.HOME[project]
    same = {"name": "A task", "status": "pending", "position": "b", "workspace_id": home, "project_id": project}
    tasks = [world.whole(TASK, **{**same, **members}, id=ids.new("task")) for _ in range(number)]
    db.write_sync(lambda tx: log.apply(tx, world.ACTOR, [Change(TASK, "created", task) for task in tasks]))


def deliveries_of(db: Database, webhook_id: str) -> list[deliveries.Delivery]:
    def found(tx: Tx) -> list[deliveries.Delivery]:
        return [
            delivery
            for workspace_id in world.WORKSPACES
            for delivery in deliveries.newest(tx, webhook_id, workspace_id, deliveries.Filter(), None, 1000)
        ]

    return db.read_sync(found)[::-1]


def stored(db: Database, webhook_id: str) -> Any:
    found = db.read_sync(lambda tx: tx.one("SELECT doc FROM webhooks WHERE id = ?", (webhook_id,)))
    assert found is not None
    return json.decode(found[0])


def events_about(db: Database, object_id: str) -> list[str]:
    rows = db.read_sync(lambda tx: tx.all("SELECT type FROM events WHERE object_id = ? ORDER BY seq", (object_id,)))
    return [kind for (kind,) in rows]


# ---- the same as one would expect ------------------------------------------------------------------------------------


def fits(document: dict[str, Any], doc: dict[str, Any]) -> bool:
    """What a filter means, read from the guide: all members of an object hold, and a missing value fits nothing."""
    return all(_one_fits(name, value, doc) for name, value in document.items())


def _one_fits(name: str, value: Any, doc: dict[str, Any]) -> bool:
    if name == "$or":
        return any(fits(part, doc) for part in value)
    if name == "$and":
        return all(fits(part, doc) for part in value)
    if name == "$not":
        return not fits(value, doc)
    field, _, key = name.partition(".")
    present = doc[field].get(key) if key else doc[field]
    values = present if isinstance(present, list) else [] if present is None else [present]
    conditions = value if isinstance(value, dict) else {"$eq": value}
    return all(_holds(operator, operand, values) for operator, operand in conditions.items())


def _holds(operator: str, operand: Any, values: list[Any]) -> bool:
    if operator in ("$ne", "$nin"):
        return not _holds({"$ne": "$eq", "$nin": "$in"}[operator], operand, values)
    if operator == "$exists":
        return bool(values) is operand
    if operator == "$contains":
        return any(operand.lower() in value.lower() for value in values)
    wanted = operand if operator == "$in" else [operand]
    return any(value in wanted for value in values) or (None in wanted and not values)


CONDITIONS = st.one_of(
    st.sampled_from(PRIORITIES).map(lambda value: {"priority": value}),
    st.lists(st.sampled_from(PRIORITIES), max_size=3).map(lambda values: {"priority": {"$nin": values}}),
    st.sampled_from([*world.USERS, None]).map(lambda value: {"assignee": value}),
    st.sampled_from(world.USERS).map(lambda value: {"assignee": {"$ne": value}}),
    st.lists(st.sampled_from(world.LABELS), max_size=2).map(lambda values: {"labels": {"$in": values}}),
    st.sampled_from(["a", "AB", "x"]).map(lambda value: {"name": {"$contains": value}}),
    st.booleans().map(lambda value: {"custom_fields.size": {"$exists": value}}),
    st.sampled_from(["s", "m"]).map(lambda value: {"custom_fields.size": value}),
)
FILTERS = st.recursive(
    CONDITIONS,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"$or": parts}),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"$and": parts}),
        inner.map(lambda part: {"$not": part}),
    ),
    max_leaves=5,
)


def always(document):
    """Whether a filter is true (or, False, untrue) of every task; None if that depends on the task."""
    (name, value), *_ = document.items()
    if name == "$not":
        inner = always(value)
        return None if inner is None else not inner
    if name in ("$and", "$or"):
        parts = [always(part) for part in value]
        decisive = name == "$or"
        return decisive if decisive in parts else None if None in parts else not decisive
    return {"$nin": True, "$in": False}.get(next(iter(value))) if [] in list_of_values(value) else None


def list_of_values(value):
    return [*value.values()] if isinstance(value, dict) else []


EXCLUDING = FILTERS.filter(lambda document: always(document) is not True)
TASKS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["a", "Abc", "bcd", "xX"]),
        "priority": st.sampled_from(PRIORITIES),
        "assignee": st.sampled_from([None, *world.USERS]),
        "labels": st.lists(st.sampled_from(world.LABELS), unique=True, max_size=2),
        "custom_fields": st.sampled_from([{}, {"size": "s"}, {"size": ["s", "m"]}, {"other": "m"}]),
    }
)
HISTORIES = st.lists(st.tuples(st.sampled_from(world.PROJECTS), TASKS), min_size=1, max_size=12)


@examples(60)
@given(
    wanted=st.lists(st.tuples(st.sampled_from(world.WORKSPACES), st.none() | EXCLUDING), min_size=1, max_size=5),
    history=HISTORIES,
    turn=st.sampled_from([1, log_reader.TURN_STEPS]),
)
def test_each_webhook_is_sent_what_its_filter_says_in_however_many_turns(db, wanted, history, turn):
    db.write_sync(forget)
    made = [(add_hook(db, home, filter=document)["id"], home, document) for home, document in wanted]
    for project, members in history:
        add_tasks(db, 1, project, **members)
    while behind := db.read_sync(lambda tx: deliveries.behind(tx, domain_webhooks.READER)):
        for workspace_id, position in behind:
            page = db.read_sync(partial(webhooks.read_page, workspace_id=workspace_id, position=position))
            steps = list(matching.match_events(page, Budget(turn)))
            assert page.looked == (1 if turn == 1 else len(page.events)) and max(steps) <= MATCH_STEPS + 100
            db.write_sync(partial(webhooks.write_deliveries, page=page))
    for webhook_id, home, document in made:
        expected = [
            event.id
            for event in db.read_sync(partial(log.read_after, workspace_id=home, seq=0))
            if event.resource == "task" and (document is None or fits(document, json.decode(event.data)))
        ]
        found = deliveries_of(db, webhook_id)
        assert [one.event_id for one in found] == expected
        assert {one.state for one in found} <= {PENDING}
        assert [one.previous_seq for one in found] == [None, *(one.seq for one in found)][: len(found)]


def test_a_cursor_that_was_moved_meanwhile_lets_nothing_be_made_twice(db):
    webhook = add_hook(db)["id"]
    add_tasks(db, 3)
    ((workspace_id, position),) = db.read_sync(lambda tx: deliveries.behind(tx, domain_webhooks.READER))
    first, second = (
        db.read_sync(partial(webhooks.read_page, workspace_id=workspace_id, position=position)) for _ in range(2)
    )
    for page in (first, second):
        list(matching.match_events(page, Budget(log_reader.TURN_STEPS)))
    db.write_sync(partial(webhooks.write_deliveries, page=first))
    with pytest.raises(log_reader.Overtaken):
        db.write_sync(partial(webhooks.write_deliveries, page=second))
    assert len(deliveries_of(db, webhook)) == 3
    assert db.read_sync(lambda tx: cursors.position(tx, domain_webhooks.READER, HOME)) == first.decided


# ---- bounded work ----------------------------------------------------------------------------------------------------


def decided(db: Database, workspace: str = HOME, steps: int = 10**9) -> tuple[matching.EventPage, list[int]]:
    position = dict(db.read_sync(lambda tx: deliveries.behind(tx, domain_webhooks.READER)))[workspace]
    page = db.read_sync(partial(webhooks.read_page, workspace_id=workspace, position=position))
    return page, list(matching.match_events(page, Budget(steps)))


@pytest.mark.parametrize(("hooks_made", "conditions", "events"), [(1, 10, 10), (5, 10, 10), (5, 20, 10), (5, 20, 40)])
def test_the_work_grows_with_webhooks_times_conditions_times_events_and_no_faster(db, hooks_made, conditions, events):
    """And by nothing for each field that a task has: its values are worked out once for all filters."""
    document = {"$or": [{f"custom_fields.a{number}": {"$contains": "zz"}} for number in range(conditions)]}
    for _ in range(hooks_made):
        add_hook(db, filter=document)
    add_tasks(db, events, custom_fields={f"a{number}": "some text" for number in range(100)})
    _, steps = decided(db)
    assert sum(steps) <= events * (hooks_made * (2 * conditions + 2) + 20)
    assert max(steps) <= 2 * conditions + 20


def test_the_rows_of_a_document_are_made_once_for_all_conditions(monkeypatch):
    calls = []
    member = TASK.fields["custom_fields"]

    def side_texts(self, value):
        calls.append(value)
        return [(".a", "x", None)]

    monkeypatch.setattr(type(member), "side_texts", side_texts)
    doc = world.whole(TASK, id=ids.new("task"), custom_fields={"a": "x"})
    facts = filters.Facts(TASK, doc)
    node = filters.Or(tuple(filters.Leaf(member, "contains", ("zz",), f".a{number}") for number in range(150)))
    assert not any(filters.holds(node, facts) for _ in range(100))
    assert len(calls) == 1


def test_a_page_of_expensive_filters_is_worked_through_in_short_slices(db):
    for _ in range(20):
        add_hook(db, filter={"$or": EXPENSIVE["$or"][:20]})
    add_tasks(db, 30, custom_fields={f"a{number}": ["some text"] * 50 for number in range(100)})
    page, _ = decided(db, steps=0)
    assert page.looked == 1, "one turn decides one event when that has used its steps up"
    pace, rounds = Pace(), []

    async def scene():
        async def other():
            while True:
                rounds.append(1)
                await asyncio.sleep(0)

        beside = asyncio.create_task(other())
        fresh, steps = decided(db)
        for some in steps:
            pace.add(some)
            await pace.turn(HOME)
        beside.cancel()
        return fresh, sum(steps)

    fresh, total = asyncio.run(scene())
    assert fresh.looked == 50, "those of the webhooks themselves included"
    assert pace.longest <= SLICE_STEPS + MATCH_STEPS
    assert len(rounds) >= total // (SLICE_STEPS + MATCH_STEPS)


def test_however_many_read_at_once_each_round_of_the_event_loop_does_one_slice():
    """And each owner gets a turn before any gets a second."""
    pace, work = Pace(), []

    async def read(owner):
        for _ in range(4):
            await pace.turn(owner)
            work.append((rounds[0], owner))
            pace.add(SLICE_STEPS)

    rounds = [0]

    async def scene():
        async def count():
            while True:
                await asyncio.sleep(0)
                rounds[0] += 1

        beside = asyncio.create_task(count())
        await asyncio.gather(*(read("many") for _ in range(20)), read("one"))
        beside.cancel()

    asyncio.run(scene())
    assert len(work) == 84 and pace.longest == SLICE_STEPS
    assert len({place for place, _ in work}) == 84, "one slice in each round"
    assert [owner for _, owner in work[:8]].count("one") >= 3


def test_one_workspace_with_expensive_filters_does_not_hold_up_another(db):
    share = matching.FairShare()
    places = [(HOME, 0), (ELSEWHERE, 0)]
    share.charge({HOME: 40_000, ELSEWHERE: 200})
    assert share.order(places) == [(ELSEWHERE, 0), (HOME, 0)]
    for _ in range(40):
        share.charge({ELSEWHERE: 200})
    share.charge({ELSEWHERE: 90_000})
    assert share.order(places) == [(HOME, 0), (ELSEWHERE, 0)], "what was spent long ago is forgotten"


def test_a_filter_that_turns_out_too_expensive_ends_its_webhook_and_leaves_a_record(db, monkeypatch):
    monkeypatch.setattr(matching, "MATCH_STEPS", 20)
    made = add_hook(db, filter={"$or": EXPENSIVE["$or"][:15]})["id"]
    beside = add_hook(db)["id"]
    add_tasks(db, 3, custom_fields={"a1": ["some text"] * 50})
    world.fan_out(db)
    assert [one.state for one in deliveries_of(db, made)] == [FAILED] * 3, "each event is on record"
    assert [one.state for one in deliveries_of(db, beside)] == [PENDING] * 3
    doc = stored(db, made)
    assert (doc["enabled"], doc["disabled_reason"]) == (False, "filter_too_expensive")
    assert events_about(db, made)[-1] == "webhook.disabled"


def test_an_old_filter_of_any_size_ends_its_webhook_without_being_evaluated(db):
    made = stored_before(db, EXPENSIVE)
    add_tasks(db, 2, custom_fields={f"a{number}": "zz" for number in range(100)})
    page, steps = decided(db)
    assert page.ended == {made: "filter_too_expensive"} and sum(steps) < 20
    world.fan_out(db)
    assert [one.state for one in deliveries_of(db, made)] == [FAILED] * 2
    assert stored(db, made)["disabled_reason"] == "filter_too_expensive"


def test_a_filter_that_is_too_expensive_is_refused_with_its_size_and_the_limit(db):
    with pytest.raises(Invalid) as refused:
        add_hook(db, filter=EXPENSIVE)
    ((code, pointer, detail),) = [(issue.code, issue.pointer, issue.detail) for issue in refused.value.errors]
    assert (code, pointer) == ("too_expensive", "/filter") and "190" in detail and "50" in detail
    with pytest.raises(Invalid) as refused:
        add_hook(db, filter={"$or": EXPENSIVE["$or"][:50]})
    assert "250" in refused.value.errors[0].detail and "150" in refused.value.errors[0].detail
    assert add_hook(db, filter={"$or": EXPENSIVE["$or"][:30]})


def test_the_filters_of_a_workspace_are_bounded_together(db):
    document = {"$or": EXPENSIVE["$or"][:30]}
    made = [add_hook(db, filter=document)["id"] for _ in range(domain_webhooks.MAX_TOTAL_WEIGHT // 150)]
    with pytest.raises(Invalid) as refused:
        add_hook(db, filter=document)
    assert "2,100" in refused.value.errors[0].detail and "2,000" in refused.value.errors[0].detail
    off = add_hook(db, filter=document, enabled=False)["id"]
    context = Context(world.a_member(HOME), Actor(ANA), world.SECRET)
    with pytest.raises(Invalid):
        db.write_sync(lambda tx: domain_webhooks.update(tx, context, off, {"enabled": True}))
    db.write_sync(lambda tx: domain_webhooks.update(tx, context, made[0], {"enabled": False}))
    db.write_sync(lambda tx: domain_webhooks.update(tx, context, off, {"enabled": True}))
    assert add_hook(db, ELSEWHERE, filter=document), "another workspace has a bound of its own"


# ---- no silence ------------------------------------------------------------------------------------------------------


def test_a_filter_that_was_stored_with_names_gets_ids_when_it_is_first_used(db):
    document = {"$or": [{"assignee": {"$in": ["tom", MIA]}}, {"$not": {"assignee": {"$ne": "mia@example.com"}}}]}
    made = stored_before(db, document)
    add_tasks(db, 1, assignee=TOM)
    add_tasks(db, 1, assignee=MIA)
    add_tasks(db, 1, assignee=ANA)
    world.fan_out(db)
    assert len(deliveries_of(db, made)) == 2
    assert stored(db, made)["filter"] == {
        "$or": [{"assignee": {"$in": [TOM, MIA]}}, {"$not": {"assignee": {"$ne": MIA}}}]
    }
    assert events_about(db, made) == ["webhook.created", "webhook.updated"]


def test_a_filter_that_was_stored_with_a_name_that_nobody_has_ends_its_webhook(db):
    made = stored_before(db, {"$or": [{"assignee": "whoever-that-was"}, {"priority": "urgent"}]})
    add_tasks(db, 2, priority="urgent")
    world.fan_out(db)
    assert [one.state for one in deliveries_of(db, made)] == [FAILED] * 2
    doc = stored(db, made)
    assert (doc["enabled"], doc["disabled_reason"]) == (False, "filter_invalid")
    assert events_about(db, made)[-1] == "webhook.disabled"


def test_relative_dates_stay_relative(db):
    document = {"due_date": {"$lt": "today"}}
    made = add_hook(db, filter=document)
    assert made["filter"] == document
    with world.frozen_clock(lambda: world.NOW):
        add_tasks(db, 1, due_date="2024-01-15")
        world.fan_out(db)
    assert deliveries_of(db, made["id"]) == []
    with world.frozen_clock(lambda: world.NOW + 86_400_000):
        add_tasks(db, 1, due_date="2024-01-15")
        world.fan_out(db)
    assert len(deliveries_of(db, made["id"])) == 1


def test_a_filter_that_is_right_for_one_resource_only_speaks_of_that_one(db):
    made = add_hook(db, events=["*"], filter={"id": world.an_id("task", 9)})
    add_tasks(db, 1)
    world.fan_out(db)
    assert stored(db, made["id"])["enabled"]


def test_a_filter_that_is_changed_while_its_webhook_is_disabled_is_kept_with_ids(db):
    context = Context(world.a_member(HOME), Actor(ANA), world.SECRET)
    made = add_hook(db, enabled=False)["id"]
    db.write_sync(lambda tx: domain_webhooks.update(tx, context, made, {"filter": {"assignee": "tom"}}))
    assert stored(db, made)["filter"] == {"assignee": TOM}


def test_a_workspace_that_cannot_be_read_holds_up_no_other(db, monkeypatch):
    webhook = add_hook(db, ELSEWHERE)["id"]
    add_hook(db, HOME)
    add_tasks(db, 1, world.PROJECTS[0])
    add_tasks(db, 1, world.PROJECTS[2])
    read_page = webhooks.read_page

    def failing(tx, workspace_id, position):
        if workspace_id == HOME:
            raise ZeroDivisionError
        return read_page(tx, workspace_id, position)

    monkeypatch.setattr(webhooks, "read_page", failing)
    lease: Any = SimpleNamespace(hold=lambda tx: None)

    async def scene():
        out: Any = None
        reader = webhooks.Webhooks(db, Feed(db), out, b"", 30)
        position = db.read_sync(lambda tx: cursors.position(tx, domain_webhooks.READER, ELSEWHERE))
        await reader._reader._take_turn(lease, [(HOME, 0), (ELSEWHERE, position)])
        with pytest.raises(ZeroDivisionError):
            await reader._reader._take_turn(lease, [(HOME, 0)])

    asyncio.run(scene())
    assert len(deliveries_of(db, webhook)) == 1


@pytest.mark.parametrize("failing", ["subscription_refusal", "Parser", "with_ids"])
def test_a_fault_in_one_filter_that_nobody_foresaw_stops_no_other_webhook(db, monkeypatch, caplog, failing):
    """Wherever it comes up: while its size is judged, while it is parsed, and while its names become ids."""
    before = add_hook(db, filter={"priority": "low"})["id"]
    broken = stored_before(db, {"$or": [{"assignee": "tom"}, {"name": "The faulty one"}]})
    after = add_hook(db, filter={"priority": "low"})["id"]
    add_tasks(db, 2, priority="low", assignee=TOM)
    whole = getattr(filters, failing)

    class Planted(filters.Parser):
        def parse(self, document, *place):
            refuse(document)
            return super().parse(document, *place)

    def refuse(document):
        if "The faulty one" in json.encode(document):
            raise ZeroDivisionError("planted")

    def planted(document, *rest):
        refuse(document)
        return whole(document, *rest)

    monkeypatch.setattr(filters, failing, Planted if failing == "Parser" else planted)
    world.fan_out(db)
    for beside in (before, after):
        assert [one.state for one in deliveries_of(db, beside)] == [PENDING] * 2
        assert stored(db, beside)["enabled"]
    doc = stored(db, broken)
    if failing == "with_ids":  # it can be compared all the same
        assert doc["enabled"] and [one.state for one in deliveries_of(db, broken)] == [PENDING] * 2
    else:
        assert (doc["enabled"], doc["disabled_reason"]) == (False, "filter_invalid")
        assert [one.state for one in deliveries_of(db, broken)] == [FAILED] * 2
    assert any(broken in record.getMessage() and record.exc_info for record in caplog.records)
    world.fan_out(db)
    add_tasks(db, 1, priority="low")
    world.fan_out(db)
    assert [len(deliveries_of(db, beside)) for beside in (before, after)] == [3, 3]


def test_a_filter_that_fails_at_one_event_ends_its_webhook_with_a_reason(db, monkeypatch, caplog):
    """Not only while it is made ready: also when it is compared with an event."""
    broken = add_hook(db, filter={"name": "The faulty one"})["id"]
    beside = add_hook(db, filter={"priority": "low"})["id"]
    whole = filters.holds

    def planted(node, facts, budget):
        if "The faulty one" in repr(node):
            raise ZeroDivisionError("planted")
        return whole(node, facts, budget)

    monkeypatch.setattr(filters, "holds", planted)
    add_tasks(db, 2, priority="low")
    world.fan_out(db)
    assert [one.state for one in deliveries_of(db, broken)] == [FAILED] * 2, "each event is on record"
    doc = stored(db, broken)
    assert (doc["enabled"], doc["disabled_reason"]) == (False, "filter_invalid")
    assert events_about(db, broken)[-1] == "webhook.disabled"
    assert any(broken in record.getMessage() and record.exc_info for record in caplog.records)
    assert [one.state for one in deliveries_of(db, beside)] == [PENDING] * 2 and stored(db, beside)["enabled"]


def test_an_event_that_cannot_be_read_ends_no_webhook(db, monkeypatch, caplog):
    """Every filter would fail at it, and none is to blame."""
    made = [add_hook(db, filter={"priority": "low"})["id"] for _ in range(2)]

    def planted(event):
        if "The unreadable one" in event.data:
            raise ValueError("planted")
        return document_of(event)

    monkeypatch.setattr("taskade_server.consumers.matching.document_of", planted)
    add_tasks(db, 1, priority="low", name="The unreadable one")
    add_tasks(db, 1, priority="low")
    world.fan_out(db)
    for webhook in made:
        assert [one.state for one in deliveries_of(db, webhook)] == [FAILED, PENDING]
        assert stored(db, webhook)["enabled"]
    assert sum("cannot be read" in record.getMessage() for record in caplog.records) == 1
