"""Answers documents with what they refer to: the relations that a request includes, and the fields that it chose."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from taskade_server.engine import access
from taskade_server.engine.access import Principal
from taskade_server.engine.model import REGISTRY, Relation, Resource
from taskade_server.engine.query.lookup import PARSED_A_STEP
from taskade_server.kit import json
from taskade_server.kit.errors import InvalidQuery, Issue
from taskade_server.store.database import Tx

SHAPE_STEPS: Final = 5
MAX_INCLUDED_ROWS: Final = 1000
MAX_INCLUDED_TOTAL: Final = 20_000
MAX_INCLUDED_TEXT: Final = 32 << 20


def shape(
    tx: Tx,
    principal: Principal,
    resource: Resource,
    documents: list[str],
    include: Mapping[str, Any],
    fields: list[str] | None,
) -> list[str]:
    """Documents with their includes spliced in, cut to the chosen fields; one statement for each include."""
    # From the last member to the first: what is spliced in can then never stand before a member still to be found.
    places = {name: place for place, name in enumerate(resource.fields)} if include else {}
    for name in sorted(include, key=lambda name: -places.get(resource.includes[name].source, 0)):
        documents = _include(tx, principal, resource, resource.includes[name], documents, include[name])
    if fields is None:
        return documents
    _pay_for(tx, documents)
    kept = [*fields, *(name for name in include if name not in fields)]
    shaped = []
    for document in documents:
        members = json.decode_members(document)
        shaped.append(json.encode({name: members[name] for name in kept if name in members}))
    return shaped


def _pay_for(tx: Tx, documents: Sequence[str]) -> None:
    tx.budget.spend(sum(map(len, documents)) // PARSED_A_STEP + SHAPE_STEPS * len(documents))


def _include(
    tx: Tx,
    principal: Principal,
    resource: Resource,
    relation: Relation,
    documents: list[str],
    deeper: Mapping[str, Any],
) -> list[str]:
    if relation.kind == "reverse":
        return _include_rows(tx, principal, relation, documents, deeper)
    _pay_for(tx, documents)
    wanted = {found for document in documents for found in _ids_in(document, relation)}
    related = _fetch(tx, principal, relation.target, sorted(wanted), deeper)
    added = sum(len(related.get(found, "")) for document in documents for found in _ids_in(document, relation))
    if added > MAX_INCLUDED_TEXT:
        raise _too_much(relation.name)
    return [_splice(document, relation, related) for document in documents]


def _too_much(name: str) -> InvalidQuery:
    detail = f"{name} would make the answer larger than {MAX_INCLUDED_TEXT >> 20} MiB; lower limit."
    return InvalidQuery(errors=[Issue("too_many", detail, parameter="include")])


def _ids_in(document: str, relation: Relation) -> list[str]:
    if relation.kind == "one":
        found = _member_text(document, relation.source)
        return [found] if found else []
    start = document.find(f'"{relation.source}":[') + len(relation.source) + 4
    inner = document[start : document.index("]", start)]
    return [part.strip('"') for part in inner.split(",")] if inner else []


def _member_text(document: str, name: str) -> str | None:
    """A flat string member of a rendered document, None if it is null.

    Safe as text search: inside a JSON string quotes are escaped, and every flat member is there, before nested ones.
    """
    mark = f'"{name}":'
    start = document.find(mark) + len(mark)
    return document[start + 1 : document.index('"', start + 1)] if document[start] == '"' else None


def _fetch(tx: Tx, principal: Principal, target: str, wanted: list[str], deeper: Mapping[str, Any]) -> dict[str, str]:
    if not wanted:
        return {}
    resource = REGISTRY[target]
    rule = access.visible(principal, resource, tx.dialect)
    among, among_params = access.among("t.id", wanted, tx.dialect)
    live = " AND t.deleted_at IS NULL" if resource.trash and target != "user" else ""
    # The ids are the way in, and no walk through the workspace.
    rows, cut = tx.page(
        f"SELECT t.doc AS doc, t.id FROM {resource.table} t WHERE {among} AND {rule.unindexed}{live}",
        (*among_params, *rule.params),
        MAX_INCLUDED_TEXT,
    )
    if cut:
        raise _too_much(target)
    documents = shape(tx, principal, resource, [row[0] for row in rows], deeper, None)
    return {row[1]: document for row, document in zip(rows, documents, strict=True)}


def _splice(document: str, relation: Relation, related: Mapping[str, str]) -> str:
    found = _ids_in(document, relation)
    if relation.kind == "many":
        rendered = ",".join(related.get(item, f'"{item}"') for item in found)
        if not relation.replaces:
            return f'{document[:-1]},"{relation.name}":[{rendered}]}}'
        start = document.index(f'"{relation.source}":[') + len(relation.source) + 4
        return document[:start] + rendered + document[document.index("]", start) :]
    body = related.get(found[0]) if found else None
    if not relation.replaces:
        return f'{document[:-1]},"{relation.name}":{body or "null"}}}'
    if body is None:
        return document
    return document.replace(f'"{relation.source}":"{found[0]}"', f'"{relation.source}":{body}', 1)


def _include_rows(
    tx: Tx, principal: Principal, relation: Relation, documents: list[str], deeper: Mapping[str, Any]
) -> list[str]:
    resource = REGISTRY[relation.target]
    owners = [_member_text(document, "id") or "" for document in documents]
    rule = access.visible(principal, resource, tx.dialect)
    among, among_params = access.among(f"t.{relation.source}", owners, tx.dialect) if owners else ("1 = 0", [])
    live = " AND t.deleted_at IS NULL" if resource.trash else ""
    if resource.visibility == "member" and relation.source == "workspace_id":
        live += " AND t.project_id IS NULL"
    inner = (
        f"SELECT t.{relation.source} AS owner, t.doc AS doc,"
        f" ROW_NUMBER() OVER (PARTITION BY t.{relation.source} ORDER BY t.n) AS place"
        f" FROM {resource.table} t WHERE {among} AND {rule.unindexed}{live}"
    )
    rows, cut_short = tx.page(
        f"SELECT doc, owner FROM ({inner}) AS r WHERE place <= {MAX_INCLUDED_ROWS + 1} ORDER BY owner, place"
        f" LIMIT {MAX_INCLUDED_TOTAL + 1}",
        (*among_params, *rule.params),
        MAX_INCLUDED_TEXT,
    )
    if cut_short:
        raise _too_much(relation.name)
    if len(rows) > MAX_INCLUDED_TOTAL:
        detail = f"{relation.name} would add more than {MAX_INCLUDED_TOTAL:,} rows; ask for fewer at once with limit."
        raise InvalidQuery(errors=[Issue("too_many", detail, parameter="include")])
    shaped = shape(tx, principal, resource, [row[0] for row in rows], deeper, None)
    by_owner: dict[str, list[str]] = {}
    for row, document in zip(rows, shaped, strict=True):
        by_owner.setdefault(row[1], []).append(document)
    result = []
    for owner, document in zip(owners, documents, strict=True):
        found = by_owner.get(owner, [])
        cut = f',"{relation.name}_truncated":true' if len(found) > MAX_INCLUDED_ROWS else ""
        result.append(f'{document[:-1]},"{relation.name}":[{",".join(found[:MAX_INCLUDED_ROWS])}]{cut}}}')
    return result
