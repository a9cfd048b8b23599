"""`Reply` and `Stream`: what a handler answers."""

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec

Header = tuple[bytes, bytes]
Headers = list[Header]
JSON_TYPE: Final = b"application/json"
PROBLEM_TYPE: Final = b"application/problem+json"


class Reply(msgspec.Struct, eq=False):
    """What a handler answers: status, body text (None: no body) and headers beside the usual ones.

    `etag` is not empty when the answer stays the same until the log of a visible workspace moves; `heads` says how far
    they were. `secret` marks a body that must not be stored as it is: its `secret` can be made again ("derived"), or
    all of it is encrypted ("sealed"). `packed` keeps the bytes, by encoding, of an
    answer that is given again.
    """

    status: int = 200
    body: str | None = None
    headers: Headers = []
    content_type: bytes = JSON_TYPE
    etag: str = ""
    heads: tuple[tuple[str, int], ...] = ()
    secret: Literal["", "derived", "sealed"] = ""
    packed: dict[bytes, bytes] | None = None


@dataclass(slots=True)
class Stream:
    """An answer that is written piece by piece, as it comes about; `close` is called when it has ended, however it did.

    `patience` is how many seconds a client may take for a piece before the rest is not sent. `workspace_id` is the
    workspace that it is about, for the log of accesses; "" if it is about none.
    """

    chunks: AsyncGenerator[bytes, None]
    content_type: bytes
    headers: Headers = field(default_factory=list)
    patience: float = 30.0
    close: Callable[[], None] = lambda: None
    workspace_id: str = ""
