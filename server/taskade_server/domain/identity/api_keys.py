"""API keys: creating, changing and revoking them. No key gives more rights than it has."""

import ipaddress
from collections.abc import Callable
from typing import Any, Final

from taskade_server.domain.identity.administration import require_inviting_admin
from taskade_server.domain.identity.grants import own_key
from taskade_server.domain.identity.resources import API_KEY, SCOPES
from taskade_server.engine import edit, log, query
from taskade_server.engine.edit import Context
from taskade_server.engine.log import Change
from taskade_server.engine.model import REGISTRY
from taskade_server.kit import json, signing, time
from taskade_server.kit.errors import Clash, Forbidden, Invalid, Issue, did_you_mean
from taskade_server.store.database import Tx

MAX_KEY_DAYS: Final = 365


def create_key(tx: Tx, context: Context, body: Any) -> tuple[str, str]:
    """A new key, as (document, secret); it cannot have more rights than the key that makes it.

    It is the caller's, or that of a service user whom the caller administers.
    """
    home = context.principal.default_workspace
    values = edit.fields(API_KEY, body, given=edit.given(context, workspace_id=home))
    if home is None:
        raise Clash(
            "You belong to no workspace, and the log of one records each key. Create one first: POST /v1/workspaces."
        )
    reference = values["user_id"]
    if reference is not None and query.resolve(tx, context.principal, "user", reference) != context.principal.user_id:
        values["user_id"], home = _service_user(tx, context, reference, values["workspace_ids"])
        values["workspace_ids"] = [home]
    else:
        values["user_id"] = context.principal.user_id
    check_key(context, values)
    _check_limits(tx, context, values)
    return new_key(tx, context, values["user_id"], home, values)


def _service_user(tx: Tx, context: Context, reference: str, chosen: list[str]) -> tuple[str, str]:
    """The service user that a key is for, and the one workspace that it is limited to; Invalid if there can be no key.

    The caller has to have power over it there. People make their own keys, as one acts in its user's name.
    """
    user_id = query.resolve(tx, context.principal, "user", reference)
    found = tx.one("SELECT doc FROM users WHERE id = ? AND deleted_at IS NULL", (user_id,)) if user_id else None
    if user_id is None or found is None:
        detail = f'There is no user "{reference[:80]}" that you can see; give an id, handle or e-mail.'
        raise _not_for(detail, code="unknown_reference")
    user = json.decode(found[0])
    home: str = user["workspace_id"]
    if user["kind"] != "service":
        raise _not_for(
            f'A key acts in its user\'s name, so people make their own. "{reference[:80]}" is a person: make the key of'
            ' a service user (POST /v1/users {"kind": "service", ...}), or leave user_id out for a key of your own.'
        )
    try:
        require_inviting_admin(tx, context, user)
    except Forbidden as refused:
        raise _not_for(
            f'To make a key of "{reference[:80]}" you have to administer {home}, the workspace that invited it:'
            f" {refused.detail}"
        ) from None
    if chosen not in ([], [home]):
        detail = f"The key of a service user is limited to the workspace that invited it, {home}."
        raise _not_for(detail, code="exceeds_own_limits", pointer="/workspace_ids")
    return user_id, home


def _require_power_over_key(tx: Tx, context: Context, key: dict[str, Any]) -> None:
    """Forbidden unless a key is the caller's, or that of a service user over whom the caller has power now."""
    if key["user_id"] == context.principal.user_id:
        return
    found = tx.one("SELECT doc FROM users WHERE id = ?", (key["user_id"],))
    user = json.decode(found[0]) if found else {}
    if user.get("kind") != "service":
        raise Forbidden("A key of somebody else is changed and revoked by them only.")
    require_inviting_admin(tx, context, user)


def _not_for(detail: str, *, code: str = "read_only", pointer: str = "/user_id") -> Invalid:
    return Invalid(errors=[Issue(code, detail, pointer=pointer)])


def new_key(
    tx: Tx, context: Context, user_id: str, workspace_id: str | None, values: dict[str, Any]
) -> tuple[str, str]:
    """Write a key for a user; used by the API and by the command line."""
    key = signing.new_key(edit.new_id(tx, API_KEY, values.get("id")), context.secret, context.seed)
    prefix = key.text.rsplit("_", 2)[0]
    doc = {
        "last_used_at": None,
        **values,
        "id": key.id,
        "workspace_id": workspace_id,
        "user_id": user_id,
        "prefix": prefix,
    }
    return edit.create(tx, context, API_KEY, doc, hash=signing.digest(context.secret, key.text)), key.text


def update_key(tx: Tx, context: Context, key_id: str, body: Any) -> str:
    """Change a key's name, scopes, limits or expiry. The calling key has to reach as far as that one, now and then."""
    row, before = edit.load(tx, context, API_KEY, key_id)
    _require_power_over_key(tx, context, before)
    _require_reach(tx, context, before)
    values = edit.fields(API_KEY, body, current=before)
    if before["user_id"] != context.principal.user_id:
        _stays_limited(before, values)
    check_key(context, values)
    _check_limits(tx, context, values)
    return edit.update(tx, context, API_KEY, row, before, {**before, **values})


