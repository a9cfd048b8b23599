"""Creating, changing and deleting secrets."""

from collections.abc import Mapping
from typing import Any, Final

from taskade_server.domain.secrets.resources import MAX_SECRETS, MAX_VALUE, SECRET
from taskade_server.engine import access, edit, log
from taskade_server.engine.edit import Context
from taskade_server.engine.log import Actor, Change
from taskade_server.engine.model import NOTHING, Checker
from taskade_server.kit import json, time, vault
from taskade_server.kit.destinations import Refused, plain_host
from taskade_server.kit.errors import Clash, Issue
from taskade_server.store.database import Tx

_LONG: Final = 8
"""How many characters a value has at least that is looked for in what everybody can read."""


def create(tx: Tx, context: Context, body: Any) -> str:
    """Create a secret; needs the role admin. Returns its document, which does not have the value."""
    own = context.principal.user_id
    values, value = _checked(body, None, edit.given(context, user_id=own))
    workspace_id = values["workspace_id"] or context.principal.default_workspace or ""
    access.require_workspace(context.principal, workspace_id, "admin", "create a secret")
    log.lock(tx, workspace_id)  # of two that count at once, both would be the last one
    _require_free(tx, workspace_id, values["name"])
    if len(tx.all("SELECT 1 FROM secrets WHERE workspace_id = ?", (workspace_id,))) >= MAX_SECRETS:
        edit.fail([Issue("too_many", f"A workspace may have {MAX_SECRETS} secrets; delete one first.", pointer="")])
    secret_id = edit.new_id(tx, SECRET, values.get("id"))
    doc = {**values, "id": secret_id, "workspace_id": workspace_id, "user_id": own, "value_set_at": _now()}
    return edit.create(tx, context, SECRET, doc, sealed=vault.close(context.secret, secret_id, str(value)))


def update(tx: Tx, context: Context, secret_id: str, body: Any) -> str:
    """Change a secret; needs the role admin.

    The value has to be in the body if the hosts change, or if somebody else gave it: who only may edit the secret must
    not lead the value elsewhere. A value counts as a change even if it is the same, so that nobody can try which it is.
    """
    row, before = edit.load(tx, context, SECRET, secret_id)
    access.require_workspace(context.principal, row.workspace_id, "admin", "change secrets")
    values, value = _checked(body, before, NOTHING)
    after = {**before, **values}
    if value is None:
        _require_harmless(context, before, after)
    if after["name"] != before["name"]:
        log.lock(tx, row.workspace_id)
        _require_free(tx, row.workspace_id, after["name"])
    if value is None:
        return edit.update(tx, context, SECRET, row, before, after)
    after |= {"user_id": context.principal.user_id, "value_set_at": _now()}
    private = {"sealed": vault.close(context.secret, secret_id, value)}
    return log.apply(tx, context.actor, [Change(SECRET, "updated", after, before, row.n, private=private)])[0]


def delete(tx: Tx, context: Context, secret_id: str) -> None:
    """Delete a secret for good; needs the role admin."""
    row, doc = edit.load(tx, context, SECRET, secret_id)
    access.require_workspace(context.principal, row.workspace_id, "admin", "delete secrets")
    log.apply(tx, context.actor, [Change(SECRET, "deleted", dict(doc), doc, row.n)])


def delete_abandoned(tx: Tx, before_ms: int, limit: int) -> int:
    """Delete up to `limit` secrets of workspaces that went to the trash before a time; returns how many."""
    found = tx.all(
        "SELECT s.n, s.doc FROM secrets s JOIN workspaces w ON w.id = s.workspace_id"
        f" WHERE w.deleted_at IS NOT NULL AND w.deleted_at < ? ORDER BY s.n LIMIT {int(limit)}{tx.for_update}",
        (before_ms,),
    )
    docs = [(n, json.decode(text)) for n, text in found]
    log.apply(tx, Actor(None), [Change(SECRET, "deleted", dict(doc), doc, n) for n, doc in docs])
    return len(found)


def _now() -> str:
    return time.format_ms(time.now_ms())


def _require_free(tx: Tx, workspace_id: str, name: str) -> None:
    found = tx.one("SELECT id FROM secrets WHERE workspace_id = ? AND name = ?", (workspace_id, name))
    if found is not None:
        detail = f"The workspace has a secret {name} already ({found[0]}); choose another name, or change that one."
        raise Clash(detail, errors=[Issue("name_in_use", detail, pointer="/name")])


def _require_harmless(context: Context, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Invalid for a change that would let somebody use a value which they perhaps do not know."""
    if json.same(before, after):
        return
    detail = ""
    if set(before["hosts"]) != set(after["hosts"]):
        detail = "To change the hosts, send the value again in the same request."
    elif before["user_id"] != context.principal.user_id:
        detail = "Somebody else gave the value of this secret: to change the secret, send a value in the same request."
    if detail:
        edit.fail([Issue("required", detail, pointer="/value")])


# ---- the body --------------------------------------------------------------------------------------------------------


def _checked(
    body: Any, current: Mapping[str, Any] | None, given: Mapping[str, Any]
) -> tuple[dict[str, Any], str | None]:
    """The checked members of a body, and the value if it holds one; Invalid lists all faults, none of which quotes it.

    `current` is the document that the body changes, None for a new secret; `given` as in `edit.fields`.
    """
    checker = Checker()
    values = checker.body(SECRET, body, creating=current is None, extra=("value",), current=current, given=given)
    if isinstance(body, dict):
        if "hosts" in body and not any((issue.pointer or "").startswith("/hosts") for issue in checker.issues):
            values["hosts"] = _hosts(checker, values["hosts"])
        if "value" in body or current is None:
            _check_value(checker, body)
    edit.fail(checker.issues)
    return values, body.get("value")


def _hosts(checker: Checker, given: list[str]) -> list[str]:
    """The hosts as requests name them."""
    found: list[str] = []
    for index, text in enumerate(given):
        try:
            found.append(plain_host(text))
        except Refused as refused:
            checker.fault(f"/hosts/{index}", "invalid_format", str(refused))
    if not given:
        checker.fault("/hosts", "required", "hosts needs at least one host, such as api.example.com.")
    return list(dict.fromkeys(found))


def _check_value(checker: Checker, body: Mapping[str, Any]) -> None:
    value = body.get("value")
    if value is None:
        keep = "value is required: the text to be kept, such as a token. A change leaves it out to keep the old one."
        checker.fault("/value", "required", keep)
    elif not isinstance(value, str):
        checker.fault("/value", "wrong_type", "value must be a string.")
    elif not value:
        checker.fault("/value", "too_short", "value must not be empty.")
    elif len(value.encode()) > MAX_VALUE:
        detail = f"value has {len(value.encode()):,} bytes in UTF-8; {MAX_VALUE:,} are allowed."
        checker.fault("/value", "too_long", detail)
    elif len(value) >= _LONG:
        for name in ("name", "description"):
            if isinstance(body.get(name), str) and value in body[name]:
                detail = f"{name} has the value in it, where everybody in the workspace can read it: take it out."
                checker.fault(f"/{name}", "not_allowed", detail)
