"""What the routes do: reading is the same for all resources, writing calls the domain's verbs.

Why plain functions of (call, tx): they cannot tell whether a socket or a batch calls them.
"""

import dataclasses
import hashlib
from collections.abc import Callable
from typing import Any, Final

from msgspec.structs import replace

from taskade_server import __version__
from taskade_server.domain import identity, projects, workspaces
from taskade_server.engine import edit, filters, log, past, query
from taskade_server.engine.edit import Context
from taskade_server.engine.filters import Leaf
from taskade_server.engine.model import Resource
from taskade_server.http.api import json_patch
from taskade_server.http.wire.body import SEND_NO_BODY, TAKES_NO_BODY, JsonPatch
from taskade_server.http.wire.call import Call, Handler
from taskade_server.http.wire.negotiation import names_etag
from taskade_server.http.wire.query_string import take
from taskade_server.http.wire.reply import Headers, Reply
from taskade_server.kit import json, time
from taskade_server.kit.errors import Invalid, InvalidQuery, Issue, Malformed, NotFound
from taskade_server.store.database import Tx

Verb = Callable[[Tx, Context, str], str]
MAX_PARSED: Final = 256
MAX_REMEMBERED: Final = 4096
"""Longer query strings are neither kept parsed nor with their answer."""
MAX_WORKSPACES: Final = 100


# ---- reading ---------------------------------------------------------------------------------------------------------


def reading(resource: Resource) -> Handler:
    """GET /{resource}/{id}, as it is or as it was."""

    def handle(call: Call, tx: Tx) -> Reply:
        if past.NAME in call.query_string:
            wanted, rest = take(call.query_string, past.NAME)
            if wanted is not None:
                return _as_it_was(replace(call, query_string=rest), tx, resource, wanted)
        row = query.get(tx, call.principal, resource, call.path[0])
        if row is None:
            raise _missing(tx, call, resource, call.path[0])
        return one(call, tx, resource, row.document)

    return handle


def _as_it_was(call: Call, tx: Tx, resource: Resource, wanted: str) -> Reply:
    include, fields = query.parse_shape(call.principal, resource, call.pairs())
    if include:
        detail = "What an include adds is as it is now; leave include out, and read that by its own id with as_of."
        raise InvalidQuery(errors=[Issue("not_allowed", detail, parameter="include")])
    document = past.read(tx, call.principal, resource, call.path[0], wanted)
    etag = f'"{version_of(document)}-{hashlib.blake2b(call.query_string.encode(), digest_size=6).hexdigest()}"'
    if call.cached_etags is not None and names_etag(call.cached_etags, etag):
        return Reply(304, None, [(b"etag", etag.encode())])
    return Reply(200, query.shape(tx, call.principal, resource, [document], {}, fields)[0], [(b"etag", etag.encode())])


def listing(resource: Resource, within: str = "") -> Handler:
    """GET /{resource}; `within` names the member that the path's id fixes (members of a project)."""

    def handle(call: Call, tx: Tx) -> Reply:
        if past.NAME in call.query_string and take(call.query_string, past.NAME)[0] is not None:
            detail = f"as_of reads one object: GET /v1/{resource.plural}/<id>?as_of=... A list is as it is now."
            raise InvalidQuery(errors=[Issue("not_allowed", detail, parameter=past.NAME)])
        return _list(call, tx, resource, None, within)

    return handle


def querying(resource: Resource) -> Handler:
    """QUERY /{resource} (RFC 10008) and POST /{resource}/query."""

    def handle(call: Call, tx: Tx) -> Reply:
        if call.body is None:
            raise Malformed('The body is a JSON object such as {"filter": {...}, "sort": "-due_date", "limit": 50}.')
        return _list(call, tx, resource, call.body, "")

    return handle


def _list(call: Call, tx: Tx, resource: Resource, body: Any, within: str) -> Reply:
    parsed = _parsed(call, tx, resource, body, within)
    # The use of a key is added to its whole document, so it is cut to the chosen fields only then.
    keys = resource is identity.API_KEY
    short = len(call.query_string) <= MAX_REMEMBERED
    heads, etag = _validator(call, tx) if body is None and parsed.lasting and short and not keys else ((), "")
    if etag and call.cached_etags is not None and names_etag(call.cached_etags, etag):
        return Reply(304, None, [(b"etag", etag.encode())])
    page = query.run(tx, call.principal, dataclasses.replace(parsed, fields=None) if keys else parsed, call.secret)
    headers: Headers = [(b"etag", etag.encode())] if etag else []
    if page.cursor is not None:
        headers.append(call.link_to_next("cursor", page.cursor))
    if page.total is not None:
        headers.append((b"total-count", str(page.total).encode()))
    documents = page.documents
    if keys:
        used = [_with_usage(tx, document) for document in documents]
        documents = query.shape(tx, call.principal, resource, used, {}, parsed.fields)
    return Reply(200, json.array(documents), headers, etag=etag, heads=heads)


def _validator(call: Call, tx: Tx) -> tuple[tuple[tuple[str, int], ...], str]:
    """How far the logs are that the caller can see, read before the list, and the ETag that this makes.

    It is weak: any change in a visible workspace alters it, also one outside the list.
    """
    principal = call.principal
    if not 0 < len(principal.grants) <= MAX_WORKSPACES:
        return (), ""
    heads = tuple(log.heads(tx, list(principal.grants)))
    caller = (__version__, principal.caller_id, call.rights_version, heads)
    return heads, f'W/"{hashlib.blake2b(repr(caller).encode(), key=call.secret[:64], digest_size=12).hexdigest()}"'


