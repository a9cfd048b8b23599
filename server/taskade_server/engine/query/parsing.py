"""Reads a list request: filter, sort, words, limit, cursor, includes and fields, with every fault there is in them."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple

from taskade_server.engine import access, filters
from taskade_server.engine.access import Principal
from taskade_server.engine.filters import And, Leaf, Node
from taskade_server.engine.model import CUSTOM_KEY, REGISTRY, SIDE_VALUE_BEGINNING, Field, Relation, Resource
from taskade_server.engine.query.lookup import LOOKUP_STEPS, PARSED_A_STEP, get, resolve
from taskade_server.engine.query.sql import RANGES, conjuncts, is_scope
from taskade_server.kit import json, signing, text, time, zones
from taskade_server.kit.errors import MAX_ISSUES, InvalidQuery, Issue, did_you_mean
from taskade_server.kit.numbers import whole
from taskade_server.kit.strict_json import Faulty, decode_strict
from taskade_server.store.database import Tx

DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1000
MAX_SORT_KEYS: Final = 8
MAX_TIE: Final = 200
"""How many characters of two names are compared exactly if they have the same sort key."""
MAX_INCLUDES: Final = 8
MAX_NAMES: Final = 100
MAX_SEARCH: Final = 1_000
MAX_ASKED: Final = 20
"""How many objects are asked for the keys that a filter names."""


_COMMA: Final = re.compile(r"(?<!\\),")
"""What separates names. Behind a backslash, which no name has, it is part of one: keys of custom_fields may have it."""


class SortKey(NamedTuple):
    """One key of a sort: the SQL expression and its parameters, direction, and whether it can be null."""

    sql: str
    params: tuple[Any, ...]
    descending: bool
    nullable: bool
    name: str


@dataclass(slots=True)
class Query:
    """A parsed and resolved list request; only `parse` makes one."""

    resource: Resource
    where: Node
    words: list[str]
    sort: list[SortKey]
    limit: int
    descending: bool
    after: list[Any] | None
    include: dict[str, Any]
    fields: list[str] | None
    count: bool
    deleted: bool
    fingerprint: str
    lasting: bool
    """Whether the same parameters mean the same tomorrow: no `today` or `-7d`."""
    zone: str | None
    """The caller's time zone, whose days are meant; None if the request names a time zone itself."""
    zone_of: str | None
    """The workspace whose time zone that is if the caller has none of their own; None for their own workspace."""
    keys: tuple[tuple[Field, str], ...]
    """The keys (statuses) that the filter names, each with the member that it is compared with."""

    def keeps_zone(self, principal: Principal) -> bool:
        """Whether the days that were meant when it was parsed are still the caller's."""
        return self.zone is None or self.zone == principal.zone(self.zone_of)


@dataclass(slots=True)
class _Options:
    """The parts of a list request before they are understood; `typed` when they come from a JSON body."""

    filter: Any
    values: dict[str, Any]
    typed: bool
    relative: bool = False
    zone: str = zones.DEFAULT
    zone_of: str | None = None
    keys: tuple[tuple[Field, str], ...] = ()
    issues: list[Issue] = field(default_factory=list)

    def fault(self, name: str, code: str, detail: str) -> None:
        self.issues.append(
            Issue(code, detail, pointer=f"/{name}") if self.typed else Issue(code, detail, parameter=name)
        )

    def names(self, name: str) -> list[str]:
        """A comma-separated or repeated option as a list of words."""
        value = self.values.get(name, [])
        entries = value if isinstance(value, list) else [value]
        if not all(isinstance(entry, str) for entry in entries):
            self.fault(name, "wrong_type", f"{name} takes names, separated by commas or as a list.")
            return []
        if sum(entry.count(",") + 1 for entry in entries) > MAX_NAMES:
            self.fault(name, "too_many", f"{name} takes {MAX_NAMES} names at most.")
            return []
        words = [word.replace("\\,", ",") for entry in entries for word in _COMMA.split(entry)]
        return words if self.typed else [word.strip() for word in words if word.strip()]


