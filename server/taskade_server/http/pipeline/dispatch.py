"""Finds what answers a request: a route of the API, or a mount outside of it."""

import re
from typing import Final

from taskade_server.http.api.route import Route
from taskade_server.http.api.routing import Table, no_path
from taskade_server.http.pages import request_bin
from taskade_server.http.pages.mounts import Mount, Mounts
from taskade_server.http.pipeline.problems import Preflight
from taskade_server.http.routes import all_routes
from taskade_server.http.wire.request import Request
from taskade_server.kit import hints
from taskade_server.kit.errors import MethodNotAllowed

API: Final = "/v1/"
ALL_METHODS: Final = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY"]


class Dispatch:
    """The routes and the mounts of a server, found by path and method."""

    def __init__(self, mounts: Mounts) -> None:
        self.table = Table(all_routes())
        self.mounts = mounts

    def route(self, request: Request) -> tuple[Route, list[str]]:
        """The route of a request below /v1, and its path's parameters.

        NotFound or MethodNotAllowed if there is none; Preflight for OPTIONS.
        """
        path = request.path
        routes, parameters = self.table.require(path[len(API) :], path)
        route = routes.get("GET" if request.method == "HEAD" else request.method)
        if route is None:
            methods = sorted({*routes, "OPTIONS", *(["HEAD"] if "GET" in routes else [])})
            if request.method == "OPTIONS":
                raise Preflight(methods)
            raise MethodNotAllowed(
                f"{path[:200]} supports {', '.join(methods)}.", headers={"allow": ", ".join(methods)}
            )
        return route, parameters

    def mount(self, request: Request) -> Mount | None:
        """The mount of a request outside /v1, None if there is none. Preflight for `OPTIONS *`."""
        if (request.method, request.path) == ("OPTIONS", "*"):  # about the server as a whole (RFC 9110, section 9.3.7)
            raise Preflight(ALL_METHODS)
        return self.mounts.find(request.path)

    def check_method(self, request: Request, mount: Mount | None) -> Mount:
        """The mount, if it answers the method. NotFound with advice, MethodNotAllowed, or Preflight for OPTIONS."""
        path = request.path
        if mount is None:
            raise no_path(path, self._near(path))
        methods = mount.methods
        if request.method not in methods:
            allowed = [*methods, "OPTIONS"]
            if request.method == "OPTIONS":
                raise Preflight(allowed)
            shown = f"{', '.join(methods[:-1])} and {methods[-1]}" if len(methods) > 1 else methods[0]
            raise MethodNotAllowed(f"{path[:200]} supports {shown}.", headers={"allow": ", ".join(allowed)})
        return mount

    def _near(self, path: str) -> str:
        """What was most likely meant by a path outside /v1, as a sentence with a space before it; "" for no idea."""
        if f"{path}/".startswith(request_bin.PREFIX):
            return " Request bins are part of development mode: start the server with `taskade serve --dev`."
        words = path.strip("/").split("/")
        while words[0] in ("api", "rest") or re.fullmatch(r"v\d{1,9}(\.\d{1,9})?", words[0]):
            words = words[1:] or ["v1"]
            if words == ["v1"]:
                return " Did you mean /v1?"
        below = "/".join(words)
        if words[0] in self.table.paths():
            return f" Did you mean /v1/{below[:100]}?" if self.table.find(below) else self.table.near(below)
        page = hints.near(f"/{below}", self.mounts.paths) or hints.near(below, self.mounts.paths)
        return f" Did you mean {page}?" if page else self.table.near(below)
