"""The one tree of errors a client can see, each class carrying its status, code and advice.

Why a tree and not status codes at the call sites: the documentation, the OpenAPI document and the wire format are
all read from these classes, so an error cannot exist without being documented. The wire format is RFC 9457.
"""

from collections.abc import Collection, Iterable
from typing import Any, ClassVar, Final

from taskade_server.kit import hints

# More than anybody will read, and each takes work to word: a body full of unknown names would keep a processor busy.
MAX_ISSUES: Final = 100


class Issue:
    """One fault inside a request: where it is (a JSON Pointer or a parameter name), its code, and what to do."""

    __slots__ = ("code", "detail", "parameter", "pointer")

    def __init__(self, code: str, detail: str, *, pointer: str | None = None, parameter: str | None = None) -> None:
        self.code = code
        self.detail = detail
        self.pointer = pointer
        self.parameter = parameter

    def to_dict(self) -> dict[str, str]:
        """The member of `errors` in a problem document."""
        place = {"pointer": self.pointer} if self.pointer is not None else {"parameter": self.parameter or ""}
        return {**place, "code": self.code, "detail": self.detail}

    def sentence(self) -> str:
        """The fault by itself; with its place if that lies deeper in a body, as in one of a thousand tasks."""
        if self.pointer is None or self.pointer.count("/") < 2:
            return self.detail
        return f"{self.detail.removesuffix('.')} (at {self.pointer})."

    def below(self, prefix: str) -> "Issue":
        """Return this fault as seen from an enclosing document (`/name` becomes `/tasks/17/name`)."""
        return Issue(self.code, self.detail, pointer=prefix + (self.pointer or ""))


class Problem(Exception):
    """Base of every error that reaches a client. `advice` says in the documentation what to do about it."""

    status: int = 500
    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Something went wrong on the server"
    advice: ClassVar[str] = (
        "Retry later; if it persists, give the operator the request_id, which is in the server's log."
    )

    def __init__(
        self,
        detail: str | None = None,
        *,
        errors: Iterable[Issue] = (),
        headers: dict[str, str] | None = None,
        extra: dict[str, Any] | None = None,
        status: int | None = None,
    ) -> None:
        self.errors = list(errors)[:MAX_ISSUES]
        if detail is None and self.errors:
            # Programs that print `detail` alone then say what is wrong.
            count = f"The request has {len(self.errors)} faults; `errors` lists them."
            detail = self.errors[0].sentence() if len(self.errors) == 1 else count
        self.detail = detail or self.advice
        super().__init__(self.detail)
        if status is not None:
            self.status = status
        self.headers = headers or {}
        self.extra = extra or {}

    def to_dict(self, instance: str, request_id: str) -> dict[str, Any]:
        """The `application/problem+json` document."""
        document: dict[str, Any] = {
            "type": f"/problems/{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "instance": instance,
            "code": self.code,
            "request_id": request_id,
        }
        if self.errors:
            document["errors"] = [issue.to_dict() for issue in self.errors]
        document.update(self.extra)
        return document


class Internal(Problem):
    """The server failed in a way it did not foresee."""


class Malformed(Problem):
    """The request cannot be parsed."""

    status = 400
    code = "malformed-request"
    title = "The request could not be understood"
    advice = "Look at `errors` for the place. Bodies must be one JSON document in UTF-8 without duplicate keys or NaN."


class InvalidQuery(Problem):
    """A query parameter or filter is not valid."""

    status = 400
    code = "invalid-query"
    title = "A query parameter is not valid"
    advice = "Each entry of `errors` names the parameter and what is allowed there; nothing is ever ignored silently."


class Unauthenticated(Problem):
    """No usable credential."""

    status = 401
    code = "unauthenticated"
    title = "A valid API key is required"
    advice = "Send `Authorization: Bearer <API key>`. Create a key with `taskade keys create --name NAME`."


class Forbidden(Problem):
    """The object is readable, the action is not allowed."""

    status = 403
    code = "forbidden"
    title = "This key or its user may not do that"
    workspace_id = ""
    """The workspace in which it may not be done, if that is known."""
    advice = "`detail` names the missing scope or role. Use a key with that scope, or ask an admin of the workspace."


class NotFound(Problem):
    """No such object or path, or none that the caller may see."""

    status = 404
    code = "not-found"
    title = "Not found"
    advice = "The object does not exist, is in the trash (`?deleted=true` lists it) or is not visible to this key."


class MethodNotAllowed(Problem):
    """The path exists, the method does not."""

    status = 405
    code = "method-not-allowed"
    title = "This path does not support the method"
    advice = "The `Allow` header lists the methods the path supports."


class NotAcceptable(Problem):
    """The Accept header excludes JSON."""

    status = 406
    code = "not-acceptable"
    title = "The server answers in JSON only"
    advice = "Send `Accept: application/json`, `Accept: */*` or no Accept header."


class RequestTimeout(Problem):
    """The body did not arrive in time."""

    status = 408
    code = "request-timeout"
    title = "The request took too long to arrive"
    advice = "A request has to be received whole within 15 seconds. Send it again."


class Clash(Problem):
    """The request collides with what is stored."""

    status = 409
    code = "conflict"
    title = "The request conflicts with the current state"
    advice = "`detail` says with what: an id, e-mail or handle already in use, or an object that is in the trash."


class RevertConflict(Clash):
    """What is to be undone was changed by others since."""

    code = "revert-conflict"
    title = "Later changes stand in the way of undoing this"
    advice = (
        "`conflicts` names each object and member, and the event that changed it later. Undo that first, or together "
        "with this, or change the object by hand."
    )


