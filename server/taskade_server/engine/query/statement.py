"""The SELECT of a list: its conditions, its order, and where the page before it ended (keyset paging)."""

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from taskade_server.engine import filters
from taskade_server.engine.access import Visible
from taskade_server.engine.filters import Leaf, Node
from taskade_server.engine.query.parsing import Query, SortKey
from taskade_server.engine.query.plan import WORDS, Plan
from taskade_server.engine.query.sql import Sql

MAX_WALKS: Final = 16
LATE_FROM: Final = 100
"""Above this many rows, what is sorted are numbers, and the documents are fetched for those that are left."""


def where_of(query: Query, rule: Visible, plan: Plan, parts: list[Node], sql: Sql) -> tuple[str, list[Any]]:
    """Access predicate, trash, filter and search as one condition."""
    conditions = [rule.unindexed if plan.scoped else rule.sql]
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
    if query.words and plan.consumed is not WORDS:
        conditions.append(sql.words(query.words))
    return " AND ".join(conditions), sql.params


def segments_of(keys: list[SortKey], after: list[Any] | None, parts: list[Node]) -> list[str]:
    """A nullable leading key is read in two passes, values then nulls, so that each pass can follow an index.

    A condition on that key lets no null through; the second pass would look at all of them to find that out.
    """
    if not keys or not keys[0].nullable:
        return ["all"]
    if any(isinstance(part, Leaf) and part.side is None and part.member.name == keys[0].name for part in parts):
        return ["value"]
    return ["null"] if after is not None and after[0] is None else ["value", "null"]


@dataclass(frozen=True, slots=True)
class ListStatement:
    """What all statements of one list have in common. Of `keys`, the last is the number of the row."""

    query: Query
    rule: Visible
    plan: Plan
    parts: list[Node]
    keys: list[SortKey]
    dialect: str
    column: str

    def of_segment(self, name: str, limit: int) -> tuple[str, tuple[Any, ...]]:
        """Return the statement that reads one segment (see `segments_of`), with its parameters."""
        segment = self._segment(name)
        walks = self._walks()
        late = self.dialect == "sqlite" and (self.query.limit > LATE_FROM or not self.plan.ordered or len(walks) > 1)
        read = "0 AS doc" if late else f"t.{self.column} AS doc"
        statements: list[str] = []
        params: list[Any] = []
        for walk in walks:
            statement, more = self._walk(walk, segment, limit, read)
            statements.append(statement)
            params += more
        statement = statements[0] if len(statements) == 1 else self._merged(statements, segment, limit)
        return self._with_documents(statement) if late else statement, tuple(params)

    def _segment(self, name: str) -> "_Segment":
        keys, after = self.keys, self.query.after
        if name == "all":
            return _Segment(keys, after, "", [])
        condition = f" AND {keys[0].sql} IS {'NOT NULL' if name == 'value' else 'NULL'}"
        params = list(keys[0].params)
        if name == "value":
            return _Segment([keys[0]._replace(nullable=False), *keys[1:]], after, condition, params)
        begun = after is not None and after[0] is None
        return _Segment(keys[1:], after[1:] if begun and after is not None else None, condition, params)

    def _walks(self) -> list[Visible]:
        """The rule, or a rule for each of few workspaces where an index has the order of the list only within one."""
        if (
            self.plan.ordered
            and not self.plan.scoped
            and self.plan.consumed is None
            and 1 < len(self.rule.workspaces) <= MAX_WALKS
            and self.query.resource.visibility != "shared"
        ):
            return [self.rule.within(name) for name in self.rule.workspaces]
        return [self.rule]

    def _walk(self, rule: Visible, segment: "_Segment", limit: int, read: str) -> tuple[str, list[Any]]:
        """The statement for the rows that one rule lets through."""
        plan, active = self.plan, segment.keys
        sql = Sql(self.query.resource, self.dialect, plan.plain)
        where, params = where_of(self.query, rule, plan, self.parts, sql)
        columns = ", ".join(f"{key.sql} AS k{index}" for index, key in enumerate(self.keys))
        head_params = [value for key in self.keys for value in key.params]
        condition, after_params = _after(active, segment.after) if segment.after is not None else ("", [])
        order = ", ".join(_order(key) for key in active)
        order_params = [value for key in active for value in key.params]
        statement = (
            f"SELECT {read}, {columns} FROM {plan.source} WHERE {where}{segment.condition}{condition}"
            f" ORDER BY {order} LIMIT {limit}"
        )
        return statement, [*head_params, *plan.params, *params, *segment.params, *after_params, *order_params]

    def _merged(self, statements: list[str], segment: "_Segment", limit: int) -> str:
        """One statement for the first rows of several."""
        joined = " UNION ALL ".join(f"SELECT * FROM ({one}) AS u{index}" for index, one in enumerate(statements))
        first = len(self.keys) - len(segment.keys)
        order = ", ".join(_order(key._replace(sql=f"k{index}")) for index, key in enumerate(segment.keys, first))
        return f"SELECT * FROM ({joined}) AS walks ORDER BY {order} LIMIT {limit}"

    def _with_documents(self, statement: str) -> str:
        """The statement with the documents of the rows that are left; CROSS JOIN keeps the order of the left side."""
        names = ", ".join(f"s.k{index}" for index in range(len(self.keys)))
        return (
            f"SELECT d.{self.column} AS doc, {names} FROM ({statement}) AS s"
            f" CROSS JOIN {self.query.resource.table} d ON d.n = s.k{len(self.keys) - 1}"
        )


class _Segment(NamedTuple):
    """The keys that sort a segment, the position behind which it begins, and the condition that makes it one."""

    keys: list[SortKey]
    after: list[Any] | None
    condition: str
    params: list[Any]


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
