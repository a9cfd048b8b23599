"""Conditions of a filter as SQL, with their parameters."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from taskade_server.engine import access
from taskade_server.engine.filters import And, Leaf, Node, Not, Or
from taskade_server.engine.model import SIDE_VALUE_LENGTH, Resource, side_value

RANGES: Final = ("gt", "gte", "lt", "lte")


class Sql:
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
        if leaf.member.kind == "custom" and not (leaf.op in RANGES and isinstance(leaf.values[0], float)):
            return "v.field = ? AND " + self.custom_text(leaf)
        if leaf.op == "between":
            bounds = [self.compare("v.number", Leaf(leaf.member, op, (value,))) for op, value in leaf.values]
            return " AND ".join(["v.field = ?", *bounds])
        return "v.field = ? AND " + self.compare("v.number" if leaf.op in RANGES else "v.value", leaf)

    def custom_text(self, leaf: Leaf) -> str:
        """A comparison with the text of a custom field: an index finds equal ones, the whole text decides."""
        if leaf.op not in ("eq", "in"):
            text_only = "v.number IS NULL AND " if leaf.op in RANGES else ""
            return text_only + self.compare(self.whole_text(leaf), leaf)
        stored = tuple(side_value(value) for value in leaf.values)
        found = self.compare("v.value", replace(leaf, values=stored))
        if all(len(value) < SIDE_VALUE_LENGTH for value in stored):
            return found
        return f"{found} AND {self.compare(self.whole_text(leaf), leaf)}"

    def whole_text(self, leaf: Leaf) -> str:
        """The text of a row `v` of the side table; from the document if it may have only the beginning and a digest.

        A list holds short texts alone, which the side table has whole.
        """
        key = (leaf.side or "")[1:]
        if self.postgresql:
            entry = "(d.doc::json -> 'custom_fields' -> ?::text)"
            text = f"CASE json_typeof({entry}) WHEN 'string' THEN {entry} #>> '{{}}' END COLLATE \"C\""
            self.params += [key, key]
        else:
            text = "text_at(d.doc, 'custom_fields', ?)"
            self.params.append(key)
        inner = f"SELECT {text} FROM {self.resource.table} d WHERE d.n = v.n"
        return f"CASE WHEN length(v.value) = {SIDE_VALUE_LENGTH} THEN COALESCE(({inner}), v.value) ELSE v.value END"

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
        if op == "timed":
            return f"({column} & 1) = ?"
        return f"{column} {_SYMBOL[op]} ?"

    def words(self, words: list[str]) -> str:
        """The full-text condition."""
        self.params.append(match(words, self.postgresql))
        if self.postgresql:
            return "t.search @@ ?::tsquery"
        table = f"{self.resource.table}_fts"
        return f"+t.n IN (SELECT rowid FROM {table} WHERE {table} MATCH ?)"


_SYMBOL: Final = {"eq": "=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


def match(words: list[str], postgresql: bool) -> str:
    return " & ".join(f"'{word}':*" for word in words) if postgresql else " ".join(f'"{word}" *' for word in words)


def conjuncts(node: Node) -> list[Node]:
    if isinstance(node, And):
        return [inner for part in node.parts for inner in conjuncts(part)]
    return [node]


def joined_ranges(parts: list[Node]) -> list[Node]:
    """Numeric bounds of one custom field as one condition: alone each is common, together they may be rare.

    A custom field holds one number at most, so one row of the side table has to meet all bounds.
    """
    bounds: dict[str, list[Leaf]] = {}
    for part in parts:
        if isinstance(part, Leaf) and part.side and part.op in RANGES and isinstance(part.values[0], float):
            bounds.setdefault(part.side, []).append(part)
    joined = [leaf for leaves in bounds.values() if len(leaves) > 1 for leaf in leaves]
    if not joined:
        return parts
    result: list[Node] = [part for part in parts if not any(part is leaf for leaf in joined)]
    for side, leaves in bounds.items():
        if len(leaves) > 1:
            result.append(Leaf(leaves[0].member, "between", tuple((leaf.op, leaf.values[0]) for leaf in leaves), side))
    return result


def is_scope(node: Node) -> bool:
    return isinstance(node, Leaf) and node.op == "eq" and node.side is None and node.member.narrow