class IdempotencyKeyInUse(Problem):
    """A request with the same Idempotency-Key is being worked on."""

    status = 409
    code = "idempotency-key-in-use"
    title = "The first request with this Idempotency-Key is still under way"
    advice = "Wait the seconds given in `Retry-After` and send the same request again: it gets the first one's answer."


class Gone(Problem):
    """The thing existed and will not come back."""

    status = 410
    code = "gone"
    title = "No longer available"
    advice = "Start again without the cursor or token."


class TokenExpired(Gone):
    """A sync token reaches further back than the server can tell."""

    code = "token-expired"
    title = "This sync token is too old"
    advice = "Forget what was synced and begin anew with GET /sync without `since`. A token is good for 30 days."


class PreconditionFailed(Problem):
    """If-Match named another version."""

    status = 412
    code = "precondition-failed"
    title = "The resource has changed since you read it"
    advice = "`current` holds the resource as it is now: merge your change into it and send its ETag in If-Match."


class TooLarge(Problem):
    """The body is over the limit."""

    status = 413
    code = "body-too-large"
    title = "The request body is too large"
    advice = "Bodies may have 1 MiB, bulk requests 8 MiB. Split the work into several requests."


class UnsupportedMediaType(Problem):
    """The body is not JSON."""

    status = 415
    code = "unsupported-media-type"
    title = "The body must be JSON"
    advice = (
        "Send `Content-Type: application/json`; a PATCH may also be `application/merge-patch+json` or "
        "`application/json-patch+json`. Bodies are not compressed."
    )


class Invalid(Problem):
    """The body parses but breaks a rule; every fault is listed."""

    status = 422
    code = "validation-failed"
    title = "The request body is not valid"
    advice = "`errors` lists every fault with a JSON Pointer to its place; fix them all and send the request again."


class TooMuchWork(Problem):
    """What was asked for needs more work than one request may cause, however little there is else to do."""

    status = 422
    code = "too-much-work"
    title = "This is too much for one request"
    advice = (
        "Nothing was written, and sending it again would not help. Send it in parts: fewer operations, tasks, custom "
        "fields or characters at once; for many tasks PATCH or DELETE /tasks/bulk with a filter, up to 1,000 at a time."
    )


class NotRevertible(Invalid):
    """The change cannot be undone by anybody."""

    code = "not-revertible"
    title = "This change cannot be undone"
    advice = "`detail` says why: what was removed for good is gone, and so are secrets that were revoked or replaced."


class IdempotencyKeyReused(Problem):
    """The Idempotency-Key belongs to another request."""

    status = 422
    code = "idempotency-key-reused"
    title = "This Idempotency-Key was used for another request"
    advice = (
        "A key stands for one request: the same method, path, parameters and body. Send a new key with a new request; "
        "to repeat the old one, send exactly what was sent then."
    )


class RateLimited(Problem):
    """The caller's budget is used up."""

    status = 429
    code = "quota-exceeded"
    title = "Too many requests"
    advice = "Wait the seconds given in `Retry-After`; a request sent then succeeds."


class TooManyStreams(Problem):
    """The caller follows as many streams as it may."""

    status = 429
    code = "too-many-streams"
    title = "Too many streams are open"
    advice = "Close a stream that nobody needs any more: one can carry all events, and a WebSocket many subscriptions."


class Unavailable(Problem):
    """The server cannot do it now."""

    status = 503
    code = "unavailable"
    title = "The server cannot answer right now"
    advice = "Wait the seconds given in `Retry-After` and send the request again."


class OutcomeUnknown(Unavailable):
    """The commit failed in a way that leaves its result open until the server has restarted."""

    code = "outcome-unknown"
    title = "The write may or may not have been stored"
    advice = (
        "The server restarts by itself. Send the request again with the same Idempotency-Key: it has its effect once. "
        "Without a key, read the object first (clients may choose ids)."
    )


class TooExpensive(Unavailable):
    """The query needed more work than one request may use."""

    code = "query-too-expensive"
    title = "The query needs too much work"
    advice = "Narrow it: add a project, an assignee or a date range, or lower the limit."


class Behind(Unavailable):
    """The position named by min_seq is not visible here yet."""

    code = "position-not-reached"
    title = "The position in `min_seq` has not been reached"
    advice = "Send the request again after `Retry-After`. `min_seq` is the `Commit-Seq` of an earlier answer."


class BatchFailed(Problem):
    """An operation of a batch failed, so none of them took effect; it has the status of that operation."""

    status = 422
    code = "batch-failed"
    title = "An operation of the batch failed; nothing was written"
    advice = (
        "`pointer` names the operation and `operation.problem` is the answer it would have had alone. Correct it and "
        "send the whole batch again."
    )


def problem_classes() -> list[type[Problem]]:
    """Every problem a client can meet, for the documentation and the OpenAPI document, by status then code."""
    found: list[type[Problem]] = []
    pending: list[type[Problem]] = [Problem]
    while pending:
        for subclass in pending.pop().__subclasses__():
            found.append(subclass)
            pending.append(subclass)
    return sorted(found, key=lambda cls: (cls.status, cls.code))


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """` Did you mean "x"?`, or nothing when no allowed word is near."""
    found = hints.near(word, allowed)
    if found is None:
        return ""
    advice = f" {hints.ADVICE[found]}" if found in hints.ADVICE else ""
    return f' Did you mean "{found}"?{advice}'


def with_allowed(said: str, name: str, names: Collection[str]) -> str:
    """What is wrong with a name, followed by the nearest of the names that are allowed, and by all of them."""
    return f"{said}{did_you_mean(name, names)} Allowed: {', '.join(names)}."
