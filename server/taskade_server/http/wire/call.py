"""`Call`: what a handler is given of a request."""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from taskade_server.engine.access import Principal
from taskade_server.engine.edit import Context
from taskade_server.engine.log import Actor
from taskade_server.engine.query import Query
from taskade_server.http.wire import query_string as parameters
from taskade_server.http.wire.reply import Header, Reply
from taskade_server.kit.destinations import NOWHERE_INSIDE, Rules
from taskade_server.store.database import Tx

MAX_USER_AGENT: Final = 200
ParsedQueries = dict[tuple[str, str], Query]
"""List requests, by the name of the resource and the query string."""


def _rights_are_fixed(tx: Tx) -> Principal:
    raise RuntimeError("A call that only reads changes no rights, so that its caller is never looked up again.")


class Call(msgspec.Struct, frozen=True, eq=False):
    """One run of an operation, whether it came as a request, inside a batch or on a WebSocket.

    It is made inside a unit of work, once the caller is known, and never changes: a unit that is run again gets a new
    one. `path` holds the path's parameters in order, `query_string` is still percent-encoded, `url` is the address
    without it. `rights_version` is the version of rights at which the principal was looked up. If-None-Match is two
    things: on a read it names the versions that the client has, for a 304 (`cached_etags`, the header's bytes), on a
    write it forbids (`if_none_match`). Secrets that the call
    makes are derived from `seed`, so that a repeated request can be given them again. `refresh` looks the caller up
    again after the unit has changed rights. `queries` are lists that the principal has asked for, parsed, which a
    handler may add to; None: nothing is remembered. `origin` is a JSON text that says what led to a
    call that nobody made directly.
    """

    principal: Principal
    secret: bytes
    request_id: str
    path: list[str]
    query_string: str = ""
    body: Any = None
    url: str = ""
    rights_version: int = 0
    if_match: frozenset[str] | None = None
    cached_etags: bytes | None = None
    if_none_match: frozenset[str] | None = None
    address: str | None = None
    user_agent: str | None = None
    destinations: Rules = NOWHERE_INSIDE
    seed: str = ""
    refresh: Callable[[Tx], Principal] = _rights_are_fixed
    queries: ParsedQueries | None = None
    origin: str | None = None

    def __repr__(self) -> str:
        """Without what it holds, which is secret."""
        return f"Call({self.request_id!r})"

    def context(self) -> Context:
        """The caller as the domain knows it. What a verb grants stays in this context, and ends with its unit."""
        known = self.principal
        actor = Actor(known.user_id, known.key_id, self.request_id, self.address, self.user_agent, self.origin)
        return Context(known, actor, self.secret, self.if_match, self.if_none_match, self.seed, self.destinations)

    def pairs(self) -> list[tuple[str, str]]:
        """The parameters as decoded names and values; InvalidQuery if they are not UTF-8 or too many."""
        return parameters.pairs(self.query_string) if self.query_string else []

    def no_parameters(self) -> None:
        """InvalidQuery if the request has parameters although the operation takes none."""
        if self.query_string:
            parameters.refuse_parameters(self.query_string)

    def link_to_next(self, name: str, value: object) -> Header:
        """The header Link of an answer that goes on: this request with another value of one parameter."""
        return parameters.link_to_next(self.url, self.query_string, name, value)


Handler = Callable[[Call, Tx], Reply]
