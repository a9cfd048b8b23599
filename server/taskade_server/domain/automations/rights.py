"""In whose name an automation acts: its user, with the present rights of the API key that last changed what it does."""

from dataclasses import replace
from typing import Any

from taskade_server.domain import identity
from taskade_server.engine.access import WORKSPACE_ROLES, Grant, Principal
from taskade_server.kit import zones
from taskade_server.kit.errors import Unauthenticated
from taskade_server.store.database import Tx

NOBODY = Principal("", None, frozenset(), {}, None)


class RightsLost(Exception):
    """The automation may do nothing any more; the message says why, for people."""


def principal_of(tx: Tx, document: dict[str, Any]) -> Principal:
    """What the key of an automation may do now, in its workspace. RightsLost if that is nothing."""
    try:
        principal, _, _ = identity.holder(tx, document["api_key_id"] or "")
    except Unauthenticated as error:
        raise RightsLost(
            f"The API key {document['api_key_id']} that the automation acts with is no longer good ({error.detail})"
            " Enable the automation again with a key that is."
        ) from error
    if principal.grant(document["workspace_id"]) is None:
        raise RightsLost("The user that the automation acts for is no longer in its workspace.")
    return principal


def zone_of(document: dict[str, Any], principal: Principal) -> zones.Zone:
    """The time zone of an automation's days."""
    return zones.get(document["timezone"] or principal.zone(document["workspace_id"]))


def seen_by(principal: Principal, caller: Principal) -> Principal:
    """The rights that an automation has, as far as they concern what the caller may see.

    For trying an automation out: its answer then holds nothing that the caller could not read, not even where an action
    copies it from. What the automation may change of that stays what it may change.
    """
    if principal.user_id == caller.user_id and principal.key_id == caller.key_id:
        return principal
    scopes = set()
    for scope in identity.SCOPES if "*" in principal.scopes else principal.scopes:
        resource = scope.partition(":")[0]
        if caller.allows(f"{resource}:read") or caller.allows(scope):
            scopes.add(scope)
    grants = {
        name: _both(grant, caller.grants[name]) for name, grant in principal.grants.items() if name in caller.grants
    }
    return replace(principal, scopes=frozenset(scopes), grants=grants)


def _both(one: Grant, other: Grant) -> Grant:
    """What two grants in the same workspace have in common, with the lesser of their roles."""
    if WORKSPACE_ROLES.index(other.role) < WORKSPACE_ROLES.index(one.role):
        one, other = other, one
    limits = [grant.only for grant in (one, other) if grant.only is not None]
    hidden = one.hidden if other.role in ("admin", "owner") else one.hidden | other.hidden
    roles = {
        name: role
        for name, role in one.project_roles.items()
        if other.sees_project(other.workspace_id, name, is_open=True)
    }
    return replace(
        one,
        only=frozenset.intersection(*limits) if limits else None,
        hidden=hidden,
        project_roles=roles,
        live=one.live and other.live,
    )
