"""`Route`: one operation of the API, with all that dispatch, permissions and the documents need to know of it."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

from taskade_server.engine.model import Resource
from taskade_server.http.api.document import Document
from taskade_server.http.api.weight import Weight
from taskade_server.http.live.sessions import Session
from taskade_server.http.wire.call import Handler
from taskade_server.http.wire.reply import Reply, Stream

MIB: Final = 1 << 20
Body = Literal[
    "",
    "create",
    "patch",
    "query",
    "bulk_create",
    "bulk_update",
    "bulk_delete",
    "member",
    "member_role",
    "move",
    "empty",
    "batch",
    "rotate_secret",
    "recover",
    "revert",
    "replay",
    "start",
]
Answer = Literal[
    "one",
    "list",
    "none",
    "key",
    "batch",
    "event_types",
    "document",
    "events",
    "event",
    "stream",
    "ticket",
]
UNDOCUMENTED: Final = Document()


@dataclass(frozen=True, slots=True)
class Route:
    """One operation. `path` is below /v1 with {id} and {user}; `heavy` ones may touch thousands of rows.

    `resource` is what the operation is about, None for one that is about no resource, or about all of them.
    """

    method: str
    path: str
    operation_id: str
    scope: str
    handler: Handler
    resource: Resource | None
    summary: str
    writes: bool = False
    heavy: bool = False
    body: Body = ""
    answer: Answer = "one"
    status: int = 200
    max_body: int = MIB
    listing: bool = False
    batchable: bool = True
    live: Callable[[Session], Awaitable[Reply | Stream]] | None = None
    """Answers in place of `handler`, and may take its time: by waiting, or with a stream."""
    media: tuple[str, ...] = ("application/json",)
    read_action: str | None = None
    """The action under which each successful read is written to the log of accesses; None: reads are not logged."""
    weigh: Callable[[Any], Weight] | None = None
    """Tells what a body makes of the request, where that depends on the body."""
    most_cost: int = 1
    """The largest cost that `weigh` gives."""
    scopes_of: Callable[[Any], Iterable[str]] | None = None
    """The scopes that a body needs beside `scope`."""
    consistent: bool = False
    """Everything that it reads has to be of one moment, also without parameters."""
    rolls_back: bool = False
    """It writes, and once its answer is made, all that it wrote is undone, as with `?dry_run=true`."""

    document: Document = UNDOCUMENTED
    """What it says about itself in the OpenAPI document."""

    def __post_init__(self) -> None:
        """ValueError for a route that could not be rolled back."""
        if self.rolls_back and (not self.writes or self.batchable):
            raise ValueError(
                f"{self.operation_id} rolls back: it has to write, in a unit of its own (batchable=False)."
            )

    @property
    def about(self) -> Resource:
        """The resource of a route that has one; LookupError otherwise."""
        if self.resource is None:
            raise LookupError(f"{self.operation_id} is about no resource.")
        return self.resource

    @property
    def versioned(self) -> bool:
        """Whether it changes one object, which If-Match can name the version of."""
        return self.writes and "{id}" in self.path and self.body != "member" and not self.path.startswith("/events/")
