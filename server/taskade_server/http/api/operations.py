"""Runs operations of the API in a unit of work: those of a batch, and those that something else has in store.

Why through the route table: an operation that is run here is the same function with the same checks as one that came by
a socket, so whatever runs it can do neither more nor less. A result is put where `{"$ref": "operation.field"}` stands.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec

from taskade_server.engine import log
from taskade_server.engine.access import Principal
from taskade_server.http.api import operation as api
from taskade_server.http.api.route import Route
from taskade_server.http.api.routing import Table, no_path
from taskade_server.http.wire.body import TAKES_NO_BODY
from taskade_server.http.wire.call import Call
from taskade_server.http.wire.negotiation import named_version
from taskade_server.http.wire.reply import Reply
from taskade_server.http.wire.request import decoded_path
from taskade_server.kit import json, references
from taskade_server.kit.errors import (
    MAX_ISSUES,
    BatchFailed,
    Invalid,
    Issue,
    MethodNotAllowed,
    Problem,
    with_allowed,
)
from taskade_server.kit.references import FaultyReference, Template, Values
from taskade_server.kit.strict_json import escape_pointer
from taskade_server.store.database import Conflict, Tx

# What an operation takes from the unit's budget beside its own work, and how many characters of its answer one step.
OPERATION_STEPS: Final = 50
ANSWERED_A_STEP: Final = 500
MAX_RESULT_BYTES: Final = 32 << 20
_MEMBERS: Final = ("id", "method", "path", "body", "if_match")
_ID: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_SHOWN: Final = {b"etag": "ETag", b"location": "Location", b"link": "Link", b"total-count": "Total-Count"}


class Operation(msgspec.Struct, eq=False):
    """One operation that was checked. `pointer` is the pointer to it."""

    index: int
    pointer: str
    name: str
    method: str
    path: str
    route: Route
    body: Any = None
    if_match: frozenset[str] | None = None
    template: Template | None = None
    """The path with the references in it or in the body; None if there are none."""


class Result(msgspec.Struct, eq=False):
    """What an operation answered."""

    operation: Operation
    reply: Reply

    def to_json(self) -> str:
        """The result as clients see it: `{id?, status, headers, body}`."""
        name, reply = self.operation.name, self.reply
        named = f'"id":{json.encode(name)},' if name else ""
        # The validator of a list says how far the log is, and the unit has not moved it yet.
        shown = [
            (name, value) for name, value in reply.headers if name in _SHOWN and not (name == b"etag" and reply.etag)
        ]
        headers = {_SHOWN[name]: value.decode("latin-1") for name, value in shown}
        return f'{{{named}"status":{reply.status},"headers":{json.encode(headers)},"body":{reply.body or "null"}}}'


class _Run(msgspec.Struct, eq=False):
    """Operations that are being run: the caller as those before have made them, and what references may use.

    `altered` is how many changes of rights the principal takes into account.
    """

    call: Call
    base_url: str
    principal: Principal
    values: Values
    altered: int = 0


class Operations:
    """Checks and runs operations, over the table of all routes.

    It is made before the table is complete, so that routes can be given it that run operations themselves.
    """

    def __init__(self) -> None:
        self.table = Table([])

    def complete(self, routes: list[Route]) -> None:
        """Take all routes, those that run operations included: it is they that no operation can name."""
        self.table = Table(routes)

    def check(self, operations: list[Any], prefix: str, known: Collection[str] = ()) -> list[Issue]:
        """What is wrong with operations, with pointers below a prefix such as `/operations`; nothing is run.

        `known` are the names that references may use beside those of earlier operations.
        """
        return self.prepare(operations, prefix, known)[1]

    def prepare(
        self, operations: list[Any], prefix: str, known: Collection[str] = ()
    ) -> tuple[list[Operation], list[Issue]]:
        """The operations in the form that `run` takes, and what is wrong, as `check` tells it.

        To be run only if nothing is: an operation with an issue is left out.
        """
        names, given = set(known), ", ".join(known)
        advice = (
            f"names no earlier operation{f', nor one of {given}' if given else ''}: give the id or index of one before"
            " this, and a field of its result, such as 0.id."
        )
        issues: list[Issue] = []
        found = []
        for index, item in enumerate(operations):
            if len(issues) >= MAX_ISSUES:
                break  # nobody reads more, and each takes work to word
            before = len(issues)
            operation = _Reading(self.table, names, advice, issues).operation(index, item, f"{prefix}/{index}")
            if operation is not None and len(issues) == before:
                found.append(operation)
            names |= {str(index), *([item["id"]] if isinstance(item, dict) and isinstance(item.get("id"), str) else [])}
        return found, issues

    def run(
        self, tx: Tx, call: Call, operations: list[Operation], given: Mapping[str, Any], base_url: str = ""
    ) -> list[Result]:
        """Run operations in their order.

        `call` says who runs them, and from where: its principal, `refresh` for when an operation changes rights, and
        what events say of it, `origin` included. Its path and body are not used. `given` are values that references
        may use beside the results of earlier operations, `base_url` the address of the API for links.
        BatchFailed for the first operation that fails; what those before it wrote is left to the caller to roll back.
        """
        run = _Run(call, base_url, call.principal, Values(tx.budget, given))
        results: list[Result] = []
        total = 0
        for operation in operations:
            try:
                if log.rights_changes(tx) != run.altered:
                    run.principal, run.altered = call.refresh(tx), log.rights_changes(tx)
                reply = self._perform(operation, tx, run)
            except (Problem, Conflict) as error:
                raise _failed(operation, error, call.request_id) from error
            size = len(reply.body or "")
            tx.budget.spend(size // ANSWERED_A_STEP)
            total += size
            if total > MAX_RESULT_BYTES:
                too_much = Invalid(f"The results are over {MAX_RESULT_BYTES >> 20} MiB; ask for less in one batch.")
                raise _failed(operation, too_much, call.request_id)
            results.append(Result(operation, reply))
            names = (str(operation.index), operation.name) if operation.name else (str(operation.index),)
            run.values.add(names, reply.body or "")
        return results

    def _perform(self, operation: Operation, tx: Tx, run: _Run) -> Reply:
        tx.budget.spend(OPERATION_STEPS)
        body = operation.body
        if operation.template is None:
            path, _, query_string = operation.path.partition("?")
        else:
            path, query_string = run.values.path(operation.template)
            body = run.values.body(body)
        route, parameters = find(self.table, operation.method, path)
        if route is not operation.route:
            raise no_path(path)
        call = run.call
        inner = Call(
            run.principal,
            call.secret,
            call.request_id,
            parameters,
            query_string,
            body,
            f"{run.base_url}{path}",
            if_match=operation.if_match,
            address=call.address,
            user_agent=call.user_agent,
            destinations=call.destinations,
            queries=call.queries if run.principal is call.principal else None,
            origin=call.origin,
        )
        return api.run(route, inner, tx)


# ---- reading operations ----------------------------------------------------------------------------------------------


class _Reading(msgspec.Struct, eq=False):
    """What one operation is checked against: the routes, the names known before it, and what was wrong so far."""

    table: Table
    known: set[str]
    advice: str
    issues: list[Issue]

    def operation(self, index: int, item: Any, pointer: str) -> Operation | None:
        """The operation; None if it is none. What is wrong with it is noted."""
        issues = self.issues
        if not isinstance(item, dict):
            issues.append(Issue("wrong_type", "An operation is an object with a method and a path.", pointer=pointer))
            return None
        issues += [unknown(pointer, name, _MEMBERS) for name in item if name not in _MEMBERS]
        name, method, path, body = item.get("id"), item.get("method"), item.get("path"), item.get("body")
        self._check_name(name, pointer)
        if not isinstance(method, str):
            issues.append(
                Issue("required", "method is GET, POST, PUT, PATCH, DELETE or QUERY.", pointer=f"{pointer}/method")
            )
        if not isinstance(path, str) or not path.startswith("/"):
            issues.append(Issue("required", "path is a text such as /tasks or /v1/tasks.", pointer=f"{pointer}/path"))
        if not isinstance(method, str) or not isinstance(path, str) or not path.startswith("/"):
            return None
        path = below_v1(path)
        used = references.find(path, body)
        issues += [issue.below(pointer) for issue in (*used.issues, *used.unknown(self.known, self.advice))]
        try:
            template = references.template(path)
            route, _ = find(self.table, method.upper(), template.shape)
        except FaultyReference:
            return None  # which is among the issues of `used`
        except Problem as problem:
            code = "not_allowed" if isinstance(problem, Invalid) else problem.code.replace("-", "_")
            issues.append(Issue(code, problem.detail, pointer=f"{pointer}/path"))
            return None
        if body is not None and not route.body:
            issues.append(Issue("not_allowed", TAKES_NO_BODY, pointer=f"{pointer}/body"))
        version = named_version(item.get("if_match"), pointer, issues)
        if version is not None and not route.versioned:
            detail = "This operation changes no single object that could have a version; leave if_match out."
            issues.append(Issue("not_allowed", detail, pointer=f"{pointer}/if_match"))
        used_template = template if used.references else None
        return Operation(index, pointer, name or "", method.upper(), path, route, body, version, used_template)

    def _check_name(self, name: Any, pointer: str) -> None:
        if name is not None and (not isinstance(name, str) or not _ID.fullmatch(name)):
            detail = "An id begins with a letter and has up to 64 letters, digits, _ and -."
            self.issues.append(Issue("invalid_format", detail, pointer=f"{pointer}/id"))
        elif name in self.known:
            detail = f'The id "{name}" is taken, by an earlier operation or by what is always known; choose another.'
            self.issues.append(Issue("duplicate", detail, pointer=f"{pointer}/id"))


def below_v1(path: str) -> str:
    """A path without the version of the API, which it may begin with."""
    return path.removeprefix("/v1") if path.startswith("/v1/") else path


def unknown(pointer: str, name: str, allowed: tuple[str, ...]) -> Issue:
    """The fault of a member that there is not."""
    detail = with_allowed(f'There is no field "{name[:80]}" here.', name, allowed)
    return Issue("unknown_field", detail, pointer=f"{pointer}/{escape_pointer(name)}")


def find(table: Table, method: str, path: str) -> tuple[Route, list[str]]:
    """The route of an operation and its path's parameters.

    NotFound, MethodNotAllowed, or Invalid if it cannot be part of a batch.
    """
    routes, parameters = table.require(decoded_path(path[1:]), path)
    route = routes.get(method)
    if route is None:
        raise MethodNotAllowed(f"{path[:200]} supports {', '.join(sorted(routes))}.")
    if not route.batchable:
        raise Invalid(f"{method} {path[:200]} cannot be part of a batch.")
    return route, parameters


def _failed(operation: Operation, error: Problem | Conflict, request_id: str) -> BatchFailed:
    """The whole batch's failure, with the answer that the operation would have had alone."""
    if isinstance(error, Conflict):
        error = Invalid("Another object has the same unique value.")
    pointer = operation.pointer
    shown = f'"{operation.name}" ' if operation.name else ""
    inner = error.to_dict(f"/v1{operation.path}"[:500], request_id)
    issues = [
        Issue(issue.code, issue.detail, pointer=f"{pointer}/path")
        if issue.pointer is None
        else issue.below(f"{pointer}/body")
        for issue in error.errors
    ]
    return BatchFailed(
        f"Operation {operation.index} {shown}({operation.method} {operation.path[:200]}) failed: {error.detail}",
        status=error.status,
        errors=issues,
        headers=error.headers,
        extra={
            "pointer": pointer,
            "operation": {
                "index": operation.index,
                **({"id": operation.name} if operation.name else {}),
                "problem": inner,
            },
        },
    )
