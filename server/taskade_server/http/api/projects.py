"""Projects and workspaces: what they have beyond the usual routes."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Final

from taskade_server.domain import projects
from taskade_server.domain.resources import names_template
from taskade_server.engine import schema
from taskade_server.engine.schema import Schema, ref, sample_id
from taskade_server.http.api import generic
from taskade_server.http.api.crud import Options
from taskade_server.http.api.crud_schema import documents
from taskade_server.http.api.document import Document
from taskade_server.http.api.route import Route
from taskade_server.http.api.weight import Weight


def weigh_project(body: Any) -> Weight:
    """Heavy if it is made from a template."""
    return Weight(heavy=names_template(body))


# ---- in the OpenAPI document -----------------------------------------------------------------------------------------


def _projects() -> Mapping[str, Schema]:
    members = {
        "type": ["array", "null"],
        "maxItems": projects.MAX_MEMBERS,
        "items": ref("FirstMember"),
        "description": "The first members, who must be members of the workspace.",
    }
    return {
        "ProjectCreate": schema.creation(projects.PROJECT, {"members": members}),
        "FirstMember": {
            "anyOf": [ref("UserReference"), ref("ProjectMemberCreate")],
            "description": "A user, or a user with the role in the project.",
        },
    }


_DOCUMENTS: Final = documents(
    create={
        "board": ("A board", {"name": "Customer Onboarding", "type": "board", "due_date": "2024-02-01"}),
        "template": ("From a template", {"name": "Customer Onboarding", "template_id": sample_id("tmpl")}),
    },
    update={"dates": ("Set one date and clear another", {"due_date": "2024-02-01", "start_date": None})},
    query={"active": ("Active boards", {"filter": {"type": "board", "archived_at": {"$exists": False}}})},
    created=Document(schemas=_projects),
)
OPTIONS: Final = Options(documents=_DOCUMENTS, weigh=weigh_project, heavy=True)
ARCHIVE: Final = Document(notes="Its tasks stay as they are. An archived project stays as it is.")
UNARCHIVE: Final = Document(notes="An active project stays as it is.")


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
            document=ARCHIVE if archived else UNARCHIVE,
        )