def parse(
    tx: Tx,
    principal: Principal,
    resource: Resource,
    secret: bytes,
    pairs: Sequence[tuple[str, str]],
    body: Any = None,
    fixed: tuple[Leaf, ...] = (),
    *,
    strict: bool = True,
) -> Query:
    """A list request as a Query. `pairs` are the URL's parameters, `body` the document of QUERY or POST .../query.

    InvalidQuery lists every unknown parameter, operator, value, sort key, include and field with what is allowed.
    `fixed` conditions come from the path. Not `strict`: it may name keys (statuses) that there were once, or will be.
    Forbidden if the key's scopes do not cover what an include adds.
    """
    options = _read_options(resource, pairs, body)
    options.zone = _parse_zone(principal, options)
    where: Node = _parse_filter(tx, principal, resource, options, strict=strict)
    where = And((*fixed, where)) if fixed else where
    sort_names = options.names("sort")
    sort = _parse_sort(resource, options, sort_names)
    sort = sort or ([] if sort_names else _implied_sort(where))
    words = _parse_words(resource, options)
    deleted = _flag(options, "deleted")
    if deleted and not resource.trash:
        options.fault("deleted", "not_allowed", f"{text.sentence(resource.nouns)} have no trash.")
    fingerprint = _fingerprint(resource, principal, options, _bound_by(sort_names, sort), deleted, fixed)
    query = Query(
        resource=resource,
        where=where,
        words=words,
        sort=sort,
        limit=_parse_limit(options),
        descending=bool(sort_names) and sort_names[-1].startswith("-"),
        after=_parse_cursor(options, secret, fingerprint),
        include=_parse_include(principal, resource, options),
        fields=_parse_fields(resource, options),
        count=_flag(options, "count"),
        deleted=deleted,
        fingerprint=fingerprint,
        lasting=not options.relative,
        zone=None if "timezone" in options.values else options.zone,
        zone_of=options.zone_of,
        keys=options.keys,
    )
    if options.issues:
        raise InvalidQuery(errors=options.issues)
    return query


def keys_exist(tx: Tx, principal: Principal, query: Query) -> bool:
    """Whether each key (status) that the filter of a parsed request names still exists, as `parse` has seen it to."""
    parts = conjuncts(query.where)
    return all(_key_refusal(tx, principal, query.resource, parts, member, key) is None for member, key in query.keys)


def parse_shape(
    principal: Principal, resource: Resource, pairs: Sequence[tuple[str, str]]
) -> tuple[dict[str, Any], list[str] | None]:
    """The include tree and the fields of a request for one resource; nothing else is allowed there.

    Forbidden if the key's scopes do not cover what an include adds.
    """
    tree = filters.tree_of(pairs)
    options = _Options({}, tree, typed=False)
    for name in tree:
        if name not in ("include", "fields"):
            hint = did_you_mean(name, ("include", "fields"))
            detail = f'There is no parameter "{name[:80]}" here.{hint} Allowed: include, fields.'
            options.fault(name, "unknown_parameter", detail)
    include, fields = _parse_include(principal, resource, options), _parse_fields(resource, options)
    if options.issues:
        raise InvalidQuery(errors=options.issues)
    return include, fields


def _read_options(resource: Resource, pairs: Sequence[tuple[str, str]], body: Any) -> _Options:
    tree = filters.tree_of(pairs)
    if body is None:
        values: dict[str, Any] = {name: tree.pop(name) for name in filters.RESERVED if name in tree}
        given = _Options(tree, values, typed=False)
        for name in filters.SINGLE:
            if isinstance(values.get(name), list) and len(values[name]) > 1:
                given.fault(name, "repeated", f"{name} stands more than once; give it one value.")
                del values[name]
        return given
    if not isinstance(body, dict):
        raise InvalidQuery(
            errors=[
                Issue(
                    "wrong_type",
                    'The body is a JSON object such as {"filter": {...}, "sort": "-due_date"}.',
                    pointer="",
                )
            ]
        )
    present = {name: value for name, value in body.items() if value is not None}
    options = _Options(present.get("filter", {}), present, typed=True)
    for name in body:
        if name not in filters.RESERVED and len(options.issues) <= MAX_ISSUES:
            hint = did_you_mean(name, filters.RESERVED)
            options.fault(
                name,
                "unknown_field",
                f'A query has no field "{name[:80]}".{hint} Allowed: {", ".join(filters.RESERVED)}.',
            )
    for name in tree:
        if name == "cursor":
            options.values["cursor"] = tree["cursor"]
        else:
            options.issues.append(
                Issue(
                    "unknown_parameter",
                    "Only cursor may stand in the URL; the rest goes into the body.",
                    parameter=name,
                )
            )
    return options


