"""Projects and workspaces: what they have beyond the usual routes."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from taskade_server.domain import projects
from taskade_server.domain.resources import names_template
from taskade_server.http.api import generic, resources_schema
from taskade_server.http.api.route import Route
from taskade_server.http.api.weight import Weight


def weigh_project(body: Any) -> Weight:
    """Heavy if it is made from a template."""
    return Weight(heavy=names_template(body))


def routes() -> Iterator[Route]:
    """The routes of projects that other resources have not."""
    for verb, archived in (("archive", True), ("unarchive", False)):
        yield Route(
            "POST",
            f"/projects/{{id}}/{verb}",
            f"projects.{verb}",
            "projects:write",
            generic.acting(projects.PROJECT, partial(projects.archive, archived=archived)),
            projects.PROJECT,
            "Archive a project" if archived else "Make an archived project active again",
            writes=True,
            body="empty",
            document=resources_schema.ARCHIVE if archived else resources_schema.UNARCHIVE,
        )
