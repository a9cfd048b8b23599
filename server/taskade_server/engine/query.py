"""Lists: a request's parameters become one SQL statement that carries the access predicate and pages by keyset.

Why its own small planner: SQLite without statistics picks an index by shape alone, and either choice is a thousand
times slower on the wrong data. Counting a candidate up to a bound costs a fraction of a millisecond and decides safely:
a rare condition drives the query, otherwise the sort order's index is walked until the page is full.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, NamedTuple

from taskade_server.engine import access, filters
from taskade_server.engine.access import Principal, Visible
from taskade_server.engine.filters import And, Leaf, Node, Not, Or
from taskade_server.engine.model import CUSTOM_KEY, REGISTRY, Relation, Resource
from taskade_server.kit import ids, json, signing, text, time
from taskade_server.kit.errors import MAX_ISSUES, InvalidQuery, Issue, did_you_mean
from taskade_server.store.database import Tx

DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1000
MAX_SORT_KEYS: Final = 8
MAX_INCLUDES: Final = 8
MAX_NAMES: Final = 100
MAX_SEARCH: Final = 1_000
MAX_INCLUDED_ROWS: Final = 1000
MAX_INCLUDED_TOTAL: Final = 20_000
MAX_INCLUDED_TEXT: Final = 32 << 20
MAX_PAGE_TEXT: Final = 8 << 20
LATE_FROM: Final = 100
"""Above this many rows, what is sorted are numbers, and the documents are fetched for those that are left."""
_BY_SQL: Final = ("shared", "owner", "managed")
"""Whether somebody sees one is more than workspace and project tell: the row itself has to be asked."""
_RANGES: Final = ("gt", "gte", "lt", "lte")
RARE: Final = 1_500
"""Below this many candidate rows, reading them all and sorting beats walking an index."""
COMMON: Final = 27_000
"""Below this many, gathering their numbers once beats probing the side table row by row while walking."""


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


class Page(NamedTuple):
    """One page: rendered documents, the cursor of the next page, and the total if it was asked for."""

    documents: list[str]
    cursor: str | None
    total: int | None


class Row(NamedTuple):
    """One stored row: its internal number, workspace, project and rendered document."""

    n: int
    workspace_id: str
    project_id: str | None
    document: str


# ---- reading one -----------------------------------------------------------------------------------------------------


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
        principal, resource, row.workspace_id, row.project_id, object_id
    ):
        return None
    return row


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


# ---- parsing ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Options:
    """The parts of a list request before they are understood; `typed` when they come from a JSON body."""

    filter: Any
    values: dict[str, Any]
    typed: bool
    relative: bool = False
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
        if self.typed:
            return [word for entry in entries for word in entry.split(",")]
        return [word.strip() for entry in entries for word in entry.split(",") if word.strip()]


def parse(
    tx: Tx,
    principal: Principal,
    resource: Resource,
    secret: bytes,
    pairs: Sequence[tuple[str, str]],
    body: Any = None,
    fixed: tuple[Leaf, ...] = (),
) -> Query:
    """A list request as a Query. `pairs` are the URL's parameters, `body` the document of QUERY or POST .../query.

    InvalidQuery lists every unknown parameter, operator, value, sort key, include and field with what is allowed.
    `fixed` conditions come from the path.
    """
    options = _read_options(resource, pairs, body)
    where: Node = _parse_filter(tx, principal, resource, options)
    where = And((*fixed, where)) if fixed else where
    sort_names = options.names("sort")
    sort = _parse_sort(resource, options, sort_names)
    sort = sort or ([] if sort_names else _implied_sort(where))
    words = text.tokens(_parse_words(options))
    if options.values.get("q") and not resource.search:
        options.fault("q", "not_allowed", f"{resource.plural} have no full-text search.")
    elif isinstance(options.values.get("q"), str) and options.values["q"] and not words:
        options.fault("q", "invalid_format", "q takes words to look for; this has none.")
    deleted = _flag(options, "deleted")
    if deleted and not resource.trash:
        options.fault("deleted", "not_allowed", f"{resource.plural} have no trash.")
    fingerprint = _fingerprint(resource, principal, options, sort_names, deleted, fixed)
    query = Query(
        resource, where, words, sort, _parse_limit(options), bool(sort_names) and sort_names[-1].startswith("-"),
        _parse_cursor(options, secret, fingerprint), _parse_include(resource, options), _parse_fields(resource,
        options),
        _flag(options, "count"), deleted, fingerprint, not options.relative,
    )  # fmt: skip
    if options.issues:
        raise InvalidQuery(errors=options.issues)
    return query


def parse_shape(resource: Resource, pairs: Sequence[tuple[str, str]]) -> tuple[dict[str, Any], list[str] | None]:
    """The include tree and the fields of a request for one resource; nothing else is allowed there."""
    tree = filters.tree_of(pairs)
    options = _Options({}, tree, typed=False)
    for name in tree:
        if name not in ("include", "fields"):
            options.fault(
                name, "unknown_parameter", f"There is no parameter {name[:80]} here. Allowed: include, fields."
            )
    include, fields = _parse_include(resource, options), _parse_fields(resource, options)
    if options.issues:
        raise InvalidQuery(errors=options.issues)
    return include, fields


def _read_options(resource: Resource, pairs: Sequence[tuple[str, str]], body: Any) -> _Options:
    tree = filters.tree_of(pairs)
    if body is None:
        values: dict[str, Any] = {name: tree.pop(name) for name in filters.RESERVED if name in tree}
        return _Options(tree, values, typed=False)
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
    options = _Options(body.get("filter", {}), dict(body), typed=True)
    for name in body:
        if name not in filters.RESERVED and len(options.issues) <= MAX_ISSUES:
            hint = did_you_mean(name, filters.RESERVED)
            options.fault(
                name,
                "unknown_field",
                f'A query has no member "{name[:80]}".{hint} Allowed: {", ".join(filters.RESERVED)}.',
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


def _parse_filter(tx: Tx, principal: Principal, resource: Resource, options: _Options) -> Node:
    known: dict[tuple[str, str], str | None] = {}

    def resolver(target: str, reference: str) -> str | None:
        key = (target, reference)
        if key not in known:
            known[key] = resolve(tx, principal, target, reference)
        return known[key]

    now = time.now_ms()
    parser = filters.Parser(resource, resolver, now, typed=options.typed, prefix="/filter" if options.typed else "")
    if options.typed:
        node = parser.parse(options.filter)
        options.issues += parser.issues
        options.relative = parser.relative
        return node
    nodes: list[Node] = []
    if options.filter:
        nodes.append(parser.parse(options.filter))
        options.issues += parser.issues
        options.relative = parser.relative
    document = options.values.get("filter")
    if document is not None:
        try:
            loaded = json.decode_strict(str(document).encode())
        except json.Faulty as error:
            options.fault("filter", "malformed_json", f"filter={{...}} must be one JSON document. {error}")
            return filters.EVERYTHING
        inner = filters.Parser(resource, resolver, now, typed=True, prefix="filter")
        nodes.append(inner.parse(loaded))
        options.issues += inner.issues
        options.relative = options.relative or inner.relative
    return nodes[0] if len(nodes) == 1 else And(tuple(nodes))


def _parse_sort(resource: Resource, options: _Options, names: list[str]) -> list[SortKey]:
    if len(names) > MAX_SORT_KEYS:
        options.fault("sort", "too_many", f"At most {MAX_SORT_KEYS} sort keys are allowed.")
        return []
    keys: list[SortKey] = []
    for name in names:
        bare = name[1:] if name[:1] in "-+" else name
        descending = name.startswith("-")
        member = resource.fields.get(bare)
        custom = bare.startswith("custom_fields.") and "custom_fields" in resource.fields
        if custom and re.fullmatch(CUSTOM_KEY, bare[len("custom_fields.") :]):
            inner = f"SELECT MIN({{}}) FROM {resource.side_table} v WHERE v.n = t.n AND v.field = ?"
            side = bare[len("custom_fields") :]
            keys.append(SortKey(f"({inner.format('v.number')})", (side,), descending, True, bare))
            keys.append(SortKey(f"({inner.format('v.value')})", (side,), descending, True, bare))
        elif member is None or not member.sortable:
            allowed = [item.name for item in resource.fields.values() if item.sortable]
            also = ", custom_fields.<key>" if "custom_fields" in resource.fields else ""
            options.fault(
                "sort",
                "unknown_sort",
                f'Cannot sort by "{bare[:80]}".{did_you_mean(bare, allowed)} Allowed: {", ".join(allowed)}{also}.',
            )
        else:
            keys.append(
                SortKey(f"t.{bare}_folded" if member.folded else f"t.{bare}", (), descending, member.nullable, bare)
            )
    return keys


def _parse_words(options: _Options) -> str:
    value = options.values.get("q", "")
    if not isinstance(value, str):
        options.fault("q", "wrong_type", "q takes one text.")
        return ""
    if len(value) > MAX_SEARCH:
        options.fault("q", "too_long", f"q may have {MAX_SEARCH:,} characters.")
    return value[:MAX_SEARCH]


def _implied_sort(where: Node) -> list[SortKey]:
    """Without `sort`, a list bounded in time comes in the order of that time, any other in that of creation.

    "Completed since Monday" is about the last rows that were created; walking from the first would read them all.
    Within one project there are few enough for the order of creation.
    """
    parts = _conjuncts(where)
    if any(_is_scope(part) for part in parts):
        return []
    for part in parts:
        if isinstance(part, Leaf) and part.op in _RANGES and part.member.indexed == part.member.name:
            return [SortKey(f"t.{part.member.name}", (), False, part.member.nullable, part.member.name)]
    return []


def _parse_limit(options: _Options) -> int:
    number = options.values.get("limit", DEFAULT_LIMIT)
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if isinstance(number, str) and not options.typed and number.isascii() and number.isdigit() and len(number) < 8:
        number = int(number)
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


def _parse_include(resource: Resource, options: _Options) -> dict[str, Any]:
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
                    f'A {current.name} cannot include "{step[:80]}".{hint} Allowed: {allowed}.',
                )
                break
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
                f'A {resource.name} has no member "{name[:80]}".{hint} Allowed: {", ".join(public)}.',
            )
    return names


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


# ---- SQL of a filter -------------------------------------------------------------------------------------------------


class _Sql:
    """Builds conditions for one database; `plain` leaves may use an index, on SQLite the others are kept from it."""

    def __init__(self, resource: Resource, dialect: str, plain: Iterable[Node] = ()) -> None:
        self.resource = resource
        self.postgresql = dialect == "postgresql"
        self.plain = {id(node) for node in plain}
        self.gathered: Node | None = None
        self.workspaces: tuple[str, ...] = ()
        self.params: list[Any] = []

    def node(self, node: Node) -> str:
        """The condition of a subtree; its parameters are appended in order."""
        if isinstance(node, Not):
            return f"({self.node(node.part)}) IS NOT TRUE"
        if isinstance(node, And):
            return "(" + " AND ".join([self.node(part) for part in node.parts]) + ")" if node.parts else "1 = 1"
        if isinstance(node, Or):
            return "(" + " OR ".join([self.node(part) for part in node.parts]) + ")"
        return self.side(node) if node.side is not None else self.column(node)

    def column(self, leaf: Leaf) -> str:
        """A comparison with a typed column."""
        folded = leaf.member.folded and leaf.op in ("contains", "prefix")
        column = f"t.{leaf.member.name}_folded" if folded else f"t.{leaf.member.name}"
        if not self.postgresql and id(leaf) not in self.plain:
            column = "+" + column
        return self.compare(column, leaf)

    def side(self, leaf: Leaf) -> str:
        """A comparison with the values of a multi-valued member."""
        if leaf is self.gathered:
            # Not correlated: SQLite gathers the numbers once and looks them up; "+" keeps it from driving by them.
            self.params += self.workspaces
            return (
                f"+t.n IN (SELECT v.n FROM {self.resource.side_table} v"
                f" WHERE v.workspace_id IN ({', '.join('?' * len(self.workspaces))}) AND {self.side_condition(leaf)})"
            )
        return f"EXISTS (SELECT 1 FROM {self.resource.side_table} v WHERE v.n = t.n AND {self.side_condition(leaf)})"

    def side_condition(self, leaf: Leaf) -> str:
        """The condition on a side-table row `v`."""
        self.params.append(leaf.side)
        if leaf.op == "exists":
            return "v.field = ?"
        if leaf.op == "between":
            bounds = [self.compare("v.number", Leaf(leaf.member, op, (value,))) for op, value in leaf.values]
            return " AND ".join(["v.field = ?", *bounds])
        if leaf.op in _RANGES:
            if isinstance(leaf.values[0], float):
                return "v.field = ? AND " + self.compare("v.number", leaf)
            return "v.field = ? AND v.number IS NULL AND " + self.compare("v.value", leaf)
        return "v.field = ? AND " + self.compare("v.value", leaf)

    def compare(self, column: str, leaf: Leaf) -> str:
        """`column op ?` in the dialect's words."""
        op = leaf.op
        if op == "exists":
            return f"{column} IS NOT NULL"
        if op == "in":
            if not leaf.values:
                return "1 = 0"
            sql, params = access.among(column, leaf.values, "postgresql" if self.postgresql else "sqlite")
            self.params += params
            return sql
        if op == "prefix" and not self.postgresql:
            self.params += [len(leaf.values[0]), leaf.values[0]]
            return f"substr({column}, 1, ?) = ?"
        self.params.append(leaf.values[0])
        if op == "contains":
            return f"strpos({column}, ?) > 0" if self.postgresql else f"instr({column}, ?) > 0"
        if op == "prefix":
            return f"starts_with({column}, ?)"
        return f"{column} {_SYMBOL[op]} ?"

    def words(self, words: list[str]) -> str:
        """The full-text condition."""
        self.params.append(_match(words, self.postgresql))
        if self.postgresql:
            return "t.search @@ ?::tsquery"
        table = f"{self.resource.table}_fts"
        return f"+t.n IN (SELECT rowid FROM {table} WHERE {table} MATCH ?)"


