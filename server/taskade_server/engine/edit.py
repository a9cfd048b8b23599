"""The road every change takes: see the row, lock it, compare versions, check the body, merge, write.

Why in one place: each step that a verb forgets is a hole (a lost update, a silent field, a change without a lock).
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from taskade_server.engine import access, log, query
from taskade_server.engine.access import Grant, Principal
from taskade_server.engine.log import Actor, Change
from taskade_server.engine.model import NOTHING, REGISTRY, Checker, Resource
from taskade_server.kit import ids, json
from taskade_server.kit.destinations import NOWHERE_INSIDE, Rules
from taskade_server.kit.errors import MAX_ISSUES, Clash, Forbidden, Invalid, Issue, NotFound, PreconditionFailed
from taskade_server.store.database import Tx

MAX_TOGETHER: Final = 4_000
"""How many rows of one kind a request may take along: to the trash, back from it, or into another project."""
PORTION: Final = 500
LOAD_STEPS: Final = 5


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

    def grant(self, grant: Grant) -> None:
        """Give the caller a right that this unit of work has just written, for the rest of the unit only."""
        self.principal = self.principal.with_grant(grant)


def load(
    tx: Tx, context: Context, resource: Resource, object_id: str, *, deleted: bool | None = False, target: bool = True
) -> tuple[query.Row, dict[str, Any]]:
    """The locked row and its document; NotFound if invisible, PreconditionFailed if `expect` says so.

    `target` is False for an object that a request changes something in, but not the object itself.
    """
    row = query.get(tx, context.principal, resource, object_id, deleted=deleted, lock=True)
    if row is None:
        if deleted and query.get(tx, context.principal, resource, object_id) is not None:
            raise NotFound(f"The {resource.noun} {object_id} is not in the trash.")
        raise NotFound(query.absence(tx, context.principal, resource, object_id))
    doc: dict[str, Any] = json.decode(row.document)
    if target:
        expect(context, resource, doc)
    return row, doc


def expect(context: Context, resource: Resource, doc: Mapping[str, Any]) -> None:
    """PreconditionFailed if If-Match names other versions, or If-None-Match this one."""
    present = {str(doc["version"]), "*"}
    if (context.if_match is not None and not context.if_match & present) or (context.if_none_match or set()) & present:
        raise PreconditionFailed(
            f"The {resource.noun} is at version {doc['version']} now.",
            headers={"etag": f'"{doc["version"]}"'},
            extra={"current": doc},
        )


def new_id(tx: Tx, resource: Resource, wanted: str | None) -> str:
    """The id of a new row: the client's, or a fresh one. Clash if the client's was ever given to any object.

    What is kept by an id (deliveries, answers, events) outlives its object, so an id never becomes free again.
    """
    if wanted is None:
        return ids.new(resource.prefix)
    if used_ids(tx, resource, [wanted]):
        raise Clash(id_in_use(resource, wanted), errors=[Issue("id_in_use", "Choose another id.", pointer="/id")])
    return wanted


def used_ids(tx: Tx, resource: Resource, wanted: Iterable[Any]) -> set[str]:
    """Return those of the ids chosen by clients that were given before, in any workspace; other values are left out."""
    return log.ever_used(tx, [name for name in wanted if isinstance(name, str) and ids.is_id(name, resource.prefix)])


def id_in_use(resource: Resource, wanted: str) -> str:
    """Why an id cannot be had."""
    return f"The id {wanted} was given to {resource.one} before, and an id is given only once."


def fields(
    resource: Resource,
    body: Any,
    *,
    current: Mapping[str, Any] | None = None,
    extra: Collection[str] = (),
    given: Mapping[str, Any] = NOTHING,
) -> dict[str, Any]:
    """The checked members of a body; Invalid lists all faults. With `current` the body is a merge patch of it.

    `given` is what read-only members of a new one will be; see `given`.
    """
    checker = Checker()
    values = checker.body(resource, body, creating=current is None, extra=extra, current=current, given=given)
    fail(checker.issues)
    return values


def given(context: Context, **more: Any) -> dict[str, Any]:
    """What read-only members of something that the caller creates will be, so that a body may say the same."""
    return {"created_by": context.principal.user_id, "version": 1, **more}


class about_entry:
    """Make a Forbidden that is raised inside say which entry of the body (a JSON Pointer) and which object it is about.

    Nothing is added where the pointer is "": the body is about one object, which the URL names.
    """

    __slots__ = ("_object_id", "_pointer")

    def __init__(self, pointer: str, object_id: str = "") -> None:
        self._pointer = pointer
        self._object_id = object_id

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, refused: BaseException | None, _traceback: object) -> None:
        if isinstance(refused, Forbidden) and self._pointer and "pointer" not in refused.extra:
            refused.extra["pointer"] = self._pointer
            refused.detail += f" This is about {self._object_id}." if self._object_id else ""


def fail(issues: Sequence[Issue]) -> None:
    """Invalid with all the issues, if there are any."""
    if issues:
        count = f"more than {MAX_ISSUES}" if len(issues) > MAX_ISSUES else len(issues)
        many = f"The body has {count} faults; nothing was written." if len(issues) > 1 else None
        raise Invalid(many, errors=issues)


def create(tx: Tx, context: Context, resource: Resource, doc: dict[str, Any], **private: Any) -> str:
    """Write one new row; returns its document."""
    return log.apply(tx, context.actor, [Change(resource, "created", doc, private=private)])[0]


def update(
    tx: Tx,
    context: Context,
    resource: Resource,
    row: query.Row,
    before: dict[str, Any],
    after: dict[str, Any],
    also: Sequence[str] = (),
) -> str:
    """Write one changed row; a document that is the same already stays as it is, without an event."""
    if json.same(before, after):
        return row.document
    return log.apply(tx, context.actor, [Change(resource, "updated", after, before, row.n, also)])[0]


# ---- trash -----------------------------------------------------------------------------------------------------------


def trash(
    tx: Tx, context: Context, rows: Sequence[tuple[Resource, query.Row, dict[str, Any]]], root: str | Mapping[str, str]
) -> list[str]:
    """Move rows to the trash together; restoring `root`, the object whose deletion takes them, brings them back.

    Where they have several roots, `root` gives that of each id.
    """
    changes = []
    for resource, row, doc in rows:
        private = {"trash_root": root if isinstance(root, str) else root[doc["id"]]}
        changes.append(Change(resource, "deleted", dict(doc), doc, row.n, private=private, touched=_TOUCHED))
    return log.apply(tx, context.actor, changes)


def below(
    tx: Tx,
    resource: Resource,
    column: str,
    owners: Sequence[str],
    most: int,
    *,
    trashed: bool = False,
    lock: bool = True,
) -> list[tuple[query.Row, dict[str, Any]]]:
    """The live rows (`trashed`: all) whose column names one of the owners, in order of creation, each locked or not.

    Invalid if there are more than `most`. They are read in portions, so that the unit's budget bounds their size, too.
    """
    found: list[tuple[query.Row, dict[str, Any]]] = []
    if not owners:
        return found
    live = "" if trashed else " AND deleted_at IS NULL"
    among, params = access.among(column, list(owners), tx.dialect)
    condition = f"{among}{live} AND n > ?"
    locked = tx.for_update if lock else ""
    sql = f"SELECT n, doc FROM {resource.table} WHERE {condition} ORDER BY n LIMIT {PORTION}{locked}"
    last, more = 0, True
    while more:
        rows = tx.all(sql, (*params, last))
        tx.budget.spend(sum(LOAD_STEPS + len(text) // log.WRITTEN_A_STEP for _, text in rows))
        for n, text in rows:
            doc = json.decode(text)
            found.append((query.Row(n, doc["workspace_id"], doc["project_id"], text), doc))
            last = n
        if len(found) > most:
            detail = (
                f"More than {MAX_TOGETHER:,} tasks or comments would change at once. Move or delete some of them first,"
                " up to 1,000 tasks at a time with PATCH or DELETE /tasks/bulk and a filter."
            )
            raise Invalid(detail, errors=[Issue("too_many", detail, pointer="")])
        more = len(rows) == PORTION
    return found


_TOUCHED: Final = ("updated_at", "version", "deleted_at")
"""The only members of an object that its way into the trash and back changes."""


def trashed_with(tx: Tx, root: str, names: Iterable[str]) -> list[tuple[Resource, query.Row, dict[str, Any]]]:
    """The locked rows of some resources (by name) that went to the trash with an object, without its own."""
    rows = []
    for name in names:
        resource = REGISTRY[name]
        project = f'"{resource.project_column}"' if resource.project_column else "NULL"
        found = tx.all(
            f"SELECT n, workspace_id, {project}, doc FROM {resource.table}"
            f" WHERE trash_root = ? AND id <> ? AND deleted_at IS NOT NULL ORDER BY n{tx.for_update}",
            (root, root),
        )
        tx.budget.spend(sum(LOAD_STEPS + len(row[3]) // log.WRITTEN_A_STEP for row in found))
        rows += [(resource, query.Row(*row), json.decode(row[3])) for row in found]
    return rows


def restored(
    resource: Resource,
    row: query.Row,
    before: dict[str, Any],
    after: dict[str, Any],
    also: Sequence[str] = (),
    **private: Any,
) -> Change:
    """The change that brings a row back from the trash; `private` sets columns outside its document."""
    touched = _TOUCHED if after == before else None
    return Change(resource, "restored", dict(after), before, row.n, also, {"trash_root": None, **private}, touched)


def untrash(tx: Tx, context: Context, resource: Resource, object_id: str, below: Iterable[str], **private: Any) -> str:
    """Restore an object and what went to the trash with it (`below`: names of resources to look in), all unchanged.

    `private` sets columns of the object outside its document.
    """
    row, doc = load(tx, context, resource, object_id, deleted=True)
    changes = [restored(resource, row, doc, doc, **private)]
    for other, found, before in trashed_with(tx, object_id, below):
        changes.append(restored(other, found, before, before))
    return log.apply(tx, context.actor, changes)[0]


def purge(
    tx: Tx, actor: Actor, resource: Resource, before_ms: int, limit: int = 500, below: Iterable[Resource] = ()
) -> int:
    """Remove about `limit` rows for good that went to the trash before a time; returns how many.

    If they are large, it removes fewer, as the unit's budget allows, and returns `limit`, since others may be left.
    `below` are resources without a trash of their own: what of them belongs to a purged object goes with it.
    """
    # Locked, so that whoever restores one at this moment either comes first or finds nothing.
    found = tx.all(
        f"SELECT n, doc FROM {resource.table} WHERE deleted_at IS NOT NULL AND deleted_at < ?"
        f" ORDER BY n LIMIT {int(limit)}{tx.for_update}",
        (before_ms,),
    )
    changes: list[Change] = []
    room = tx.budget.left // 2
    for n, text in found:
        if changes and (len(changes) >= limit or room < 0):
            break
        room -= log.ROW_STEPS + log.EVENT_STEPS + len(text) // log.WRITTEN_A_STEP
        doc = json.decode(text)
        for other in below:
            changes += _below(tx, other, f"{resource.name}_id", doc["id"])
        changes.append(Change(resource, "purged", dict(doc), doc, n))
    log.apply(tx, actor, changes)
    return max(limit, len(changes)) if room < 0 else len(changes)


def _below(tx: Tx, resource: Resource, column: str, object_id: str) -> Iterator[Change]:
    sql = f"SELECT n, doc FROM {resource.table} WHERE {column} = ? ORDER BY n{tx.for_update}"
    for n, text in tx.all(sql, (object_id,)):
        doc = json.decode(text)
        yield Change(resource, "deleted", dict(doc), doc, n)


def scope(context: Context, resource: Resource, verb: str, purpose: str = "") -> None:
    """Forbidden unless the key may do that to this kind of resource; for verbs that touch a second resource."""
    access.require_scope(context.principal, f"{resource.plural}:{verb}", purpose)
