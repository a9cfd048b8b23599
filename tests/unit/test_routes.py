"""The table that finds the routes of a path, asked for sets of routes that nobody thought of.

Why generated sets: the table is made for the shapes that exist today, and a route of a new shape that is registered and
never found answers 404 without another word.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from taskade_server.domain.identity.resources import SCOPED
from taskade_server.domain.resources import RESOURCES
from taskade_server.engine.model import REGISTRY
from taskade_server.http.api.route import Route
from taskade_server.http.api.routing import Table
from taskade_server.http.routes import all_routes

METHODS = ("GET", "POST")
LITERALS = st.sampled_from(["tasks", "reports", "bulk", "me", "*"])
SEGMENTS = LITERALS | st.sampled_from(["{id}", "{other}"])
PATHS = st.tuples(LITERALS, st.lists(SEGMENTS, max_size=4)).map(lambda parts: "/" + "/".join((parts[0], *parts[1])))
VALUES = st.sampled_from(["tasks", "reports", "bulk", "task_1", "*", "{id}", ""])


async def handler(*_: object) -> object:
    """Stands for what would answer: routes are only found here."""
    raise AssertionError("no route is called")


def route(path: str, method: str = "GET") -> Route:
    return Route(method, path, f"{method} {path}", "", handler, next(iter(REGISTRY.values())), "A route")  # type: ignore[arg-type]


def shape_of(path: str) -> tuple[bool, ...]:
    """Which segments are parameters."""
    return tuple(part.startswith("{") for part in path.split("/"))


def fits(path: str, asked: str) -> bool:
    """Whether a path is one of a route, told segment by segment."""
    parts, given_parts = path.strip("/").split("/"), asked.split("/")
    same = (part.startswith("{") or part == value for part, value in zip(parts, given_parts, strict=False))
    return len(parts) == len(given_parts) and all(same)


def different(paths: list[str]) -> list[str]:
    """Without those that differ in the names of parameters alone."""
    return list(
        {tuple("{" if part.startswith("{") else part for part in path.split("/")): path for path in paths}.values()
    )


@given(st.lists(PATHS, max_size=12).map(different), st.data())
def test_every_route_is_found_by_a_path_made_from_it(paths, data):
    table = Table([route(path, method) for path in paths for method in METHODS])
    for path in paths:
        values = [data.draw(VALUES) if part.startswith("{") else part for part in path[1:].split("/")]
        if values[-1] == "" or values == [""]:
            values[-1] = "task_1"  # a slash at the end is no segment
        asked = "/".join(values)
        best = min((other for other in paths if fits(other, asked)), key=shape_of)
        found = table.find(asked)
        assert found is not None, f"{asked} is not found, though {path} is a route"
        assert {method: one.path for method, one in found[0].items()} == dict.fromkeys(METHODS, best)
        names = best[1:].split("/")
        assert found[1] == [value for name, value in zip(names, values, strict=True) if name.startswith("{")]


@given(st.lists(PATHS, max_size=8), st.lists(VALUES | LITERALS, min_size=1, max_size=5).map("/".join))
def test_what_is_found_fits(paths, asked):
    asked = asked.strip("/")
    found = Table([route(path) for path in different(paths)]).find(asked)
    assert (found is not None) == (asked != "" and any(fits(path, asked) for path in paths))


def test_a_parameter_after_two_literal_segments_is_found():
    table = Table([route("/reports/tasks/{id}"), route("/reports/{id}"), route("/reports/{id}/{user}")])
    assert table.find("reports/tasks/task_1") == ({"GET": route("/reports/tasks/{id}")}, ["task_1"])
    assert table.find("reports/task_1/ana") == ({"GET": route("/reports/{id}/{user}")}, ["task_1", "ana"])


@pytest.mark.parametrize(
    "path", ["/{id}", "/{id}/tasks", "tasks", "/", "/tasks//x", "/tasks/{id}.json", "/tasks/x{id}", "/tasks/"]
)
def test_a_path_that_could_not_be_found_is_refused(path):
    with pytest.raises(ValueError, match="a literal segment comes first"):
        Table([route(path)])


def test_two_routes_of_one_path_and_method_are_refused():
    with pytest.raises(ValueError, match="have the same path"):
        Table([route("/tasks/{id}"), route("/tasks/{task}")])


def test_every_route_of_the_api_is_found():
    routes = all_routes()
    table = Table(routes)
    for one in routes:
        found = table.find(one.path.replace("{", "").replace("}", "").strip("/"))
        assert found is not None and found[0][one.method] == one


def test_every_resource_has_scopes():
    assert set(SCOPED) == {resource.plural for resource in RESOURCES}