def _parsed(call: Call, tx: Tx, resource: Resource, body: Any, within: str) -> query.Query:
    """The list request, understood; the same one of the same caller is parsed once."""
    key = (resource.name, call.query_string)
    remembered = call.queries if body is None else None
    known = remembered.get(key) if remembered is not None else None
    if known is not None and query.keys_exist(tx, call.principal, known):
        return known
    fixed: tuple[Leaf, ...] = ()
    if within:
        owner = workspaces.WORKSPACE if within == "workspace_id" else projects.PROJECT
        if query.get(tx, call.principal, owner, call.path[0]) is None:
            raise _missing(tx, call, owner, call.path[0])
        fixed = (Leaf(resource.fields[within], "eq", (call.path[0],)),)
    parsed = query.parse(tx, call.principal, resource, call.secret, call.pairs(), body, fixed)
    if within == "workspace_id":
        parsed.where = filters.And((parsed.where, filters.Not(Leaf(resource.fields["project_id"], "exists"))))
    # Not in a unit that writes: what it refers to may yet be undone.
    if (
        remembered is not None
        and parsed.lasting
        and parsed.after is None
        and not within
        and not tx.writable
        and len(key[1]) <= MAX_REMEMBERED
    ):
        if len(remembered) >= MAX_PARSED:
            remembered.clear()
        remembered[key] = parsed
    return parsed


def one(
    call: Call, tx: Tx, resource: Resource, document: str, status: int = 200, *, headers: Headers | None = None
) -> Reply:
    """A single resource as a reply: includes, fields, ETag, 304."""
    version = version_of(document)
    etag = f'"{version}"'
    if resource is identity.API_KEY:
        document = _with_usage(tx, document)
    if call.query_string:
        include, fields = query.parse_shape(call.principal, resource, call.pairs())
        document = query.shape(tx, call.principal, resource, [document], include, fields)[0]
        etag = f'"{version}-{hashlib.blake2b(document.encode(), digest_size=6).hexdigest()}"'
    if call.cached_etags is not None and status == 200 and names_etag(call.cached_etags, etag):
        return Reply(304, None, [(b"etag", etag.encode())])
    return Reply(status, document, [(b"etag", etag.encode()), *(headers or [])])


def id(document: str) -> str:
    """Every document begins with it."""
    start = document.index('"id":"') + 6
    return document[start : document.index('"', start)]


def version_of(document: str) -> str:
    start = document.index('"version":') + 10
    end = start
    while document[end].isdigit():
        end += 1
    return document[start:end]


def _missing(tx: Tx, call: Call, resource: Resource, object_id: str) -> NotFound:
    return NotFound(query.absence(tx, call.principal, resource, object_id))


def _with_usage(tx: Tx, document: str) -> str:
    """A key's document with the time of its last use, which is no change of the key and so not part of its row."""
    key = json.decode(document)
    row = tx.one("SELECT at FROM last_used WHERE id = ?", (key["id"],))
    return json.encode({**key, "last_used_at": time.format_ms(row[0])}) if row else document


# ---- writing ---------------------------------------------------------------------------------------------------------


def creating(resource: Resource, verb: Callable[[Tx, Context, Any], str]) -> Handler:
    """POST /{resource}."""

    def handle(call: Call, tx: Tx) -> Reply:
        document = verb(tx, call.context(), body_of(call))
        location = f"/v1/{resource.plural}/{id(document)}"
        return one(call, tx, resource, document, 201, headers=[(b"location", location.encode())])

    return handle


def changing(resource: Resource, verb: Callable[[Tx, Context, str, Any], str]) -> Handler:
    """PUT or PATCH /{resource}/{id}, and verbs that take a body."""

    def handle(call: Call, tx: Tx) -> Reply:
        context, body = call.context(), body_of(call)
        if isinstance(body, JsonPatch):
            _, document = edit.load(tx, context, resource, call.path[0])
            body = json_patch.merge_patch(resource, document, body, tx.budget)
        return one(call, tx, resource, verb(tx, context, call.path[0], body))

    return handle


def acting(resource: Resource, verb: Verb) -> Handler:
    """POST /{resource}/{id}/{verb} without a body."""

    def handle(call: Call, tx: Tx) -> Reply:
        no_body(call)
        return one(call, tx, resource, verb(tx, call.context(), call.path[0]))

    return handle


def restoring(resource: Resource, verb: Verb) -> Handler:
    """POST /{resource}/{id}/restore; what is not in the trash stays as it is."""
    act = acting(resource, verb)

    def handle(call: Call, tx: Tx) -> Reply:
        live = query.get(tx, call.principal, resource, call.path[0])
        if live is not None:
            no_body(call)
            if call.if_match is not None or call.if_none_match is not None:
                edit.expect(call.context(), resource, json.decode(live.document))
            return one(call, tx, resource, live.document)
        return act(call, tx)

    return handle


def deleting(verb: Callable[[Tx, Context, str], None]) -> Handler:
    """DELETE /{resource}/{id}."""

    def handle(call: Call, tx: Tx) -> Reply:
        call.no_parameters()
        no_body(call)
        verb(tx, call.context(), call.path[0])
        return Reply(204)

    return handle


def body_of(call: Call) -> Any:
    if call.body is None:
        raise Malformed(
            "The request needs a JSON body and has none.", errors=[Issue("required", "The body is empty.", pointer="")]
        )
    return call.body


def no_body(call: Call, advice: str = "") -> None:
    """Invalid if the request has a body other than `{}`; `advice` is what to do instead, with a space before it."""
    if call.body is not None and call.body != {}:
        raise Invalid(f"{TAKES_NO_BODY}{advice}", errors=[SEND_NO_BODY])
