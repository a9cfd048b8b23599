"""Finds single objects for a principal: by id, by e-mail or handle, and what to say of one that is not there."""

from functools import cache
from typing import Any, Final, NamedTuple

from taskade_server.engine import access
from taskade_server.engine.access import Principal
from taskade_server.engine.model import REGISTRY, Resource
from taskade_server.kit import ids, json, text
from taskade_server.store.database import Tx

# What a unit's budget pays for each reference that is looked up, and for each document that is taken apart, with one
# step more for so many characters.
LOOKUP_STEPS: Final = 20
PARSED_A_STEP: Final = 250
_BY_SQL: Final = ("shared", "owner", "managed")
"""Whether somebody sees one is more than workspace and project tell: the row itself has to be asked."""


class Row(NamedTuple):
    """One stored row: its internal number, workspace, project and rendered document."""

    n: int
    workspace_id: str
    project_id: str | None
    document: str


def get(
    tx: Tx,
    principal: Principal,
    resource: Resource,
    object_id: str,
    *,
    deleted: bool | None = False,
    lock: bool = False,
    keep: bool = False,
) -> Row | None:
    """One visible row by id. `deleted`: False live, True in the trash, None either.

    Until the commit `lock` holds it for this unit, and `keep` as it is for all who want it so.
    """
    sql = _get_sql(resource.name, deleted)
    params: tuple[Any, ...] = (object_id,)
    if resource.visibility in _BY_SQL:
        rule = access.visible(principal, resource, tx.dialect)
        sql, params = f"{sql} AND {rule.sql}", (*params, *rule.params)
    found = tx.one(sql + (tx.for_update if lock else tx.for_share if keep else ""), params)
    if found is None:
        return None
    row = Row(*found)
    if resource.visibility not in _BY_SQL and not access.sees(
        principal, resource, row.workspace_id, row.project_id, is_open=True
    ):
        return None
    return row


def absence(tx: Tx, principal: Principal, resource: Resource, object_id: str) -> str:
    """Why there is no live object of that id, in words: it is in the trash, or the principal can see none at all."""
    row = get(tx, principal, resource, object_id, deleted=True) if resource.trash else None
    if row is None:
        return f"There is no {resource.noun} {object_id[:80]} that this key can see."
    found = tx.one(f"SELECT trash_root FROM {resource.table} WHERE n = ?", (row.n,))
    since = json.decode(row.document)["deleted_at"]
    root = str(found[0]) if found and found[0] else object_id
    kind = next((kind for kind in REGISTRY.values() if ids.is_id(root, kind.prefix)), resource)
    with_it = "" if root == object_id else f", where it went with the {kind.noun} {root}"
    back = f"POST /v1/{kind.plural}/{root}/restore brings it back"
    return f"The {resource.noun} {object_id} is in the trash since {since}{with_it}; {back}."


@cache
def _get_sql(name: str, deleted: bool | None) -> str:
    resource = REGISTRY[name]
    project = f"t.{resource.project_column}" if resource.project_column else "NULL"
    sql = f"SELECT t.n, t.workspace_id, {project}, t.doc FROM {resource.table} t WHERE t.id = ?"
    if resource.trash and deleted is not None:
        sql += " AND t.deleted_at IS NOT NULL" if deleted else " AND t.deleted_at IS NULL"
    return sql


def resolve(
    tx: Tx, principal: Principal, target: str, reference: str, *, within: str | None = None, trashed: bool = False
) -> str | None:
    """The id that a reference (an id, `me`, a handle or an e-mail) means among the objects the principal sees.

    `within` limits users to the members of one workspace; those in the trash count only if `trashed`.
    """
    resource = REGISTRY[target]
    if target == "user" and reference == "me":
        reference = principal.user_id
    if ids.is_id(reference, resource.prefix):
        if resource.visibility not in _BY_SQL and within is None:
            return reference if get(tx, principal, resource, reference, deleted=None) else None
        condition, params = "t.id = ?", [reference]
    elif resource.alternate_keys:
        condition = " OR ".join(f"t.{name} = ?" for name in resource.alternate_keys)
        params = [text.fold(reference)] * len(resource.alternate_keys)
    else:
        return None
    rule = access.visible(principal, resource, tx.dialect, within=None if within is None else [within])
    # A filter may name somebody who is in the trash, a new reference may not.
    live = " AND t.deleted_at IS NULL" if within is not None and resource.trash and not trashed else ""
    statement = f"SELECT t.id FROM {resource.table} t WHERE ({condition}) AND {rule.sql}{live}"
    found = tx.one(statement, (*params, *rule.params))
    return str(found[0]) if found else None
