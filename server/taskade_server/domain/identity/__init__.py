"""Users, API keys and memberships, and how a bearer token becomes a principal.

Why memberships are here: what somebody may see is derived from nothing but the token and these rows, so one package
can be read to know who gets in. Everybody else imports from here.
"""

from taskade_server.domain.identity.api_keys import MAX_KEY_DAYS, check_key, create_key, delete_key, new_key, update_key
from taskade_server.domain.identity.authentication import authenticate, holder, ip_allowed
from taskade_server.domain.identity.grants import grants_of, own_key, require_unlimited, with_present_rights
from taskade_server.domain.identity.members import (
    MAX_WORKSPACES_BY_OTHERS,
    add_member,
    change_member,
    membership,
    remove_member,
    require_room,
)
from taskade_server.domain.identity.resources import API_KEY, MEMBER, ROLES, SCOPED, SCOPES, USER
from taskade_server.domain.identity.users import (
    create_user,
    delete_user,
    invited,
    resolve_user,
    restore_user,
    update_user,
)

__all__ = [
    "API_KEY",
    "MAX_KEY_DAYS",
    "MAX_WORKSPACES_BY_OTHERS",
    "MEMBER",
    "ROLES",
    "SCOPED",
    "SCOPES",
    "USER",
    "add_member",
    "authenticate",
    "change_member",
    "check_key",
    "create_key",
    "create_user",
    "delete_key",
    "delete_user",
    "grants_of",
    "holder",
    "invited",
    "ip_allowed",
    "membership",
    "new_key",
    "own_key",
    "remove_member",
    "require_room",
    "require_unlimited",
    "resolve_user",
    "restore_user",
    "update_key",
    "update_user",
    "with_present_rights",
]
