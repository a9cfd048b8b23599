"""Where a run stands: what it knows, in whose name it acts, and what references in its actions find."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from taskade_server.domain.automations.operations import Acting, Operations
from taskade_server.engine import events, filters, log, query
from taskade_server.engine.access import Principal
from taskade_server.engine.model import REGISTRY, Resource
from taskade_server.kit import ids, json, time
from taskade_server.kit.references import Values
from taskade_server.kit.zones import Zone
from taskade_server.store.database import Tx
from taskade_server.store.tables.runs import Run


@dataclass(slots=True)
class Memory:
    """What a run keeps from one stretch to the next, as JSON.

    `input` is what it was started with, `results` the values of earlier actions by id, `loops` the state of each loop
    that it is in (outermost first), `waits` what the present action waits for.
    """

    input: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    loops: list[dict[str, Any]] = field(default_factory=list)
    waits: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, text: str) -> "Memory":
        """The memory that a JSON text holds."""
        return cls(**json.decode(text))

    def text(self) -> str:
        """The memory as a JSON text, without what is empty."""
        parts = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return json.encode({name: value for name, value in parts.items() if value})


@dataclass(slots=True)
class Situation:
    """A run in the middle of a unit of work. `now` is epoch ms; `document` is the automation as the run knows it."""

    tx: Tx
    run: Run
    document: dict[str, Any]
    memory: Memory
    acting: Acting
    operations: Operations
    now: int
    zone: Zone
    trying: bool = False
    """Whether nothing will be kept: waits and requests to others are only shown."""
    made_up: dict[str, Any] | None = None
    """The event that is taken to have started the run, if none has."""

    @property
    def principal(self) -> Principal:
        """Whose rights the run has."""
        return self.acting.principal

    def values(self) -> Values:
        """What references find, for putting it into texts and documents."""
        return Values(self.tx.budget, self.given(), self.zone)

    def given(self) -> dict[str, Any]:
        """What references find: the event, the object as it is now, the input, the run, and results of actions."""
        given: dict[str, Any] = {
            "input": self.memory.input,
            "run": {
                "id": self.run.id,
                "automation_id": self.run.automation_id,
                "started_at": time.format_ms(self.run.started_at or self.now),
                "at": time.format_ms(self.now),
                "date": datetime.fromtimestamp(self.now / 1000, self.zone).date().isoformat(),
            },
            **self.memory.results,
        }
        event = self.event()
        if event is not None:
            given["event"] = event
        document = self.object()
        if document is not None:
            given["now"] = document
        if self.memory.loops:
            given["item"] = self.item()
        return given

    def event(self) -> dict[str, Any] | None:
        """The event that started the run, as its owner is shown it; None if there is none, or it is not kept."""
        if self.made_up is not None:
            return self.made_up
        if self.run.event_id is None:
            return None
        event = log.find(self.tx, self.run.event_id)
        shown = None if event is None else events.shown_to(self.principal, event)
        return None if shown is None else json.decode(events.render(shown))

    def condition(self, document: dict[str, Any]) -> bool:
        """Whether a condition holds for the object of the run as it is now; False if it has none that can be seen."""
        found = None if self.run.object_id is None else self.object()
        return found is not None and holds(self, document, found, self.run.object_id or "")

    def object(self) -> dict[str, Any] | None:
        """The object that the run is about, as it is now; None if there is none that its owner can see."""
        return None if self.run.object_id is None else self.read(self.run.object_id)

    def item(self) -> dict[str, Any] | None:
        """The object that the innermost loop has come to, as it is now."""
        loop = self.memory.loops[-1]
        return self.read(loop["items"][loop["index"]])

    def read(self, object_id: str) -> dict[str, Any] | None:
        """An object of any kind, as it is now."""
        resource = resource_of(object_id)
        row = None if resource is None else query.get(self.tx, self.principal, resource, object_id)
        return None if row is None else json.decode(row.document)


def holds(situation: Situation, condition: dict[str, Any], document: dict[str, Any], object_id: str) -> bool:
    """Whether a document of an object satisfies a condition; words such as `today` and `-7d` mean this moment."""
    resource = resource_of(object_id)
    if resource is None:
        return False
    tx, principal = situation.tx, situation.principal

    def resolve(target: str, reference: str) -> str | None:
        return query.resolve(tx, principal, target, reference)

    parser = filters.Parser(resource, resolve, situation.now, typed=True, prefix="/condition", zone=situation.zone)
    node = parser.parse(condition)
    return not parser.issues and filters.holds(node, filters.Facts(resource, document), tx.budget)


def resource_of(object_id: str) -> Resource | None:
    """The kind of the object that an id names."""
    return next((kind for kind in REGISTRY.values() if ids.is_id(object_id, kind.prefix)), None)
