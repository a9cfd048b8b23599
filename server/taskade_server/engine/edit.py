"""The road every change takes: see the row, lock it, compare versions, check the body, merge, write.

Why in one place: each step that a verb forgets is a hole (a lost update, a silent field, a change without a lock).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from taskade_server.engine import access, log, query
from taskade_server.engine.access import Principal
from taskade_server.engine.log import Actor, Change
from taskade_server.engine.model import REGISTRY, Checker, Resource
from taskade_server.kit import ids, json
from taskade_server.kit.destinations import NOWHERE_INSIDE, Rules
from taskade_server.kit.errors import MAX_ISSUES, Clash, Invalid, Issue, NotFound, PreconditionFailed
from taskade_server.store.database import Tx


@dataclass(slots=True)
class Context:
    """One request's caller: who asks, on whose behalf events are recorded, and the version the client expects.

    `seed` is not empty for a request that may be sent again: a secret made for it is derived from the seed.
    `destinations` says where this installation may send requests to.
    """

    principal: Principal
    actor: Actor
    secret: bytes
    if_match: frozenset[str] | None = None
    if_none_match: frozenset[str] | None = None
    seed: str = ""
    destinations: Rules = NOWHERE_INSIDE


def load(
    tx: Tx, context: Context, resource: Resource, object_id: str, *, deleted: bool | None = False, target: bool = True
) -> tuple[query.Row, dict[str, Any]]:
    """The locked row and its document; NotFound if invisible, PreconditionFailed if `expect` says so.

    `target` is False for an object that a request changes something in, but not the object itself.
    """
    row = query.get(tx, context.principal, resource, object_id, deleted=deleted, lock=True)
    if row is None:
        raise NotFound(f"There is no {resource.name} {object_id[:80]} that this key can see.")
    doc: dict[str, Any] = json.decode(row.document)
    if target:
        expect(context, resource, doc)
    return row, doc


def expect(context: Context, resource: Resource, doc: Mapping[str, Any]) -> None:
    """PreconditionFailed if If-Match names other versions, or If-None-Match this one."""
    present = {str(doc["version"]), "*"}
    if (context.if_match is not None and not context.if_match & present) or (context.if_none_match or set()) & present:
        raise PreconditionFailed(
            f"The {resource.name} is at version {doc['version']} now.",
            headers={"etag": f'"{doc["version"]}"'},
            extra={"current": doc},
        )


def new_id(tx: Tx, resource: Resource, wanted: str | None) -> str:
    """The id of a new row: the client's, unless it is taken (Clash), or a fresh one."""
    if wanted is None:
        return ids.new(resource.prefix)
    if tx.one(f"SELECT 1 FROM {resource.table} WHERE id = ?", (wanted,)):
        raise Clash(
            f"A {resource.name} with the id {wanted} exists already.",
            errors=[Issue("id_in_use", "Choose another id.", pointer="/id")],
        )
    return wanted


def fields(
    resource: Resource, body: Any, *, current: Mapping[str, Any] | None = None, extra: Iterable[str] = ()
) -> dict[str, Any]:
    """The checked members of a body; Invalid lists all faults. With `current` the body is a merge patch of it."""
    checker = Checker()
    values = checker.body(resource, body, creating=current is None, extra=extra, current=current)
    fail(checker.issues)
    return values


def fail(issues: Sequence[Issue]) -> None:
    """Invalid with all the issues, if there are any."""
    if issues:
        count = f"{len(issues)} faults" if len(issues) > 1 else "one fault"
        if len(issues) > MAX_ISSUES:
            count = f"more than {MAX_ISSUES} faults"
        raise Invalid(f"The body has {count}; nothing was written.", errors=issues)


def create(tx: Tx, context: Context, resource: Resource, doc: dict[str, Any], **private: Any) -> str:
    """Write one new row; returns its document."""
    return log.apply(tx, context.actor, [Change(resource, "created", doc, private=private)])[0]


def update(
    tx: Tx, context: Context, resource: Resource, row: query.Row, before: dict[str, Any], after: dict[str, Any],
    also: Sequence[str] = (),
) -> str:  # fmt: skip
    """Write one changed row; a document that is the same already stays as it is, without an event."""
    if json.same(before, after):
        return row.document
    return log.apply(tx, context.actor, [Change(resource, "updated", after, before, row.n, also)])[0]


# ---- trash -----------------------------------------------------------------------------------------------------------


def trash(tx: Tx, context: Context, rows: Sequence[tuple[Resource, query.Row, dict[str, Any]]], root: str) -> list[str]:
    """Move rows to the trash together; restoring `root`, the object whose deletion takes them, brings them back."""
    changes = [
        Change(resource, "deleted", dict(doc), doc, row.n, private={"trash_root": root}) for resource, row, doc in rows
    ]
    return log.apply(tx, context.actor, changes)


def untrash(tx: Tx, context: Context, resource: Resource, object_id: str, below: Iterable[str]) -> str:
    """Restore an object and what went to the trash with it (`below`: names of resources to look in)."""
    row, doc = load(tx, context, resource, object_id, deleted=True)
    changes = [Change(resource, "restored", dict(doc), doc, row.n, private={"trash_root": None})]
    for name in below:
        other = REGISTRY[name]
        found = tx.all(
            f"SELECT n, doc FROM {other.table} WHERE trash_root = ? AND id <> ? AND deleted_at IS NOT NULL"
            f" ORDER BY n{tx.for_update}",
            (object_id, object_id),
        )
        for n, text in found:
            before = json.decode(text)
            changes.append(Change(other, "restored", dict(before), before, n, private={"trash_root": None}))
    return log.apply(tx, context.actor, changes)[0]


def purge(
    tx: Tx, actor: Actor, resource: Resource, before_ms: int, limit: int = 500, below: Iterable[Resource] = ()
) -> int:
    """Remove about `limit` rows for good that went to the trash before a time; returns how many.

    `below` are resources without a trash of their own: what of them belongs to a purged object goes with it.
    """
    # Locked, so that whoever restores one at this moment either comes first or finds nothing.
    found = tx.all(
        f"SELECT n, doc FROM {resource.table} WHERE deleted_at IS NOT NULL AND deleted_at < ?"
        f" ORDER BY n LIMIT {int(limit)}{tx.for_update}",
        (before_ms,),
    )
    changes: list[Change] = []
    for n, text in found:
        if len(changes) >= limit:
            break
        doc = json.decode(text)
        for other in below:
            changes += _below(tx, other, f"{resource.name}_id", doc["id"])
        changes.append(Change(resource, "purged", dict(doc), doc, n))
    log.apply(tx, actor, changes)
    return len(changes)


def _below(tx: Tx, resource: Resource, column: str, object_id: str) -> Iterator[Change]:
    sql = f"SELECT n, doc FROM {resource.table} WHERE {column} = ? ORDER BY n{tx.for_update}"
    for n, text in tx.all(sql, (object_id,)):
        doc = json.decode(text)
        yield Change(resource, "deleted", dict(doc), doc, n)


def scope(context: Context, resource: Resource, verb: str) -> None:
    """Forbidden unless the key may do that to this kind of resource; for verbs that touch a second resource."""
    access.require_scope(context.principal, f"{resource.plural}:{verb}")
