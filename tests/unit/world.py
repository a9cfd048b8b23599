"""A small world for the engine without a server: two teams and a few people, and tasks that are made up at random.

Why made up from small pools: two values that are nearly equal (another case, another type, a day and its first
moment) find more faults than any number of values that have nothing to do with each other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

from hypothesis import strategies as st
from taskade_server.consumers import log_reader, matching, webhooks
from taskade_server.domain import ordering
from taskade_server.domain import webhooks as domain_webhooks
from taskade_server.domain.identity import MEMBER, USER
from taskade_server.domain.projects import DEFAULT_STATUSES, PRIORITIES, PROJECT
from taskade_server.domain.tasks import TASK
from taskade_server.domain.workspaces import WORKSPACE
from taskade_server.engine import log
from taskade_server.engine.access import Grant, Principal
from taskade_server.engine.log import Actor, Change
from taskade_server.engine.model import Resource, side_value
from taskade_server.kit import ids, json, time
from taskade_server.kit.budget import Budget
from taskade_server.store.database import Database, Tx
from taskade_server.store.tables import deliveries

SECRET = b"a secret of the tests, long enough"
NOW = time.parse_ms("2024-01-15T10:30:00Z")


def an_id(prefix: str, number: int) -> str:
    """The same id each time; ids of higher numbers sort later."""
    return f"{prefix}_{ids.encode((NOW << 80) | (7 << 76) | (2 << 62) | number)}"


WORKSPACES = [an_id("ws", number) for number in (1, 2)]
PROJECTS = [an_id("proj", number) for number in (1, 2, 3)]
HOME = dict(zip(PROJECTS, [WORKSPACES[0], WORKSPACES[0], WORKSPACES[1]], strict=True))
USERS = [an_id("user", number) for number in (1, 2, 3)]
HANDLES = ["ana", "tom", "mia"]
ACTOR = Actor(USERS[0], None, an_id("req", 1))


def whole(resource: Resource, **members: Any) -> dict[str, Any]:
    """A document with every member, from some of them."""
    defaults = {item.name: json.decode(json.encode(item.default)) for item in resource.fields.values()}
    return defaults | members


def created(resource: Resource, **members: Any) -> Change:
    return Change(resource, "created", whole(resource, **members))


def found_world(tx: Tx) -> None:
    """The teams, projects and people that the made-up tasks refer to."""
    changes = [created(WORKSPACE, id=name, workspace_id=name, name="A team") for name in WORKSPACES]
    changes += [
        created(PROJECT, id=name, workspace_id=home, name="A project", statuses=DEFAULT_STATUSES)
        for name, home in HOME.items()
    ]
    for user, handle in zip(USERS, HANDLES, strict=True):
        member = {"user": user, "role": "member"}
        changes.append(
            created(
                USER,
                id=user,
                workspace_id=WORKSPACES[0],
                name=handle.title(),
                handle=handle,
                email=f"{handle}@example.com",
            )
        )
        changes += [created(MEMBER, id=ids.new("mem"), workspace_id=name, **member) for name in WORKSPACES]
    log.apply(tx, ACTOR, changes)


def forget_tasks(tx: Tx) -> None:
    """As if no task had ever been."""
    for table in ("tasks", "task_values", "events", "log_heads", *(["tasks_fts"] if tx.dialect == "sqlite" else [])):
        tx.run(f"DELETE FROM {table}")


def frozen_clock(clock: Callable[[], int]) -> Any:
    """Both databases are told the same time, so that their documents are the same."""
    return mock.patch.object(time, "now_ms", clock)


# ---- made-up tasks ---------------------------------------------------------------------------------------------------

CHARACTERS = "aAbBéÉßſıİΣς ﬁ%_\\'\"-.,()[]😀中\u0301\t"
TEXTS = st.one_of(
    st.sampled_from(["a", "A", "ab", "Ab", "straße", "STRASSE", "Café", "cafe\u0301", "50%", "a_b", "10", "9", "null"]),
    st.text(alphabet=CHARACTERS, min_size=1, max_size=6),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=4),
)
LABELS = ["urgent", "Urgent", "client-work", "中", "a"]
MOMENTS = [
    "2024-01-14", "2024-01-14T23:59:59.999Z", "2024-01-15", "2024-01-15T00:00:00.000Z", "2024-01-15T10:30:00.000Z",
    "2024-01-16", "2024-02-29", "0001-01-01", "9999-12-31",
]  # fmt: skip
NUMBERS: list[float] = [0, 1, 1.0, 2, 2.5, 10, 9, 0.1, 1e-7, 123456789.125]
CUSTOM_KEYS = ["size", "x.y", "größe", "2024"]
LONG = ["x" * 199 + "b", "x" * 201, "x" * 201 + "b", side_value("x" * 201)]
"""Around the length of which the side table holds a digest; the last one looks as if it were one."""
CUSTOM_VALUES = st.one_of(
    st.sampled_from([*NUMBERS, -1, -2.5, True, False, "1", "10", "9", "1.0", "true", "2024-01-15", "a", "A", *LONG]),
    st.lists(st.sampled_from(["a", "b", "1", "10"]), max_size=3),
    TEXTS,
)
STATUSES = ["pending", "in_progress", "completed", "Pending"]


@dataclass(frozen=True)
class Made:
    """A made-up task, and whether it lies in the trash."""

    doc: dict[str, Any]
    trashed: bool


@st.composite
def a_task(draw: st.DrawFn, number: int) -> Made:
    project = draw(st.sampled_from(PROJECTS))
    maybe = st.none() | st.sampled_from(MOMENTS)
    earlier = [an_id("task", other) for other in range(number)][-3:]
    done = draw(st.none() | st.sampled_from([NOW, NOW - time.DAY_MS]))
    task_id = an_id("task", number)
    doc = whole(
        TASK,
        id=task_id,
        workspace_id=HOME[project],
        project_id=project,
        parent_id=draw(st.sampled_from([None, *earlier])),
        name=draw(TEXTS),
        description=draw(st.none() | TEXTS),
        status=draw(st.sampled_from(STATUSES)),
        priority=draw(st.sampled_from(PRIORITIES)),
        assignee=draw(st.sampled_from([None, *USERS])),
        labels=draw(st.lists(st.sampled_from(LABELS), unique=True, max_size=3)),
        start_date=draw(maybe),
        due_date=draw(maybe),
        completed_at=None if done is None else time.format_ms(done),
        position=draw(st.sampled_from(["b", "bb", "c", ordering.initial(task_id)])),
        estimate=draw(st.none() | st.sampled_from(NUMBERS)),
        recurrence=draw(st.sampled_from([None, "FREQ=DAILY", "FREQ=WEEKLY"])),
        blocked_by=draw(st.lists(st.sampled_from(earlier), unique=True, max_size=2)) if earlier else [],
        custom_fields=draw(st.dictionaries(st.sampled_from(CUSTOM_KEYS), CUSTOM_VALUES, max_size=3)),
    )
    return Made(doc, draw(st.integers(0, 5)) == 0)


@st.composite
def some_tasks(draw: st.DrawFn, first: int = 1, most: int = 8) -> list[Made]:
    return [draw(a_task(first + place)) for place in range(draw(st.integers(0, most)))]


def plant(db: Database, tasks: Sequence[Made]) -> list[dict[str, Any]]:
    """Write made-up tasks through the log; returns their documents as stored."""

    def unit(tx: Tx) -> list[dict[str, Any]]:
        changes = [Change(TASK, "created", json.decode(json.encode(task.doc))) for task in tasks]
        texts = log.apply(tx, ACTOR, changes)
        for place, task in enumerate(tasks):
            if task.trashed:
                before = json.decode(texts[place])
                root = {"trash_root": task.doc["id"]}
                change = Change(TASK, "deleted", dict(before), before, changes[place].n, private=root)
                texts[place] = log.apply(tx, ACTOR, [change])[0]
        return [json.decode(text) for text in texts]

    return db.write_sync(unit)


@st.composite
def a_principal(draw: st.DrawFn) -> Principal:
    """A member of one team or both; sometimes a guest, or one with projects hidden from them."""
    grants = {}
    for name in draw(st.lists(st.sampled_from(WORKSPACES), unique=True, max_size=2)):
        some = st.frozensets(st.sampled_from(PROJECTS))
        match draw(st.sampled_from(["member", "member", "guest", "outside private projects"])):
            case "guest":
                grants[name] = Grant(name, "guest", only=draw(some))
            case "outside private projects":
                grants[name] = Grant(name, "member", hidden=draw(some))
            case _:
                grants[name] = Grant(name, "member")
    return Principal(USERS[0], None, frozenset("*"), grants, WORKSPACES[0])


def a_member(*workspaces: str) -> Principal:
    """A member who sees everything in some teams."""
    grants = {name: Grant(name, "member") for name in workspaces}
    return Principal(USERS[0], None, frozenset("*"), grants, workspaces[0])


# ---- webhooks --------------------------------------------------------------------------------------------------------


def fan_out(db: Database) -> None:
    """Turn all events into deliveries, as the reader of the log for webhooks does, one workspace at a time."""
    while behind := db.read_sync(lambda tx: deliveries.behind(tx, domain_webhooks.READER)):
        for workspace_id, position in behind:
            page = db.read_sync(partial(webhooks.read_page, workspace_id=workspace_id, position=position))
            for _ in matching.match_events(page, Budget(log_reader.TURN_STEPS)):
                pass
            db.write_sync(partial(webhooks.write_deliveries, page=page))
