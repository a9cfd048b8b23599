"""Members whom another workspace invited, whose changes are in the log of that workspace."""

import hashlib
from typing import Final

from taskade_server.domain.sync.answer import SyncRun
from taskade_server.domain.visibility_history import SHARED
from taskade_server.store.database import Tx

_FOREIGN: Final = (
    'FROM members m JOIN users u ON u.id = m."user"'
    " WHERE m.workspace_id = ? AND m.project_id IS NULL AND u.workspace_id <> m.workspace_id"
)


def foreign_digest(tx: Tx, workspace_id: str) -> str:
    """A digest of the members whom another workspace invited, whose changes are in the log of that workspace."""
    rows = tx.all(f"SELECT u.id, u.version {_FOREIGN} ORDER BY u.id", (workspace_id,))
    return hashlib.blake2b(repr(rows).encode(), digest_size=8).hexdigest() if rows else ""


def tell_of_foreign_members(run: SyncRun) -> None:
    """Tell of those, all of them, if one has changed: they are few."""
    if "users" not in run.kinds or not run.history.sees_now("users", SHARED):
        return
    digest = foreign_digest(run.tx, run.workspace_id)
    if digest == run.token.foreign:
        return
    run.token.foreign = digest
    for text, object_id, deleted_at in run.tx.all(f"SELECT u.doc, u.id, u.deleted_at {_FOREIGN}", (run.workspace_id,)):
        if deleted_at is None:
            run.answer.put("users", object_id, text, new=False)
        else:
            run.answer.forget("users", object_id)