_SYMBOL: Final = {"eq": "=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


def _match(words: list[str], postgresql: bool) -> str:
    return " & ".join(f"'{word}':*" for word in words) if postgresql else " ".join(f'"{word}" *' for word in words)


def _conjuncts(node: Node) -> list[Node]:
    if isinstance(node, And):
        return [inner for part in node.parts for inner in _conjuncts(part)]
    return [node]


def _joined_ranges(parts: list[Node]) -> list[Node]:
    """Numeric bounds of one custom field as one condition: alone each is common, together they may be rare.

    A custom field holds one number at most, so one row of the side table has to meet all bounds.
    """
    bounds: dict[str, list[Leaf]] = {}
    for part in parts:
        if isinstance(part, Leaf) and part.side and part.op in _RANGES and isinstance(part.values[0], float):
            bounds.setdefault(part.side, []).append(part)
    joined = [leaf for leaves in bounds.values() if len(leaves) > 1 for leaf in leaves]
    if not joined:
        return parts
    result: list[Node] = [part for part in parts if not any(part is leaf for leaf in joined)]
    for side, leaves in bounds.items():
        if len(leaves) > 1:
            result.append(Leaf(leaves[0].member, "between", tuple((leaf.op, leaf.values[0]) for leaf in leaves), side))
    return result


# ---- planning --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Plan:
    """How to read: FROM clause, parameters, which conjuncts may use an index, whether the order comes from an index."""

    source: str
    params: list[Any]
    plain: list[Node]
    ordered: bool
    scoped: bool = False
    consumed: Node | str | None = None
    gathered: Node | None = None
    number: str = "t.n"


def _plan(tx: Tx, query: Query, rule: Visible, parts: list[Node]) -> _Plan:
    table = query.resource.table
    whole = _Plan(f"{table} t", [], [], ordered=True)
    if tx.dialect != "sqlite":
        return whole
    if query.deleted or not rule.workspaces:
        return _Plan(f"{table} t", [], list(parts), ordered=False, scoped=True)
    scope = next((part for part in parts if _is_scope(part)), None)
    candidates = _candidates(query, parts, scope)
    natural = None
    if not query.sort and scope is None and len(rule.workspaces) == 1:
        natural = next((part for part in candidates if part == "words" or _is_single(part)), None)
    if natural is not None and len(candidates) == 1:
        return _driven(query, rule, natural, ordered=True)  # right for few rows and for many: nothing to count
    if candidates and not (scope is not None and _count(tx, query, rule, scope, RARE) < RARE):
        counted = [(_count(tx, query, rule, candidate, RARE), index) for index, candidate in enumerate(candidates)]
        fewest, index = min(counted)
        if fewest < RARE:
            return _driven(query, rule, candidates[index], ordered=_in_order(query, candidates[index]))
    if scope is not None:
        return _Plan(f"{table} t", [], [scope], ordered=True, scoped=True)
    if natural is not None:
        return _driven(query, rule, natural, ordered=True)
    leading = query.sort[0].name if query.sort else ""
    whole.plain = [
        part
        for part in parts
        if isinstance(part, Leaf) and part.side is None and (part.member.name == leading or _in_order(query, part))
    ]
    sides = [part for part in candidates if isinstance(part, Leaf) and part.side is not None]
    if sides:
        fewest, index = min((_count(tx, query, rule, part, COMMON), index) for index, part in enumerate(sides))
        whole.gathered = sides[index] if fewest < COMMON else None
    return whole


def _candidates(query: Query, parts: list[Node], scope: Node | None) -> list[Node | str]:
    """Conditions that might drive the query. One that the sort order's own index answers needs no counting."""
    found: list[Node | str] = [
        part for part in parts if part is not scope and _is_candidate(part) and not _is_leading_range(query, part)
    ]
    return [*found, "words"] if query.words else found


def _is_single(node: Node | str) -> bool:
    """Whether the side table has the rows of the condition in the order of creation."""
    return isinstance(node, Leaf) and node.side is not None and node.op == "eq"


def _is_leading_range(query: Query, node: Node) -> bool:
    return isinstance(node, Leaf) and node.op in _RANGES and _in_order(query, node)


def _in_order(query: Query, node: Node | str) -> bool:
    """Whether the index that finds a condition's rows has them in the order of the list, too."""
    if not isinstance(node, Leaf) or node.side is not None or len(query.sort) != 1:
        return False
    if node.op == "eq":
        return node.member.indexed == query.sort[0].name != node.member.name
    return node.op in _RANGES and node.member.name == query.sort[0].name


def _is_scope(node: Node) -> bool:
    return isinstance(node, Leaf) and node.op == "eq" and node.side is None and node.member.narrow


def _is_candidate(node: Node) -> bool:
    if not isinstance(node, Leaf):
        return False
    if node.side is not None:
        return node.op in ("eq", "in", "between") or (node.op in _RANGES and isinstance(node.values[0], float))
    if node.op in ("eq", "in"):
        return node.member.narrow or node.member.indexed not in ("", node.member.name)
    return node.op in _RANGES and node.member.indexed == node.member.name


def _count(tx: Tx, query: Query, rule: Visible, candidate: Node | str, limit: int) -> int:
    """How many rows a condition has, up to a limit; a row with two of the wanted values counts twice."""
    plan = _driven(query, rule, candidate, ordered=True)
    sql = _Sql(query.resource, tx.dialect, plan.plain)
    if plan.consumed is None:
        assert isinstance(candidate, Leaf)
        where, params = ([], []) if candidate.member.narrow else ([_in_workspaces(rule)], list(rule.workspaces))
        where.append(sql.node(candidate))
        if query.resource.trash:
            where.append("t.deleted_at IS NULL")
        statement = f"SELECT 1 FROM {query.resource.table} t WHERE {' AND '.join(where)} LIMIT {limit}"
        params += sql.params
    else:
        inner = plan.source.split(" CROSS JOIN ", 1)[0].replace("SELECT DISTINCT", "SELECT", 1)
        statement, params = f"SELECT 1 FROM {inner} LIMIT {limit}", plan.params
    found = tx.one(f"SELECT COUNT(*) FROM ({statement})", tuple(params))
    return int(found[0]) if found else 0


def _in_workspaces(rule: Visible) -> str:
    return f"t.workspace_id IN ({', '.join('?' * len(rule.workspaces))})"


def _driven(query: Query, rule: Visible, driver: Node | str, *, ordered: bool) -> _Plan:
    """A plan that starts at one condition."""
    resource, table = query.resource, query.resource.table
    if driver == "words":
        inner = f"(SELECT rowid AS n FROM {table}_fts WHERE {table}_fts MATCH ?) s"
        return _Plan(
            f"{inner} CROSS JOIN {table} t ON t.n = s.n",
            [_match(query.words, False)],
            [],
            ordered,
            consumed="words",
            number="s.n",
        )
    assert isinstance(driver, Leaf)
    if driver.side is None:
        return _Plan(f"{table} t", [], [driver], ordered, scoped=driver.op in ("eq", "in") and driver.member.narrow)
    sql = _Sql(resource, "sqlite")
    condition = sql.side_condition(driver)
    distinct = "" if driver.op == "eq" else "DISTINCT "
    marks = ", ".join("?" * len(rule.workspaces))
    inner = f"(SELECT {distinct}v.n FROM {resource.side_table} v WHERE v.workspace_id IN ({marks}) AND {condition}) s"
    return _Plan(
        f"{inner} CROSS JOIN {table} t ON t.n = s.n",
        [*rule.workspaces, *sql.params],
        [],
        ordered,
        consumed=driver,
        number="s.n",
    )


# ---- running ---------------------------------------------------------------------------------------------------------


def run(tx: Tx, principal: Principal, query: Query, secret: bytes) -> Page:
    """One page of a list with its includes and chosen fields."""
    if query.words and tx.writable:
        tx.write_deferred()
    rule = access.visible(principal, query.resource, tx.dialect)
    rows, width, cut = _rows(tx, query, rule)
    more = cut or len(rows) > query.limit
    rows = rows[: query.limit]
    cursor = None
    if more:
        position = list(rows[-1][1 : width + 2])
        cursor = signing.seal(secret, json.encode_bytes([query.fingerprint, *position]))
    documents = shape(tx, principal, query.resource, [row[0] for row in rows], query.include, query.fields)
    return Page(documents, cursor, _total(tx, query, rule) if query.count else None)


def select_ids(tx: Tx, principal: Principal, query: Query, limit: int) -> list[str]:
    """The ids a filter selects, at most `limit` + 1, for bulk changes."""
    query.limit = limit
    rows, _, _ = _rows(tx, query, access.visible(principal, query.resource, tx.dialect), "id")
    return [row[0] for row in rows]


def _total(tx: Tx, query: Query, rule: Visible) -> int:
    parts = _joined_ranges(_conjuncts(query.where))
    plan = _plan(tx, query, rule, parts)
    sql = _Sql(query.resource, tx.dialect, plan.plain)
    where, params = _where(query, rule, plan, parts, sql)
    found = tx.one(f"SELECT COUNT(*) FROM {plan.source} WHERE {where}", (*plan.params, *params))
    return int(found[0]) if found else 0


def _where(query: Query, rule: Visible, plan: _Plan, parts: list[Node], sql: _Sql) -> tuple[str, list[Any]]:
    """Access predicate, trash, filter and search as one condition."""
    conditions = [
        rule.sql if not plan.scoped or sql.postgresql else rule.sql.replace("t.workspace_id", "+t.workspace_id", 1)
    ]
    sql.params = list(rule.params)
    sql.gathered, sql.workspaces = plan.gathered, rule.workspaces
    if query.resource.trash:
        # The trash has an index of its own, by what was deleted.
        conditions.append("t.trash_root IS NOT NULL" if query.deleted else "t.deleted_at IS NULL")
    # Side-table probes cost most, so they come last.
    rest = sorted(
        (part for part in parts if part is not plan.consumed),
        key=lambda part: not isinstance(part, Leaf) or part.side is not None,
    )
    conditions += [sql.node(part) for part in rest if part != filters.EVERYTHING]
    if query.words and plan.consumed != "words":
        conditions.append(sql.words(query.words))
    return " AND ".join(conditions), sql.params


def _rows(tx: Tx, query: Query, rule: Visible, wanted_column: str = "doc") -> tuple[list[tuple[Any, ...]], int, bool]:
    """Rows (document, sort values..., n), one more than the limit if there are more; and the number of sort values.

    The last value tells whether they end before the limit, because they are as large as a page may be.
    """
    parts = _joined_ranges(_conjuncts(query.where))
    plan = _plan(tx, query, rule, parts)
    # Without its own sort index a rare set is sorted; a leading "+" keeps SQLite from walking one instead.
    bare = "+" if tx.dialect == "sqlite" and not plan.ordered else ""
    keys = [key._replace(sql=bare + key.sql) for key in query.sort]
    number = SortKey(
        plan.number if plan.ordered or tx.dialect != "sqlite" else "+t.n", (), query.descending, False, "n"
    )
    wanted = query.limit + 1
    rows: list[tuple[Any, ...]] = []
    room, cut = MAX_PAGE_TEXT, False
    for segment in _segments(keys, query.after, parts):
        statement, params = _segment(
            query, rule, plan, parts, [*keys, number], segment, wanted - len(rows), tx.dialect, wanted_column
        )
        found, cut = tx.page(statement, params, room)
        rows += found
        if cut or len(rows) >= wanted:
            break
        room -= sum(len(row[0]) for row in found)
    return rows, len(keys), cut


def _segments(keys: list[SortKey], after: list[Any] | None, parts: list[Node]) -> list[str]:
    """A nullable leading key is read in two passes, values then nulls, so that each pass can follow an index.

    A condition on that key lets no null through; the second pass would look at all of them to find that out.
    """
    if not keys or not keys[0].nullable:
        return ["all"]
    if any(isinstance(part, Leaf) and part.side is None and part.member.name == keys[0].name for part in parts):
        return ["value"]
    return ["null"] if after is not None and after[0] is None else ["value", "null"]


def _segment(
    query: Query, rule: Visible, plan: _Plan, parts: list[Node], keys: list[SortKey], segment: str, limit: int,
    dialect: str, column: str,
) -> tuple[str, tuple[Any, ...]]:  # fmt: skip
    """The statement that reads one segment."""
    after = query.after
    if segment == "null" and after is not None and after[0] is not None:
        after = None
    active = list(keys)
    extra, extra_params = "", []
    if segment != "all":
        extra = f" AND {keys[0].sql} IS {'NOT NULL' if segment == 'value' else 'NULL'}"
        extra_params = list(keys[0].params)
        if segment == "null":
            active, after = keys[1:], after[1:] if after is not None else None
        else:
            active[0] = keys[0]._replace(nullable=False)
    walks = [rule]
    if (
        plan.ordered
        and not plan.scoped
        and plan.consumed is None
        and 1 < len(rule.workspaces) <= 16
        and query.resource.visibility != "shared"
    ):
        walks = [_narrow(rule, name, dialect) for name in rule.workspaces]
    late = dialect == "sqlite" and (query.limit > LATE_FROM or not plan.ordered or len(walks) > 1)
    read = "0 AS doc" if late else f"t.{column} AS doc"
    statements, params = [], []
    for walk in walks:
        statement, more = _statement(
            query, walk, plan, parts, keys, active, after, (extra, extra_params), limit, dialect, read
        )
        statements.append(statement)
        params += more
    statement = statements[0]
    if len(statements) > 1:
        joined = " UNION ALL ".join(f"SELECT * FROM ({one}) AS u{index}" for index, one in enumerate(statements))
        first = len(keys) - len(active)
        order = ", ".join(_order(key._replace(sql=f"k{index}")) for index, key in enumerate(active, first))
        statement = f"SELECT * FROM ({joined}) AS walks ORDER BY {order} LIMIT {limit}"
    if late:
        # CROSS JOIN keeps the order of the left side.
        names = ", ".join(f"s.k{index}" for index in range(len(keys)))
        statement = (
            f"SELECT d.{column} AS doc, {names} FROM ({statement}) AS s"
            f" CROSS JOIN {query.resource.table} d ON d.n = s.k{len(keys) - 1}"
        )
    return statement, tuple(params)


def _narrow(rule: Visible, workspace_id: str, dialect: str) -> Visible:
    """The rule within one of its workspaces, in a form whose order an index can give."""
    rest = rule.sql if dialect == "postgresql" else rule.sql.replace("t.workspace_id", "+t.workspace_id", 1)
    return Visible(f"t.workspace_id = ? AND {rest}", (workspace_id, *rule.params), (workspace_id,))


def _statement(
    query: Query, rule: Visible, plan: _Plan, parts: list[Node], keys: list[SortKey], active: list[SortKey],
    after: list[Any] | None, extra: tuple[str, list[Any]], limit: int, dialect: str, read: str,
) -> tuple[str, list[Any]]:  # fmt: skip
    sql = _Sql(query.resource, dialect, plan.plain)
    where, params = _where(query, rule, plan, parts, sql)
    columns = ", ".join(f"{key.sql} AS k{index}" for index, key in enumerate(keys))
    head_params = [value for key in keys for value in key.params]
    condition, after_params = _after(active, after) if after is not None else ("", [])
    order = ", ".join(_order(key) for key in active)
    order_params = [value for key in active for value in key.params]
    statement = (
        f"SELECT {read}, {columns} FROM {plan.source} WHERE {where}{extra[0]}{condition} ORDER BY {order} LIMIT {limit}"
    )
    return statement, [*head_params, *plan.params, *params, *extra[1], *after_params, *order_params]


def _order(key: SortKey) -> str:
    direction = " DESC" if key.descending else ""
    return f"{key.sql}{direction}{' NULLS LAST' if key.nullable else ''}"


def _after(keys: list[SortKey], values: list[Any]) -> tuple[str, list[Any]]:
    """The condition for rows behind a position (keyset paging)."""
    if not any(key.nullable or key.params for key in keys) and len({key.descending for key in keys}) == 1:
        symbol = "<" if keys[0].descending else ">"
        if len(keys) == 1:
            return f" AND {keys[0].sql} {symbol} ?", list(values)
        return f" AND ({', '.join(key.sql for key in keys)}) {symbol} ({', '.join('?' * len(keys))})", list(values)
    choices: list[str] = []
    params: list[Any] = []
    for index, key in enumerate(keys):
        behind, behind_params = _behind(key, values[index])
        if behind:
            ties = [_tie(key, value) for key, value in zip(keys[:index], values[:index], strict=True)]
            choices.append("(" + " AND ".join([*(tie for tie, _ in ties), behind]) + ")")
            params += [value for _, tie_params in ties for value in tie_params] + behind_params
    return f" AND ({' OR '.join(choices)})", params


def _behind(key: SortKey, value: Any) -> tuple[str, list[Any]]:
    if value is None:
        return "", []
    condition = f"{key.sql} {'<' if key.descending else '>'} ?"
    params = [*key.params, value]
    return (f"({condition} OR {key.sql} IS NULL)", [*params, *key.params]) if key.nullable else (condition, params)


def _tie(key: SortKey, value: Any) -> tuple[str, list[Any]]:
    return (f"{key.sql} IS NULL", [*key.params]) if value is None else (f"{key.sql} = ?", [*key.params, value])


# ---- shaping ---------------------------------------------------------------------------------------------------------


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
    kept = [*fields, *(name for name in include if name not in fields)]
    shaped = []
    for document in documents:
        members = json.decode_members(document)
        shaped.append(json.encode({name: members[name] for name in kept if name in members}))
    return shaped


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
    # The ids are the way in; "+" keeps SQLite from walking the workspace instead.
    predicate = rule.sql if tx.dialect == "postgresql" else rule.sql.replace("t.workspace_id", "+t.workspace_id", 1)
    rows, cut = tx.page(
        f"SELECT t.doc AS doc, t.id FROM {resource.table} t WHERE {among} AND {predicate}{live}",
        (*among_params, *rule.params), MAX_INCLUDED_TEXT,
    )  # fmt: skip
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
    predicate = rule.sql if tx.dialect == "postgresql" else rule.sql.replace("t.workspace_id", "+t.workspace_id", 1)
    inner = (
        f"SELECT t.{relation.source} AS owner, t.doc AS doc,"
        f" ROW_NUMBER() OVER (PARTITION BY t.{relation.source} ORDER BY t.n) AS place"
        f" FROM {resource.table} t WHERE {among} AND {predicate}{live}"
    )
    rows, cut_short = tx.page(
        f"SELECT doc, owner FROM ({inner}) AS r WHERE place <= {MAX_INCLUDED_ROWS + 1} ORDER BY owner, place"
        f" LIMIT {MAX_INCLUDED_TOTAL + 1}",
        (*among_params, *rule.params), MAX_INCLUDED_TEXT,
    )  # fmt: skip
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
