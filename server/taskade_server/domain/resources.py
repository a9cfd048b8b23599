"""All kinds of resources, each with the functions that write it: the one table to which a new resource is added.

Whoever loads this module has them all in the registry.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from taskade_server.domain import automations, identity, projects, secrets, tasks, webhooks, workspaces
from taskade_server.engine.edit import Context
from taskade_server.engine.model import REGISTRY, Resource
from taskade_server.kit import json
from taskade_server.store.database import Tx

Create = Callable[[Tx, Context, Any], str]
"""Makes one from a body; returns its document."""
Update = Callable[[Tx, Context, str, Any], str]
"""Changes the one with an id by a merge patch; returns its document."""
Delete = Callable[[Tx, Context, str], None]
"""Moves the one with an id to the trash, or removes it for good where there is no trash."""
Restore = Callable[[Tx, Context, str], str]
"""Brings the one with an id back from the trash; returns its document."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operations:
    """The functions that write one kind of resource.

    `create` is None for API keys and webhooks, whose creation returns a secret, too, and for automations, which are
    checked against the routes; `restore` is None without a trash.
    """

    resource: Resource
    create: Create | None = None
    update: Update
    delete: Delete
    restore: Restore | None = None


def create_workspace(tx: Tx, context: Context, body: Any) -> str:
    """Create a workspace with the built-in templates."""
    document = workspaces.create(tx, context, body)
    projects.add_builtin_templates(tx, context, json.decode(document)["id"])
    return document


def create_project(tx: Tx, context: Context, body: Any) -> str:
    """Create a project, with the tasks of its template if the body names one."""
    if names_template(body):
        return tasks.instantiate(tx, context, body)
    return projects.create(tx, context, body)


def bring_back_automation(tx: Tx, context: Context, automation_id: str, body: Any) -> str:
    """Change an automation to what it was once: what it does was checked then."""
    return automations.update(tx, context, None, automation_id, body)


def names_template(body: Any) -> bool:
    """Whether the body of a new project names a template, so that all its tasks are to be made, too."""
    return isinstance(body, dict) and body.get("template_id") is not None


ALL: Final[tuple[Operations, ...]] = (
    Operations(
        resource=workspaces.WORKSPACE,
        create=create_workspace,
        update=workspaces.update,
        delete=workspaces.delete,
        restore=workspaces.restore,
    ),
    Operations(
        resource=projects.PROJECT,
        create=create_project,
        update=projects.update,
        delete=projects.delete,
        restore=projects.restore,
    ),
    Operations(
        resource=tasks.TASK,
        create=tasks.create,
        update=tasks.update,
        delete=tasks.delete,
        restore=tasks.restore,
    ),
    Operations(
        resource=tasks.COMMENT,
        create=tasks.create_comment,
        update=tasks.update_comment,
        delete=tasks.delete_comment,
        restore=tasks.restore_comment,
    ),
    Operations(
        resource=projects.TEMPLATE,
        create=projects.create_template,
        update=projects.update_template,
        delete=projects.delete_template,
        restore=projects.restore_template,
    ),
    Operations(
        resource=identity.USER,
        create=identity.create_user,
        update=identity.update_user,
        delete=identity.delete_user,
        restore=identity.restore_user,
    ),
    Operations(resource=identity.API_KEY, update=identity.update_key, delete=identity.delete_key),
    Operations(resource=webhooks.WEBHOOK, update=webhooks.update, delete=webhooks.delete),
    Operations(resource=secrets.SECRET, create=secrets.create, update=secrets.update, delete=secrets.delete),
    Operations(resource=automations.AUTOMATION, update=bring_back_automation, delete=automations.delete),
)
"""In the order of the documents. What refers to another kind stands behind it."""

RESOURCES: Final[tuple[Resource, ...]] = tuple(one.resource for one in ALL)
"""The kinds with routes of their own. Members are written by routes of workspaces and projects."""

TRASHED: Final[tuple[Resource, ...]] = tuple(one for one in reversed(RESOURCES) if one.trash and not one.lasting)
"""The kinds that are removed for good some time after their deletion; what refers to another goes before it."""

PURGED_WITH: Final[Mapping[str, tuple[Resource, ...]]] = MappingProxyType({"project": (identity.MEMBER,)})
"""By the name of a kind: the kinds without a trash of their own of which what belongs to it is removed with it."""

# The functions by the name of the resource, for code that acts on any kind of it.
CREATE: Final[Mapping[str, Create]] = MappingProxyType({one.resource.name: one.create for one in ALL if one.create})
UPDATE: Final[Mapping[str, Update]] = MappingProxyType({one.resource.name: one.update for one in ALL})
DELETE: Final[Mapping[str, Delete]] = MappingProxyType({one.resource.name: one.delete for one in ALL})
RESTORE: Final[Mapping[str, Restore]] = MappingProxyType({one.resource.name: one.restore for one in ALL if one.restore})

REGISTRY.register(*RESOURCES, identity.MEMBER)
