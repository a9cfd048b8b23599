"""Lists and single objects, read for a principal: what a request asks for, how it is planned, and what it answers.

`parse` makes a `Query` of a request, `run` answers it, `shape` adds includes and cuts fields; `get` and `resolve` find
one object. The files beside this one are how that is done; everybody else imports from here.
"""

from taskade_server.engine.query.execute import Page, run, select_ids
from taskade_server.engine.query.include import MAX_INCLUDED_ROWS, MAX_INCLUDED_TEXT, MAX_INCLUDED_TOTAL, shape
from taskade_server.engine.query.lookup import LOOKUP_STEPS, Row, absence, get, resolve
from taskade_server.engine.query.parsing import (
    DEFAULT_LIMIT,
    MAX_INCLUDES,
    MAX_LIMIT,
    MAX_SORT_KEYS,
    Query,
    SortKey,
    included_scope,
    keys_exist,
    parse,
    parse_shape,
)

__all__ = [
    "DEFAULT_LIMIT",
    "LOOKUP_STEPS",
    "MAX_INCLUDED_ROWS",
    "MAX_INCLUDED_TEXT",
    "MAX_INCLUDED_TOTAL",
    "MAX_INCLUDES",
    "MAX_LIMIT",
    "MAX_SORT_KEYS",
    "Page",
    "Query",
    "Row",
    "SortKey",
    "absence",
    "get",
    "included_scope",
    "keys_exist",
    "parse",
    "parse_shape",
    "resolve",
    "run",
    "select_ids",
    "shape",
]
