"""What an event is to its readers: which types there are, who may see one, and how it reads.

Why one registry: webhooks, streams, sync, audit, the documents of the API and the tools each need to know what can
happen; the types follow from the resources, so that a new resource has its events everywhere at once.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Final

from taskade_server.engine import access
from taskade_server.engine.access import Principal
from taskade_server.engine.log import Event
from taskade_server.engine.model import REGISTRY, Resource
from taskade_server.kit import json, text, time
from taskade_server.kit.errors import did_you_mean
from taskade_server.kit.portable_json import portable

_SUMMARIES: Final = {
    "created": "was created.",
    "added": "was added.",
    "updated": "was changed; `previous` has the old values of what changed.",
    "deleted": "was deleted.",
    "removed": "was removed.",
    "restored": "was brought back from the trash.",
    "purged": "was removed for good, after 30 days in the trash.",
}

MOVED_IN: Final = '{"project_id":null}'
"""`previous` of an event that took an object out of a project which its reader cannot see."""


@dataclass(frozen=True, slots=True)
class EventType:
    """One type of event: `data` holds a whole resource; `has_previous`, beside it the old values of what changed."""

    name: str
    resource: Resource
    summary: str
    has_previous: bool


@cache
def catalogue() -> dict[str, EventType]:
    """Every type by name: for each resource first the general ones, then those that say it more narrowly."""
    found: dict[str, EventType] = {}
    for _, resource in sorted(REGISTRY.items()):
        one = text.sentence(resource.one)
        for action in resource.actions:
            name = resource.event_type(action)
            summary = _SUMMARIES[name.rpartition(".")[2]]
            found[name] = EventType(name, resource, f"{one} {summary}", action in ("updated", "deleted", "restored"))
        for name, summary in resource.narrower_events.items():
            found[name] = EventType(name, resource, f"{one} {summary}", True)
    return found


def fits(patterns: Iterable[str], name: str) -> bool:
    """Whether a type is one of the patterns: `task.created`, `task.*` or `*`."""
    return any(
        pattern in ("*", name) or (pattern.endswith(".*") and name.startswith(pattern[:-1])) for pattern in patterns
    )


def fault(pattern: str) -> str | None:
    """What is wrong with a pattern that fits no type, in one sentence; None if nothing is."""
    if any(fits([pattern], name) for name in catalogue()):
        return None
    groups = sorted({f"{name.partition('.')[0]}.*" for name in catalogue()})
    hint = did_you_mean(pattern, [*catalogue(), *groups])
    return f'There is no event "{pattern[:80]}".{hint} Patterns: *, {", ".join(groups)} or the type of an event.'


def sees(principal: Principal, event: Event) -> bool:
    """Whether a principal may see that an event happened, by the rights and scopes of this moment.

    What counts is the place of then: the project in which the object lay after the event, and of a user whether they
    were a member of the workspace. What the principal may see of it, `shown_to` tells.
    """
    resource = REGISTRY[event.resource]
    if not principal.allows(read_scope(resource, event.project_id)):
        return False
    if resource.visibility == "shared":
        return principal.grant(event.workspace_id) is not None and event.id not in event.sight.absent
    if resource.visibility in ("owner", "managed"):
        return _is_own(principal, resource, event)
    return _sees_place(principal, resource, event, event.project_id)


def shown_to(principal: Principal, event: Event) -> Event | None:
    """An event as a principal may see it; None if it is invisible.

    If it took its object out of a project that the principal cannot see, `previous` is `MOVED_IN`: what the object held
    there is not shown.
    """
    if not sees(principal, event):
        return None
    return event if sees_previous(principal, event) else event._replace(previous=MOVED_IN)


def sees_previous(principal: Principal, event: Event) -> bool:
    """Whether a principal who sees an event also sees the place that its `previous` is about."""
    resource = REGISTRY[event.resource]
    if resource.visibility != "project":
        return True
    former = event.moved_from
    return former is None or _sees_place(principal, resource, event, former)


def _sees_place(principal: Principal, resource: Resource, event: Event, project_id: str | None) -> bool:
    is_open = (event.workspace_id, project_id) in event.sight.open
    return access.sees(principal, resource, event.workspace_id, project_id, is_open=is_open)


def _is_own(principal: Principal, resource: Resource, event: Event) -> bool:
    """The rule of `access.visible` for what belongs to one user."""
    doc = json.decode(event.data)
    mine = bool(doc.get("user_id") == principal.user_id)
    if resource.visibility == "owner":
        # A key that somebody else made is that of a service user, whose keys all admins see.
        is_service = doc.get("created_by") != doc.get("user_id")
        return mine or (is_service and access.administers(principal.grant(event.workspace_id)))
    grant = principal.grant(event.workspace_id)
    if grant is None or grant.only is not None:
        return grant is not None and mine and doc.get("project_id") in (grant.only or ())
    return mine or grant.role in ("admin", "owner")


def read_scope(resource: Resource, project_id: str | None) -> str:
    """The scope that an event of a resource takes to be read; members have that of the place they are members of."""
    if resource.name == "member":
        return "workspaces:read" if project_id is None else "projects:read"
    return f"{resource.plural}:read"


def render(event: Event) -> str:
    """An event as every surface shows it, as JSON text; `data` and `previous` are the texts that the log keeps."""
    kind = "user" if event.actor_id else "system"
    head = json.encode(
        {
            "id": event.id,
            "type": event.type,
            "timestamp": time.format_ms(event.at),
            "workspace_id": event.workspace_id,
            "seq": event.seq,
            "actor": {"type": kind, "id": event.actor_id, "api_key_id": event.key_id},
            "request_id": event.request_id,
        }
    )
    return f'{head[:-1]},"origin":{event.origin or "null"},"data":{event.data},"previous":{event.previous or "null"}}}'


def webhook_body(rendered: str, previous_seq: int | None) -> bytes:
    """What is sent to a webhook for an event as `render` gives it: the bytes that are signed.

    `previous_seq` is the event before it that the same webhook was given, so that it sees when one is missing.
    """
    text = f'{rendered[:-1]},"previous_seq":{"null" if previous_seq is None else previous_seq}}}'
    return portable(text).encode()
