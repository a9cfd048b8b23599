"""Mounts: what answers the paths outside /v1, such as pages, documents and whole applications.

Why two kinds: a page is a function, for which the pipeline does what all answers have in common (limits, errors, the
request log, CORS); an application speaks ASGI and does everything itself.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from taskade_server.http.wire.reply import Reply
from taskade_server.http.wire.request import Receive, Request, Scope, Send

Page = Callable[[Request], Awaitable[Reply]]
Form = Callable[[Request, Receive], Awaitable[Reply]]
"""Answers a request with a body, which `wire.body.read_body` reads."""
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Mount:
    """What answers one path, or with `below` all paths that begin with it.

    `page` answers GET and HEAD, `forms` answer other methods by their name. An `application` answers all methods and
    sends its answers itself, which no limit and no log of the pipeline sees.
    """

    path: str
    page: Page | None = None
    below: bool = False
    forms: Mapping[str, Form] = field(default_factory=dict)
    application: Application | None = None

    @property
    def methods(self) -> list[str]:
        """The methods that it answers, without OPTIONS."""
        return [*(["GET", "HEAD"] if self.page is not None else []), *sorted(self.forms)]

    async def answer(self, request: Request, receive: Receive) -> Reply:
        """Answer a request by one of `methods`."""
        form = self.forms.get(request.method)
        if form is not None:
            return await form(request, receive)
        assert self.page is not None
        return await self.page(request)


class Mounts:
    """Finds the mount of a path. A whole path wins over the beginning of one, and of two beginnings the longer."""

    def __init__(self, mounts: Iterable[Mount]) -> None:
        """ValueError for two mounts of one path, or one below /v1, where the routes of the API are."""
        found = list(mounts)
        for mount in found:
            if mount.path.startswith(_API):
                raise ValueError(f"{mount.path} is below {_API}, where only routes answer.")
        self._exact = {mount.path: mount for mount in found if not mount.below}
        below = {mount.path: mount for mount in found if mount.below}
        if len(self._exact) + len(below) < len(found):
            raise ValueError("Two mounts have the same path.")
        self._below = [below[path] for path in sorted(below, key=len, reverse=True)]

    @property
    def paths(self) -> list[str]:
        """The paths that are mounted by themselves."""
        return list(self._exact)

    def find(self, path: str) -> Mount | None:
        """The mount that answers a path, None if there is none."""
        found = self._exact.get(path)
        if found is None:
            found = next((mount for mount in self._below if path.startswith(mount.path)), None)
        return found


_API: Final = "/v1/"
