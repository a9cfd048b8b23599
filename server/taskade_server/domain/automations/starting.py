"""Starting runs: once for each cause, in the order that the mode asks for, within budgets, and never in a circle."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from taskade_server.engine.log import Event
from taskade_server.kit import ids, json
from taskade_server.store.database import Tx
from taskade_server.store.tables import runs
from taskade_server.store.tables.runs import Run

MAX_QUEUED: Final = 100
"""How many runs of one lane may wait for each other."""
MAX_CHAIN: Final = 5
"""How many automations may lead to each other."""
MAX_REENTRANT: Final = 10
STARTS_AN_HOUR: Final = 1_000
"""How many runs of one automation may begin within an hour; further ones wait for the next hours."""
MAX_STARTS: Final = 10_000
"""How many runs of one automation may be started within an hour, those that wait included."""
STARTS_OF_OBJECT_AN_HOUR: Final = 60
HOUR_MS: Final = 3_600_000

LOOP: Final = "loop"
BUDGET: Final = "budget"
BUSY: Final = "busy"
FULL: Final = "queue_full"


@dataclass(slots=True)
class Cause:
    """What starts a run. `name` is the same for the same thing, however often it is met; `at` is epoch ms."""

    name: str
    at: int
    event_seq: int | None = None
    event_id: str | None = None
    object_id: str | None = None
    project_id: str | None = None
    input: dict[str, Any] | None = None
    chain: Sequence[str] = ()


def cause_of(event: Event) -> Cause:
    """The cause that an event is."""
    return Cause(
        f"event:{event.seq}",
        event.at,
        event_seq=event.seq,
        event_id=event.id,
        object_id=event.object_id,
        project_id=event.project_id,
        chain=chain_of(event.origin),
    )


def chain_of(origin: str | None) -> list[str]:
    """The automations that led to an event, by the `origin` that the log has of it."""
    found = json.decode(origin) if origin else {}
    return [*found.get("chain", ()), found["automation_id"]] if found.get("type") == "automation" else []


def start(
    tx: Tx, document: dict[str, Any], version: int, cause: Cause, now: int, place: tuple[int, str] | None = None
) -> Run:
    """Start a run of an automation, or put on record why none is started. One cause starts one run.

    `place` is where it begins, if not at the first action: the number of the instruction, and the memory as JSON text.
    """
    run = new(document, version, cause, now)
    if place is not None:
        run = run._replace(position=place[0], memory=place[1])
    refusal = _refusal(tx, document, cause, now)
    if refusal is not None:
        reason, detail = refusal
        run = run._replace(state=runs.SKIPPED, reason=reason, detail=detail, wake_at=None, finished_at=now)
    else:
        if document["mode"] != "parallel":
            run = _in_lane(tx, document["mode"], run, now)
        run = _in_its_hour(tx, run, now)
    runs.add(tx, [run])
    return run


def skip(tx: Tx, document: dict[str, Any], version: int, cause: Cause, now: int, reason: tuple[str, str]) -> None:
    """Put on record that no run is started, and why: a word and a sentence."""
    word, detail = reason
    run = new(document, version, cause, now)
    runs.add(tx, [run._replace(state=runs.SKIPPED, reason=word, detail=detail, wake_at=None, finished_at=now)])


def start_by_hand(
    tx: Tx,
    document: dict[str, Any],
    cause: str,
    given: dict[str, Any],
    object_id: str | None,
    now: int,
    chain: Sequence[str] = (),
) -> Run:
    """Start a run of an automation with a trigger by hand, as it is now."""
    found = Cause(cause, now, object_id=object_id, input=given, chain=chain)
    return start(tx, document, document["version"], found, now)


def new(document: dict[str, Any], version: int, cause: Cause, now: int) -> Run:
    """A run that is to begin at once; it is not written."""
    run_id = ids.new("run")
    about = cause.object_id or "" if document["key"] == "object" else ""
    lane = run_id if document["mode"] == "parallel" else f"{document['id']}:{about}"
    return Run(
        id=run_id,
        workspace_id=document["workspace_id"],
        automation_id=document["id"],
        version=version,
        cause=cause.name,
        event_seq=cause.event_seq,
        event_id=cause.event_id,
        object_id=cause.object_id,
        project_id=cause.project_id,
        lane=lane,
        shard=runs.shard_of(lane),
        state=runs.QUEUED,
        reason=None,
        detail=None,
        position=0,
        memory=json.encode({"input": cause.input} if cause.input else {}),
        chain=json.encode(list(cause.chain)),
        request_id=ids.new("req"),
        steps=0,
        attempts=0,
        wake_at=now,
        created_at=now,
        started_at=None,
        finished_at=None,
    )


def circle_of(document: dict[str, Any], chain: Sequence[str]) -> str | None:
    """Why automations that have led to an event must not lead to a run of this one, in a sentence; None if they may."""
    passed = list(chain).count(document["id"])
    if passed and (not document["reentrant"] or passed >= MAX_REENTRANT):
        return f"The change was made by this automation itself: {' -> '.join([*chain, document['id']])}."
    if not document["reentrant"] and len(chain) >= MAX_CHAIN:
        return f"{len(chain)} automations have led to each other: {' -> '.join(chain)}."
    return None


def _refusal(tx: Tx, document: dict[str, Any], cause: Cause, now: int) -> tuple[str, str] | None:
    """Why no run may be started, as a word and a sentence; None if one may."""
    circle = circle_of(document, cause.chain)
    if circle is not None:
        return LOOP, circle
    most, about = STARTS_OF_OBJECT_AN_HOUR, cause.object_id
    if about is not None and runs.started_since(tx, document["id"], now - HOUR_MS, most, about) >= most:
        return BUDGET, f"It was started {most} times within an hour for {about}."
    if _started(tx, document["id"], now) >= MAX_STARTS:
        return BUDGET, f"It was started {MAX_STARTS:,} times within an hour."
    return None


def _started(tx: Tx, automation_id: str, now: int) -> int:
    """How many runs of an automation were started within an hour, this unit's included; counted once in a unit."""
    counts = tx.context.setdefault("automation_starts", {})
    assert isinstance(counts, dict)
    if automation_id not in counts:
        counts[automation_id] = runs.started_since(tx, automation_id, now - HOUR_MS, MAX_STARTS)
    return int(counts[automation_id])


