"""Finds the route of a method and a path, and the nearest one if there is none."""

import re
from typing import Final

from taskade_server.domain import identity
from taskade_server.http.api.route import Route
from taskade_server.http.live import websocket
from taskade_server.kit import hints
from taskade_server.kit.errors import NotFound

_ByMethod = dict[str, Route]


def no_path(shown: str, advice: str = "") -> NotFound:
    """The problem of a path that does not exist; `shown` as the client wrote it, `advice` with a space before it."""
    return NotFound(f"There is no path {shown[:200]}.{advice} GET /openapi.json lists those of the API.")


class _Shape:
    """The paths of one kind that have as many segments and their parameters in the same places."""

    def __init__(self, parameters: tuple[bool, ...]) -> None:
        self.parameters = [index for index, is_parameter in enumerate(parameters) if is_parameter]
        self._literals = [index for index, is_parameter in enumerate(parameters) if not is_parameter]
        self._routes: dict[tuple[str, ...], _ByMethod] = {}

    def routes(self, parts: list[str]) -> _ByMethod | None:
        """The routes whose literal segments these are; None if there are none."""
        return self._routes.get(tuple([parts[index] for index in self._literals]))

    @property
    def literals(self) -> list[str]:
        """The first literal segment of each path."""
        return [names[0] for names in self._routes if names]

    def add(self, parts: list[str], route: Route) -> None:
        """Raise ValueError if there is such a route already."""
        methods = self._routes.setdefault(tuple([parts[index] for index in self._literals]), {})
        if methods.setdefault(route.method, route) is not route:
            raise ValueError(f"{route.operation_id} and {methods[route.method].operation_id} have the same path.")


class _Kind:
    """The routes of one first segment."""

    def __init__(self) -> None:
        self.literal: dict[str, _ByMethod] = {}
        """By the rest of the path, where it has no parameter."""
        self.one: _ByMethod | None = None
        """Those of `{id}`: what most requests ask for."""
        self.shapes: dict[int, dict[tuple[bool, ...], _Shape]] = {}
        """All others, by the number of segments, then by which of these are parameters: literal segments first."""

    def add(self, rest: str, route: Route) -> None:
        parts = rest.split("/")
        parameters = tuple(part.startswith("{") for part in parts)
        shapes = self.shapes.setdefault(len(parts), {})
        shape = shapes.setdefault(parameters, _Shape(parameters))
        shape.add(parts, route)
        self.shapes[len(parts)] = dict(sorted(shapes.items()))  # a literal, False, comes before a parameter
        if not any(parameters):
            self.literal[rest] = shape.routes(parts) or {}
        elif parameters == (True,):
            self.one = shape.routes(parts)


class Table:
    """Finds the routes of a path. Literal segments win over parameters (`/tasks/bulk` over `/tasks/{id}`).

    Where both could be meant in several places, the first segment that differs decides. A first segment is always
    literal, and a parameter is a whole segment: any other path raises ValueError.
    """

    def __init__(self, routes: list[Route]) -> None:
        self._kinds: dict[str, _Kind] = {}
        for route in routes:
            if not _PATH.fullmatch(route.path):
                raise ValueError(f"{route.operation_id} has the path {route.path}: a literal segment comes first.")
            kind, _, rest = route.path[1:].partition("/")
            self._kinds.setdefault(kind, _Kind()).add(rest, route)

    def find(self, path: str) -> tuple[_ByMethod, list[str]] | None:
        """The routes of a path below /v1 by method, and its parameters; None if there is no such path."""
        name, _, rest = path.strip("/").partition("/")
        kind = self._kinds.get(name)
        if kind is None:
            return None
        found = kind.literal.get(rest)
        if found is not None:
            return found, []
        if "/" not in rest:  # most requests: one thing of a kind
            return None if kind.one is None or not rest else (kind.one, [rest])
        parts = rest.split("/")
        for shape in kind.shapes.get(len(parts), _NONE).values():
            found = shape.routes(parts)
            if found is not None:
                return found, [parts[index] for index in shape.parameters]
        return None

    def require(self, path: str, shown: str) -> tuple[_ByMethod, list[str]]:
        """As `find`, but NotFound with advice if there is no such path; `shown` is the path as the client wrote it."""
        found = self.find(path)
        if shown in websocket.PATHS:
            raise NotFound(f"{shown} is a WebSocket: open it as one, at ws:// or wss://.")
        if found is None or "//" in path or path.startswith("/"):
            raise no_path(shown, self.near(path))
        if "\x00" in path:
            raise NotFound("No id contains NUL (%00).")  # and PostgreSQL could not even be asked
        return found

    def near(self, path: str) -> str:
        """What was most likely meant by a path below /v1 that does not exist, in a sentence with a space before it."""
        first, _, rest = path.strip("/")[:MAX_NEAR].partition("/")
        kind = hints.near(first, self._kinds)
        if kind is None:
            return ""
        parts = rest.split("/") if rest else []
        if first in _OWN and kind == "users":
            return " Did you mean /v1/users/me?"
        if kind != first and self.find(f"{kind}/{rest}") is not None:
            return f" Did you mean /v1/{'/'.join([kind, *parts])}?"
        if len(parts) < 2:
            return f" Did you mean /v1/{kind}?" if kind != first else ""
        inner = hints.near(parts[1], self._kinds)
        if len(parts) == 2 and inner is not None and f"{kind[:-1]}_id" in self._filters(inner):
            return f" Did you mean /v1/{inner}?{kind[:-1]}_id={parts[0]}?"
        verbs = sorted(self._verbs(kind))
        verb = hints.near(parts[1], verbs)
        if verb is not None:
            return f" Did you mean /v1/{kind}/{parts[0]}/{verb}?"
        return f" Below /v1/{kind}/<id> there is: {', '.join(verbs)}." if verbs else ""

    def _filters(self, kind: str) -> set[str]:
        """What the list of a kind can be filtered by."""
        routes = self._kinds[kind].literal.get("", {})
        # The workspace_id of a user is that of whoever invited them, and not of every workspace that they belong to.
        found = [route.resource for route in routes.values() if route.listing and route.resource is not identity.USER]
        return {name for resource in found if resource is not None for name in resource.filterable}

    def _verbs(self, kind: str) -> set[str]:
        """What may stand behind the id of one of a kind."""
        shapes = self._kinds[kind].shapes.get(2, {})
        return {name for shape in shapes.values() if shape.parameters == [0] for name in shape.literals}

    def paths(self) -> list[str]:
        """All first segments."""
        return sorted(self._kinds)


_PATH: Final = re.compile(r"/[^/{}]+(?:/(?:[^/{}]+|\{\w+\}))*")
MAX_NEAR: Final = 200
_OWN: Final = ("me", "self", "whoami", "profile")
_NONE: Final[dict[tuple[bool, ...], _Shape]] = {}