def _parse_filter(tx: Tx, principal: Principal, resource: Resource, options: _Options, *, strict: bool) -> Node:
    known: dict[tuple[str, str], str | None] = {}

    def resolver(target: str, reference: str) -> str | None:
        key = (target, reference)
        if key not in known:
            tx.budget.spend(LOOKUP_STEPS)
            known[key] = resolve(tx, principal, target, reference)
        return known[key]

    now = time.now_ms()
    zone = zones.get(options.zone)
    place = "/filter" if options.typed else ""
    parser = filters.Parser(resource, resolver, now, typed=options.typed, prefix=place, budget=tx.budget, zone=zone)
    parsers = [parser]
    nodes: list[Node] = []
    if options.typed or options.filter:
        nodes.append(parser.parse(options.filter))
    document = None if options.typed else options.values.get("filter")
    if isinstance(document, dict):
        detail = "filter takes one JSON document, filter={...}. Without JSON, leave the word filter out: priority=high."
        options.fault("filter", "malformed_json", detail)
    elif document is not None:
        try:
            loaded = decode_strict(str(document).encode())
        except Faulty as error:
            options.fault("filter", "malformed_json", f"filter={{...}} must be one JSON document. {error}")
        else:
            inner = filters.Parser(resource, resolver, now, typed=True, prefix="filter", budget=tx.budget, zone=zone)
            nodes.append(inner.parse(loaded))
            parsers.append(inner)
    where = nodes[0] if len(nodes) == 1 else And(tuple(nodes))
    for one in parsers:
        if strict and one.keys and not one.issues and not options.values.get("deleted"):
            one.judge_keys(partial(_key_refusal, tx, principal, resource, conjuncts(where)))
            options.keys += tuple((member, key) for _, member, key in one.keys)
        options.issues += one.issues
        options.relative = options.relative or one.relative
    return where


