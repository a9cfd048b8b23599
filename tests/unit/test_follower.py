"""What a subscriber is told, and what it may not see any more; and how a list becomes another one."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from taskade_server.consumers.feed import Feed
from taskade_server.consumers.follower import EventSelection, Follower, RenderedEvents, taken
from taskade_server.consumers.live_query import steps
from taskade_server.domain.projects import DEFAULT_STATUSES, PROJECT
from taskade_server.domain.tasks import TASK
from taskade_server.engine import log
from taskade_server.engine.access import Grant, Principal
from taskade_server.engine.log import Change
from taskade_server.kit import ids
from taskade_server.store.database import connect

from tests.unit.world import ACTOR, USERS, created

HERE = SEEN = HIDDEN = ""


@pytest.fixture(autouse=True)
def elsewhere():
    """The database is shared: each test has a workspace of its own."""
    global HERE, SEEN, HIDDEN
    HERE, SEEN, HIDDEN = ids.new("ws"), ids.new("proj"), ids.new("proj")


def principal(**grant) -> Principal:
    return Principal(USERS[0], None, frozenset("*"), {HERE: Grant(HERE, "member", **grant)}, HERE)


@given(
    st.lists(st.integers(0, 20), unique=True), st.lists(st.integers(0, 20), unique=True), st.sets(st.integers(0, 20))
)
def test_steps_make_one_list_another(before, after, changed):
    """As a client folds them; what changed may stand anywhere, what did not keeps its order."""
    kept = [name for name in before if name in after and name not in changed]
    moving = iter(kept)
    order = [next(moving) if name in kept else name for name in after]

    def rendered(name, version):
        return f'{{"id":"{name}","version":{version}}}'

    old = [rendered(name, 1) for name in before]
    new = [rendered(name, 2 if name in changed else 1) for name in order]
    _, prints = steps({}, old)
    found, prints = steps(prints, new)
    copy = dict(zip(map(str, before), old, strict=True))
    places = list(map(str, before))
    for step in found:
        if step.id in places:
            places.remove(step.id)
            copy.pop(step.id)
        if step.kind != "removed":
            places.insert(0 if step.after is None else places.index(step.after) + 1, step.id)
            copy[step.id] = str(step.document)
    assert [copy[name] for name in places] == new
    assert steps(prints, new)[0] == []


@pytest.fixture
def place(db):
    return db._path if db.dialect == "sqlite" else db._url


def write(db, *changes):
    db.write_sync(lambda tx: log.apply(tx, ACTOR, changes))


def a_project(name, **members):
    return created(PROJECT, id=name, workspace_id=HERE, name="A project", statuses=DEFAULT_STATUSES, **members)


def a_task(project, name="A task"):
    return created(
        TASK, id=ids.new("task"), workspace_id=HERE, project_id=project, name=name, status="pending", position="a"
    )


def follow(place, wanted, callers, rounds=1):
    """What a follower is told from the beginning, with one principal after another."""

    async def run():
        told = []
        async with connect(place) as db:
            feed = Feed(db)
            feed.start()
            waiting = iter(callers)

            async def caller(_):
                return next(waiting)

            follower = Follower(feed, RenderedEvents(), wanted, caller, 0)
            for _ in range(rounds):
                frames = await follower.next(0.05)
                told.append([(frame.type, frame.seq) for frame in frames])
            await feed.stop()
        return told

    return asyncio.run(run())


def test_who_may_not_see_is_not_told_and_gets_on(db, place):
    write(db, a_project(SEEN), a_project(HIDDEN), a_task(SEEN), a_task(HIDDEN), a_task(SEEN))
    (told,) = follow(place, EventSelection(HERE), [principal(hidden=frozenset({HIDDEN}))])
    assert told == [("project.created", 1), ("task.created", 3), ("task.created", 5)]
    (told,) = follow(place, EventSelection(HERE, types=frozenset({"task.created"}), project_id=SEEN), [principal()])
    assert told == [("task.created", 3), ("task.created", 5)]


def test_a_right_that_ends_is_told_once_whatever_tells_it(db, place):
    made = a_project(SEEN, visibility="workspace")
    write(db, made)
    before = {**made.doc, "version": 1}
    write(db, Change(PROJECT, "updated", {**before, "visibility": "private"}, before, made.n))
    less = principal(hidden=frozenset({SEEN}))
    assert follow(place, EventSelection(HERE), [less]) == [[("access.revoked", 2)]], "from the log"
    member = principal(project_roles={SEEN: "editor"})
    told = follow(place, EventSelection(HERE), [member, less, member, less], rounds=4)
    assert told[1:] == [[("access.revoked", None)], [], [("access.revoked", None)]], "from the rights"


def test_what_an_event_took():
    base = log.Event(
        HERE,
        1,
        ids.new("evt"),
        "task.updated",
        "task",
        "task_1",
        HIDDEN,
        None,
        None,
        None,
        0,
        "{}",
        f'{{"project_id":"{SEEN}"}}',
        None,
        None,
        None,
    )
    guest = principal(only=frozenset({SEEN}))
    assert taken(guest, base) == ("task", "task_1", SEEN)
    assert taken(principal(project_roles={HIDDEN: "viewer"}), base) is None, "the reader sees where it went"
    assert taken(principal(only=frozenset()), base) is None, "the reader never saw it"
    assert taken(principal(), base) is None, "nothing is known of the place that it was in"
    known = replace_event(base, sight=log.Sight(open=frozenset({(HERE, SEEN)})))
    assert taken(principal(), known) == ("task", "task_1", SEEN)
    member = replace_event(base, type="member.removed", resource="member", data=f'{{"user":"{USERS[0]}"}}')
    assert taken(guest, member) == ("project", HIDDEN, HIDDEN)
    assert taken(guest, replace_event(member, data=f'{{"user":"{USERS[1]}"}}')) is None
    assert taken(guest, replace_event(base, previous=None)) is None


def replace_event(event, **members):
    return event._replace(**members)