def _in_its_hour(tx: Tx, run: Run, now: int) -> Run:
    """A run that is started, as late as the budget of an hour demands."""
    started = _started(tx, run.automation_id, now)
    counts = tx.context["automation_starts"]
    assert isinstance(counts, dict)
    counts[run.automation_id] = started + 1
    return run._replace(wake_at=now + started // STARTS_AN_HOUR * HOUR_MS) if run.wake_at is not None else run


def _in_lane(tx: Tx, mode: str, run: Run, now: int) -> Run:
    """The run as its mode lets it be, when others of its lane may not be over; with `restart` those are ended."""
    runs.lock(tx, [run.lane])
    others = runs.open_in_lane(tx, run.lane)
    if not others:
        return run
    if mode == "single":
        detail = f"The run {others[0].id} is not over, and the mode is single."
        return run._replace(state=runs.DROPPED, reason=BUSY, detail=detail, wake_at=None, finished_at=now)
    if mode == "restart":
        for other in others:
            over = other._replace(
                state=runs.SUPERSEDED,
                reason="restart",
                detail=f"The run {run.id} took its place.",
                wake_at=None,
                finished_at=now,
                memory="{}",
            )
            runs.go_on(tx, over)
        return run
    if len(others) >= MAX_QUEUED:
        detail = f"{len(others)} runs are waiting for each other already."
        return run._replace(state=runs.DROPPED, reason=FULL, detail=detail, wake_at=None, finished_at=now)
    return run._replace(wake_at=None)