def _stays_limited(before: dict[str, Any], values: dict[str, Any]) -> None:
    """Refuse a change of a service user's key that reaches beyond the workspace it is limited to.

    Forbidden if it reaches beyond already; Invalid if it would after the change.
    """
    home = [before["workspace_id"]]
    if before["workspace_ids"] != home:
        raise Forbidden("The key of a service user that reaches beyond this workspace is changed by that user only.")
    if values.get("workspace_ids", home) != home:
        detail = "The key of a service user stays limited to its workspace."
        edit.fail([Issue("exceeds_own_limits", detail, pointer="/workspace_ids")])


def delete_key(tx: Tx, context: Context, key_id: str) -> None:
    """Revoke a key; it stops working with this commit. The calling key has to reach as far."""
    row, doc = edit.load(tx, context, API_KEY, key_id)
    _require_power_over_key(tx, context, doc)
    _require_reach(tx, context, doc)
    log.apply(tx, context.actor, [Change(API_KEY, "deleted", dict(doc), doc, row.n)])


def check_key(context: Context, values: dict[str, Any]) -> None:
    """Invalid when a key asks for unknown or more rights than its maker has, or expires at a wrong time."""
    issues: list[Issue] = []
    for index, scope in enumerate(values.get("scopes") or []):
        if scope not in SCOPES:
            detail = f'There is no scope "{scope}".{did_you_mean(scope, SCOPES)} Scopes: {", ".join(SCOPES)}.'
            issues.append(Issue("unknown_scope", detail, pointer=f"/scopes/{index}"))
        elif not context.principal.allows(scope):
            issues.append(
                Issue(
                    "exceeds_own_scopes",
                    f"Your own key lacks {scope}, so it cannot give it.",
                    pointer=f"/scopes/{index}",
                )
            )
    for index, name in enumerate(values.get("workspace_ids") or []):
        if context.principal.grant(name) is None:
            issues.append(
                Issue(
                    "unknown_reference",
                    f"There is no workspace {name} that you can see.",
                    pointer=f"/workspace_ids/{index}",
                )
            )
    for index, network in enumerate(values.get("allowed_ips") or []):
        try:
            ipaddress.ip_network(network, strict=False)
        except ValueError:
            issues.append(
                Issue("invalid_format", f"{network[:60]} is no IP address or network.", pointer=f"/allowed_ips/{index}")
            )
    if values.get("expires_at"):
        left = time.parse_ms(values["expires_at"]) - time.now_ms()
        if not 0 < left <= (MAX_KEY_DAYS + 1) * time.DAY_MS:
            issues.append(
                Issue(
                    "out_of_range",
                    f"expires_at must lie in the future, at most {MAX_KEY_DAYS} days ahead.",
                    pointer="/expires_at",
                )
            )
    edit.fail(issues)


def _check_limits(tx: Tx, context: Context, values: dict[str, Any]) -> None:
    """Invalid when a key would reach an unknown project, or further than the limits of the key that makes it."""
    issues = [
        Issue(
            "unknown_reference",
            query.absence(tx, context.principal, REGISTRY["project"], name),
            pointer=f"/project_ids/{index}",
        )
        for index, name in enumerate(values.get("project_ids") or [])
        if query.resolve(tx, context.principal, "project", name) is None
    ]
    own = own_key(tx, context)
    for name in _exceeded_limits(own, values):
        limit = ", ".join(own[name]) if isinstance(own[name], list) else own[name]
        issues.append(
            Issue("exceeds_own_limits", f"Your own key has the {name} {limit}; stay within.", pointer=f"/{name}")
        )
    edit.fail(issues)


def _exceeded_limits(own: dict[str, Any], values: dict[str, Any]) -> list[str]:
    """The limits of a key that some values for another key, as far as they are given, do not stay within."""
    return [
        name
        for name, within in _LIMITS.items()
        if own.get(name) and name in values and not (values[name] and within(values[name], own[name]))
    ]


def _require_reach(tx: Tx, context: Context, key: dict[str, Any]) -> None:
    """Forbidden if a key may do more than the key that calls.

    Together with the check of new values this keeps a key from giving more rights to anything, itself included.
    """
    further = [scope for scope in key["scopes"] if not context.principal.allows(scope)]
    further += _exceeded_limits(own_key(tx, context), key)
    if further:
        raise Forbidden(
            f"That key reaches further than yours ({', '.join(further)}), so yours can neither change nor revoke it."
            " Use a key that reaches as far."
        )


def _networks_within(inner: list[str], outer: list[str]) -> bool:
    allowed: list[Any] = [ipaddress.ip_network(name, strict=False) for name in outer]
    wanted: list[Any] = [ipaddress.ip_network(name, strict=False) for name in inner]
    return all(any(one.version == two.version and one.subnet_of(two) for two in allowed) for one in wanted)


_LIMITS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "workspace_ids": lambda inner, outer: set(inner) <= set(outer),
    "project_ids": lambda inner, outer: set(inner) <= set(outer),
    "allowed_ips": _networks_within,
    "rate_limit": lambda inner, outer: bool(inner <= outer),
    "expires_at": lambda inner, outer: bool(inner <= outer),
}
"""Whether a limit of a key lies within the same limit of another; no limit at all never does."""
