"""What `taskade audit` does: show the log, take it away as a file, and look for what somebody changed in it.

Why verifying a file needs no server: an auditor shall not have to trust the machine that the log comes from.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

from taskade_server.config import ConfigError
from taskade_server.engine import audit, audit_check, log, proofs
from taskade_server.engine.audit import LOGS, AuditQuery, Position
from taskade_server.engine.audit_check import Report
from taskade_server.http.api import audit_proofs
from taskade_server.kit import json, time
from taskade_server.kit.notes import BadNote, Verifier
from taskade_server.store.database import Database, Tx
from taskade_server.store.tables import trees

_PAGE: Final = 500


def entries(tx: Tx, workspace_id: str, outcome: str | None, limit: int) -> list[dict[str, Any]]:
    """The newest entries of a workspace, or with '' of the installation, newest first."""
    values: dict[str, tuple[str | None, ...]] = {"outcome": (outcome,)} if outcome else {}
    wanted, position = AuditQuery(workspace_id, values=values), Position()
    found: list[dict[str, Any]] = []
    more = True
    while more and len(found) < limit:
        page = audit.find(tx, wanted, position, limit - len(found), newest_first=True)
        names = audit.Names(tx, page.entries)
        found += [audit.shown(entry, names) for entry in page.entries]
        position, more = page.position, page.more
    return found


def require_log(tx: Tx, workspace_id: str) -> None:
    """ConfigError if there is no log of a workspace; '' stands for that of the installation."""
    if workspace_id and not log.heads(tx, [workspace_id]):
        raise ConfigError(f"There is no workspace {workspace_id} in this installation: give the id of one (ws_...).")


def sentence(entry: dict[str, Any]) -> str:
    """An entry as one line for people."""
    actor, key = entry["actor"], entry["key"] or {}
    who = actor["email"] or actor["name"] or actor["id"] or actor["type"]
    through = f" key {key.get('name') or key['id']}" if key else ""
    about = entry["object_id"] or entry["operation"] or ""
    times = f" ({entry['times']} times)" if entry["times"] > 1 else ""
    reason = f"  {entry['reason']}" if entry["reason"] else ""
    address = entry["address"] or "-"
    return f"{entry['timestamp']}  {entry['action']:<20} {about:<32} {who}{through}  {address}{times}{reason}"


def export(
    db: Database, secret: bytes, workspace_id: str, form: str, since: str | None, until: str | None
) -> Iterator[str]:
    """The log as a file, piece by piece: what `GET /v1/audit/export` answers."""
    db.read_sync(partial(require_log, workspace_id=workspace_id))
    first, last = _moment("--from", since), _moment("--to", until)
    yield audit_proofs.csv_head() if form == "csv" else audit_proofs.header(secret, workspace_id)
    for name in LOGS:
        part = db.read_sync(
            partial(audit_proofs.share, secret=secret, workspace_id=workspace_id, log=name, since=first, until=last),
            snapshot=True,
        )
        if form != "csv":
            yield json.encode(part.proof) + "\n"
        after = part.first - 1
        while after < part.last:
            page = db.read_sync(partial(_page, workspace_id=workspace_id, part=part, after=after, form=form))
            if not page[1]:
                break
            yield page[0]
            after = page[1]


def _page(tx: Tx, workspace_id: str, part: audit_proofs.Share, after: int, form: str) -> tuple[str, int]:
    found = proofs.read(tx, workspace_id, part.log, after, part.last, _PAGE)
    text = audit_proofs.as_rows(tx, found) if form == "csv" else audit_proofs.as_lines(tx, found)
    return text, found[-1].seq if found else 0


def _moment(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return time.moment_ms(text, time.now_ms())
    except ValueError as error:
        raise ConfigError(f"{option} {error}, or a relative value such as -7d.") from error


def checkpoints(tx: Tx, workspace_id: str, log: str) -> str:
    """The checkpoints that were signed of a log, oldest first, with empty lines between them."""
    return "\n\n".join(trees.checkpoints(tx, workspace_id, log))


# ---- verifying -------------------------------------------------------------------------------------------------------


def verify_file(path: Path, keys: list[str], notes: list[Path]) -> tuple[Report, str]:
    """What is wrong with an export, and in words whose key was believed."""
    verifiers = _verifiers(keys)
    try:
        with path.open("rb") as file:
            report = audit_check.of_export(file, verifiers, [_note(note) for note in notes])
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    if keys or not verifiers:
        return report, ""
    return report, f"The key is the one in the file, {verifiers[0].text}: compare it with the one that you know."


def verify_database(db: Database, secret: bytes, keys: list[str], notes: list[Path], only: str | None) -> Report:
    """What is wrong with the logs in a database."""
    verifiers = [Verifier(proofs.signer(secret).verifier), *_verifiers(keys)]
    given = [_note(note) for note in notes]
    return db.read_sync(partial(audit_check.of_database, verifiers=verifiers, given=given, only=only), snapshot=True)


def _verifiers(keys: list[str]) -> list[Verifier]:
    try:
        return [Verifier(key) for key in keys]
    except BadNote as error:
        raise ConfigError(f"--key: {error}") from error


def _note(path: Path) -> str:
    """A checkpoint from a file: the note itself, or the answer of `GET /v1/audit/checkpoint`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.") from error
    if text.lstrip().startswith("{"):
        try:
            return str(json.decode(text)["note"])
        except (ValueError, KeyError) as error:
            raise ConfigError(f"{path} holds no checkpoint.") from error
    return text


def lines_of(report: Report) -> list[str]:
    """The result in lines, the faults first."""
    looked = f"{report.entries:,} entries in {report.logs:,} logs, {report.checkpoints:,} checkpoints compared"
    if report.faults:
        return [*report.faults, f"{looked}: {len(report.faults):,} faults."]
    return [f"{looked}: nothing was changed, removed, put in or moved."]