def _key_refusal(
    tx: Tx, principal: Principal, resource: Resource, parts: Sequence[Node], member: Field, key: str
) -> str | None:
    """Why no object that the principal sees can have this key in its list; None if one has it.

    If the filter names objects, those are asked. The keys that new objects get are always known.
    """
    owner, name = member.keys_of or ("", "")
    target = REGISTRY[resource.fields[owner].target]
    named = [part.values for part in parts if isinstance(part, Leaf) and part.member.name == owner and part.values]
    usual = [entry["key"] for entry in target.fields[name].default]
    if named and len(named[0]) <= MAX_ASKED:
        rows = [get(tx, principal, target, value) for value in named[0]]
        documents = [row.document for row in rows if row is not None]
        if not documents:
            return None
    else:
        rule = access.visible(principal, target, tx.dialect)
        place = "strpos(t.doc, ?)" if tx.dialect == "postgresql" else "instr(t.doc, ?)"
        sql = f"SELECT t.doc FROM {target.table} t WHERE {rule.sql} AND t.deleted_at IS NULL AND {place} > 0 LIMIT ?"
        documents = []
        if key not in usual:
            documents = [row[0] for row in tx.all(sql, (*rule.params, f'"key":{json.encode(key)}', MAX_ASKED))]
    tx.budget.spend(LOOKUP_STEPS + sum(map(len, documents)) // PARSED_A_STEP)
    known = [entry["key"] for text in documents for entry in json.decode(text)[name]]
    if key in known or (not named and key in usual) or len(documents) == MAX_ASKED:
        return None
    allowed = list(dict.fromkeys(known if named else usual))
    whose = f"The {target.noun} has no" if len(documents) == 1 and named else f"No {target.noun} that you see has a"
    whose_own = "Usual" if not named else "Its" if len(documents) == 1 else "Their"
    hint = f"{did_you_mean(key, allowed)} {whose_own} {name}: {', '.join(allowed)}."
    return f'{whose} {member.name} "{key[:63]}".{hint}'


def _parse_zone(principal: Principal, options: _Options) -> str:
    """The zone whose days the request means: the one it names, else the caller's."""
    wanted = options.values.get("timezone")
    if wanted is None:
        within = options.filter.get("workspace_id") if isinstance(options.filter, dict) else None
        options.zone_of = within if isinstance(within, str) else None
        return principal.zone(options.zone_of)
    if not isinstance(wanted, str):
        options.fault("timezone", "wrong_type", "timezone takes one IANA name such as Europe/Berlin.")
        return zones.DEFAULT
    try:
        zones.get(wanted)
    except ValueError as error:
        options.fault("timezone", "unknown_timezone", f"timezone: {error}")
        return zones.DEFAULT
    return wanted


def _parse_sort(resource: Resource, options: _Options, names: list[str]) -> list[SortKey]:
    if len(names) > MAX_SORT_KEYS:
        options.fault("sort", "too_many", f"At most {MAX_SORT_KEYS} sort keys are allowed.")
        return []
    keys: list[SortKey] = []
    bares = [name[1:] if name[:1] in "-+" else name for name in names]
    for name in {name for name in bares if bares.count(name) > 1}:
        options.fault("sort", "repeated", f"sort names {name[:80]} more than once; give each key once.")
    for name in names:
        bare = name[1:] if name[:1] in "-+" else name
        descending = name.startswith("-")
        member = resource.fields.get(bare)
        custom = bare.startswith("custom_fields.") and "custom_fields" in resource.fields
        if custom and re.fullmatch(CUSTOM_KEY, bare[len("custom_fields.") :]):
            inner = f"SELECT MIN({{}}) FROM {resource.side_table} v WHERE v.n = t.n AND v.field = ?"
            side = bare[len("custom_fields") :]
            keys.append(SortKey(f"({inner.format('v.number')})", (side,), descending, True, bare))
            # The side table has no more of a long text.
            beginning = f"substr(v.value, 1, {SIDE_VALUE_BEGINNING})"
            keys.append(SortKey(f"({inner.format(beginning)})", (side,), descending, True, bare))
        elif member is None or not member.sortable:
            allowed = [item.name for item in resource.fields.values() if item.sortable]
            also = ", custom_fields.<key>" if "custom_fields" in resource.fields else ""
            options.fault(
                "sort",
                "unknown_sort",
                f'Cannot sort by "{bare[:80]}".{did_you_mean(bare, allowed)} Allowed: {", ".join(allowed)}{also}.',
            )
        else:
            keys += [SortKey(sql, (), descending, member.nullable, bare) for sql in _sorted_by(member)]
    return keys


def _sorted_by(member: Field) -> list[str]:
    """What a member is sorted by. Of texts that people read, accents and case only decide between those alike else."""
    column = f"t.{member.name}"
    if not member.folded:
        return [column]
    return [f"COALESCE({column}_sort, {column}_folded)", f"substr({column}, 1, {MAX_TIE})"]


def _parse_words(resource: Resource, options: _Options) -> list[str]:
    """The words that `q` asks for."""
    value = options.values.get("q", "")
    if not isinstance(value, str):
        options.fault("q", "wrong_type", "q takes one text.")
    elif len(value) > MAX_SEARCH:
        options.fault("q", "too_long", f"q may have {MAX_SEARCH:,} characters.")
    words = text.sought(value[:MAX_SEARCH] if isinstance(value, str) else "")
    if value and not resource.search:
        options.fault("q", "not_allowed", f"{text.sentence(resource.nouns)} have no full-text search.")
    elif isinstance(value, str) and value and not words:
        options.fault("q", "invalid_format", "q takes words to look for; this has none.")
    return words


def _implied_sort(where: Node) -> list[SortKey]:
    """Without `sort`, a list bounded in time comes in the order of that time, any other in that of creation.

    "Completed since Monday" is about the last rows that were created; walking from the first would read them all.
    Within one project there are few enough for the order of creation.
    """
    parts = conjuncts(where)
    if any(is_scope(part) for part in parts):
        return []
    for part in parts:
        if isinstance(part, Leaf) and part.op in RANGES and part.member.indexed == part.member.name:
            return [SortKey(f"t.{part.member.name}", (), False, part.member.nullable, part.member.name)]
    return []


def _parse_limit(options: _Options) -> int:
    number = options.values.get("limit", DEFAULT_LIMIT)
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if isinstance(number, str) and not options.typed:
        number = whole(number)
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= MAX_LIMIT:
        options.fault(
            "limit", "out_of_range", f"limit is a whole number from 1 to {MAX_LIMIT}; follow the Link header for more."
        )
        return DEFAULT_LIMIT
    return number


def _flag(options: _Options, name: str) -> bool:
    value = options.values.get(name, False)
    flag: bool | None = value if isinstance(value, bool) else None
    if isinstance(value, str) and not options.typed:
        flag = {"true": True, "1": True, "false": False, "0": False, "": False}.get(value.lower())
    if flag is None:
        options.fault(name, "wrong_type", f"{name} takes true or false.")
    return bool(flag)


def included_scope(owner: Resource, relation: Relation) -> str:
    """The scope that including a relation of `owner` takes: the one that reading its target by itself does."""
    # Members are read at the workspace or project in which they have their role.
    return f"{owner.plural if relation.target == 'member' else REGISTRY[relation.target].plural}:read"


def _parse_include(principal: Principal, resource: Resource, options: _Options) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    names = options.names("include")
    if len(names) > MAX_INCLUDES:
        options.fault("include", "too_many", f"At most {MAX_INCLUDES} includes are allowed.")
        return tree
    for name in names:
        node, current = tree, resource
        steps = name.split(".")
        if len(steps) > 2:
            options.fault(
                "include", "too_deep", f'"{name[:80]}" is too deep; includes go two levels deep (project.members).'
            )
            continue
        for step in steps:
            relation = current.includes.get(step)
            if relation is None:
                allowed = ", ".join(current.includes) or "none"
                hint = did_you_mean(step, current.includes)
                options.fault(
                    "include",
                    "unknown_include",
                    f'{text.sentence(current.one)} cannot include "{step[:80]}".{hint} Allowed: {allowed}.',
                )
                break
            access.require_scope(principal, included_scope(current, relation), f"to include {name[:80]}")
            node = node.setdefault(step, {})
            current = REGISTRY[relation.target]
    return tree


def _parse_fields(resource: Resource, options: _Options) -> list[str] | None:
    names = options.names("fields")
    if not names:
        return None
    public = [*resource.public, *(name.partition(".")[0] for name in options.names("include"))]
    for name in names:
        if name not in public:
            hint = did_you_mean(name, public)
            options.fault(
                "fields",
                "unknown_field",
                f'{text.sentence(resource.one)} has no field "{name[:80]}".{hint} Allowed: {", ".join(public)}.',
            )
    return names


def _bound_by(names: list[str], keys: list[SortKey]) -> list[str]:
    """What a cursor holds of an order: how names are sorted has changed once, and with it the values of a position."""
    return [*names, *(key.sql for key in keys if not key.params and key.sql != f"t.{key.name}")]


def _fingerprint(
    resource: Resource, principal: Principal, options: _Options, sort: list[str], deleted: bool, fixed: tuple[Leaf, ...]
) -> str:
    document = options.values.get("filter") if not options.typed else None
    basis = json.encode(
        [
            resource.name,
            principal.user_id,
            options.filter,
            document,
            options.values.get("q"),
            sort,
            deleted,
            [leaf.values for leaf in fixed],
            options.zone,
        ]
    )
    return hashlib.blake2b(basis.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _parse_cursor(options: _Options, secret: bytes, fingerprint: str) -> list[Any] | None:
    value = options.values.get("cursor")
    if value is None:
        return None
    payload = signing.unseal(secret, value) if isinstance(value, str) and value.isascii() else None
    if payload is None:
        options.fault(
            "cursor",
            "invalid_cursor",
            "This is no cursor of this server. Start without one and follow the Link header.",
        )
        return None
    bound, *position = json.decode(payload)
    if bound != fingerprint:
        detail = "This cursor belongs to a query with another filter, sort or caller. Keep them the same while paging."
        options.fault("cursor", "cursor_of_another_query", detail)
        return None
    return list(position)
