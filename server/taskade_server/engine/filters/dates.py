"""Comparisons with dates and times: a date is a span in somebody's time zone, a time is a moment.

A column holds twice the epoch milliseconds of a date, and one more for a time (see `model.day_column`), so that a
comparison has two edges: one for the dates in the column, and one for the times.
"""

from datetime import date

from taskade_server.engine.filters.nodes import And, Leaf, Node, Or
from taskade_server.engine.model import Field
from taskade_server.kit import time, zones


def date_comparison(member: Field, op: str, meant: date | int, zone: zones.Zone) -> Node:
    """Return the condition that a member is (`eq`), or lies before or after, a day or a moment (epoch ms)."""
    if op == "eq" and not isinstance(meant, date):
        return Leaf(member, "eq", (2 * meant + 1 if member.kind == "day" else meant,))
    # "After a day" begins where the next day does, and "until a moment" ends a millisecond behind it.
    begin, end = _edge(member, meant, 0, zone), _edge(member, meant, 1, zone)
    if op == "eq":
        return And((_at_least(member, *begin), _below(member, *end)))
    edge = begin if op in ("gte", "lt") else end
    return _at_least(member, *edge) if op in ("gte", "gt") else _below(member, *edge)


def _edge(member: Field, meant: date | int, after: int, zone: zones.Zone) -> tuple[int, int]:
    """The first date and the first time in a column that lie at or (`after`: 1) behind a day or a moment.

    Of a member that only has times both are the same.
    """
    day = meant if isinstance(meant, date) else zones.day_of(meant, zone)
    if isinstance(meant, date):
        first = zones.end_of(meant, zone) if after else zones.start_of(meant, zone)
    else:
        first = meant + after
    if member.kind == "time":
        return first, first
    return 2 * (day.toordinal() + after - zones.EPOCH_DAY) * time.DAY_MS, 2 * first + 1


def _at_least(member: Field, dated: int, timed: int) -> Node:
    """Dates from one value of the column on, and times from another on."""
    low, high = min(dated, timed), max(dated, timed)
    first = Leaf(member, "gte", (low,))
    if high - low <= 1:
        return first
    return And((first, Or((Leaf(member, "gte", (high,)), Leaf(member, "timed", (int(timed < dated),))))))


def _below(member: Field, dated: int, timed: int) -> Node:
    """Dates below one value of the column, and times below another."""
    low, high = min(dated, timed), max(dated, timed)
    last = Leaf(member, "lt", (high,))
    if high - low <= 1:
        return Leaf(member, "lt", (low,))
    return And((last, Or((Leaf(member, "lt", (low,)), Leaf(member, "timed", (int(timed > dated),))))))
