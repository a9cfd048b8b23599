"""The kinds of resources that are synced, in the order in which a client can use them."""

from collections.abc import Iterable
from typing import Final

from taskade_server.domain.identity import MEMBER
from taskade_server.domain.resources import RESOURCES
from taskade_server.domain.visibility_history import INTERNAL, OWN, SHARED
from taskade_server.engine.model import REGISTRY, Resource

# Where those are that every member may see, by the rule that says who sees a kind; those in projects are seen with
# them. Kinds with another rule are not synced.
_PLACES: Final = {"self": SHARED, "shared": SHARED, "member": SHARED, "workspace": INTERNAL, "owner": OWN}
_SYNCED: Final = [one for one in (*RESOURCES, MEMBER) if one.visibility in _PLACES or one.visibility == "project"]


def _in_order(kinds: Iterable[Resource], *first: str) -> list[Resource]:
    """These kinds as they are, but some before all others."""
    return sorted(kinds, key=lambda one: first.index(one.plural) if one.plural in first else len(first))


# Nothing refers to what comes later: a client that puts them in this order never lacks one.
KINDS: Final = {
    one.plural: one.name
    for one in _in_order(_SYNCED, "workspaces", "users", "templates", "api-keys", "projects", "members")
}

BY_DEFAULT: Final = tuple(kind for kind in KINDS if kind not in ("api-keys", "secrets"))

# In the order in which they are walked through, which a token has the number of.
OUTSIDE_PROJECTS: Final = {
    one.plural: _PLACES[one.visibility]
    for one in _in_order(_SYNCED, "workspaces", "users", "members", "templates", "api-keys")
    if one.visibility in _PLACES
}

INSIDE_PROJECTS: Final = (
    "projects",
    "project-members",
    *(one.plural for one in _SYNCED if one.visibility == "project" and one.plural != "projects"),
)

# Each kind with its scope; who may read a project may read who is in it.
_OTHER_SCOPES: Final = {"members": "workspaces", "project-members": "projects"}
SCOPES: Final = tuple((kind, _OTHER_SCOPES.get(kind, kind)) for kind in (*KINDS, "project-members"))

ANSWERED_AS: Final = {"project-members": "members"}


def resource_of(kind: str) -> Resource:
    """The resource of a kind, project members included."""
    return REGISTRY[KINDS[ANSWERED_AS.get(kind, kind)]]
