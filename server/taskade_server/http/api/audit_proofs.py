"""Proofs of the audit log over HTTP, and the log taken away whole: checkpoints, inclusion, consistency, exports.

Why an export carries a proof of its own: whoever keeps it shall be able to show years later, without this server, that
nothing in it was changed, left out or put in.
"""

import base64
import codecs
import csv
import io
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from taskade_server.consumers.access_log import EXPORTED
from taskade_server.engine import audit, proofs
from taskade_server.engine.audit import CHANGES, LOGS
from taskade_server.engine.log import Event
from taskade_server.http.api import audit_schema
from taskade_server.http.api.audit import SCOPE, AuditParameters, listing, workspace_of
from taskade_server.http.api.route import Route
from taskade_server.http.live.sessions import Session
from taskade_server.http.wire.call import Call
from taskade_server.http.wire.reply import Headers, Reply, Stream
from taskade_server.kit import json, merkle, time
from taskade_server.kit.errors import InvalidQuery, Issue, NotFound
from taskade_server.kit.merkle import Tiles
from taskade_server.store.database import Tx
from taskade_server.store.tables.access_log import Access

EXPORT_VERSION: Final = 1
CSV: Final = "text/csv; charset=utf-8"
_PAGE: Final = 500
_DANGEROUS: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
CSV_COLUMNS: Final = (
    "timestamp", "log", "seq", "id", "action", "outcome", "reason", "actor_id", "actor_name", "actor_email", "key_id",
    "key_name", "key_prefix", "resource", "object_id", "project_id", "operation", "request_id", "address", "user_agent",
    "origin", "times", "last_at", "changes",
)  # fmt: skip


def key(call: Call, tx: Tx) -> Reply:
    """GET /audit/key."""
    asked = AuditParameters(call, tx, ("workspace_id",))
    asked.fail()
    signer = proofs.signer(call.secret)
    shown = {"name": signer.name, "algorithm": "ed25519", "public_key": _base64(signer.public), "key": signer.verifier}
    return Reply(200, json.encode(shown))


def checkpoint(call: Call, tx: Tx) -> Reply:
    """GET /audit/checkpoint."""
    asked = AuditParameters(call, tx, ("log", "workspace_id"))
    log = asked.choice("log", LOGS) or CHANGES
    asked.fail()
    return Reply(200, json.encode(_signed(call, asked.workspace_id, log, proofs.tree(tx, asked.workspace_id, log))))


def proof(call: Call, tx: Tx) -> Reply:
    """GET /audit/proof: of one entry (`event`), or that one size is the beginning of another (`first`, `second`)."""
    asked = AuditParameters(call, tx, ("event", "first", "log", "second", "size", "workspace_id"))
    entry_id, log = asked.text("event"), asked.choice("log", LOGS)
    most = 2**53
    first, second = (asked.number(name, 0, most) for name in ("first", "second"))
    size = asked.number("size", 0, most)
    asked.fail()
    if (entry_id is None) == (not first):
        detail = "Give event, the id of an entry, or first and second, two sizes of the log."
        raise InvalidQuery(detail, errors=[Issue("required", detail, parameter="event")])
    if entry_id is not None:
        return Reply(200, json.encode(_inclusion(call, tx, asked.workspace_id, entry_id, size)))
    name = log or CHANGES
    tiles = proofs.tree(tx, asked.workspace_id, name)
    last = second or tiles.size
    if not first <= last <= tiles.size:
        detail = f"first is at most second, and second at most {tiles.size:,}, the size of the log."
        raise InvalidQuery(detail, errors=[Issue("out_of_range", detail, parameter="second")])
    shown = {
        "log": name,
        "first": first,
        "second": last,
        "first_root": _base64(merkle.root(tiles.node, first)),
        "second_root": _base64(merkle.root(tiles.node, last)),
        "hashes": [_base64(hashed) for hashed in merkle.consistency(tiles.node, first, last)],
    }
    return Reply(200, json.encode(shown))


def _inclusion(call: Call, tx: Tx, workspace_id: str, entry_id: str, size: int) -> dict[str, Any]:
    entry = proofs.find(tx, entry_id)
    if entry is None or entry.workspace_id != workspace_id:
        raise NotFound(f"The audit log of {workspace_id} has no entry {entry_id[:80]}.")
    log = CHANGES if isinstance(entry, Event) else audit.ACCESS
    tiles = proofs.tree(tx, workspace_id, log)
    last = size or tiles.size
    if not entry.seq <= last <= tiles.size:
        detail = (
            f"size is at least {entry.seq:,}, the entry's number, and at most {tiles.size:,}, that of the newest one."
        )
        raise InvalidQuery(detail, errors=[Issue("out_of_range", detail, parameter="size")])
    signed = {"checkpoint": _signed(call, workspace_id, log, tiles)} if last == tiles.size else {}
    return {
        "log": log,
        "index": entry.seq - 1,
        "size": last,
        "columns": proofs.columns_of(entry),
        "leaf_hash": _base64(proofs.hashed(entry)),
        "hashes": [_base64(hashed) for hashed in merkle.inclusion(tiles.node, entry.seq - 1, last)],
        "root": _base64(merkle.root(tiles.node, last)),
        **signed,
    }


def _signed(call: Call, workspace_id: str, log: str, tiles: Tiles) -> dict[str, Any]:
    """A checkpoint of this moment."""
    signer = proofs.signer(call.secret)
    found = proofs.checkpoint(workspace_id, log, tiles, time.now_ms())
    return {
        "log": log,
        "origin": found.origin,
        "size": found.size,
        "root": _base64(found.root),
        "timestamp": found.time,
        "key": signer.verifier,
        "note": signer.sign(found.text()),
    }


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


# ---- exports ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Share:
    """What is taken of one log: from a number to another, and the line in front of it that proves it."""

    log: str
    first: int
    last: int
    proof: dict[str, Any]


async def exporting(session: Session) -> Stream:
    """GET /audit/export: rows of CSV, or JSON Lines with a proof."""

    def first(call: Call, tx: Tx) -> tuple[str, str, str, list[Share]]:
        asked = AuditParameters(call, tx, ("format", "from", "timezone", "to", "workspace_id"))
        form = asked.choice("format", ("jsonl", "csv")) or "jsonl"
        since, until = asked.moment("from"), asked.moment("to")
        asked.fail()
        found = [share(tx, call.secret, asked.workspace_id, log, since, until) for log in LOGS]
        return asked.workspace_id, form, header(call.secret, asked.workspace_id), found

    workspace_id, form, head, shares = await session.read(first, snapshot=True, heavy=True)
    name = f"audit-{workspace_id}-{time.format_ms(time.now_ms())[:10]}.{form}"
    headers: Headers = [
        (b"content-disposition", f'attachment; filename="{name}"'.encode()),
        (b"cache-control", b"no-store"),
    ]
    leave = session.enter()
    if form == "csv":
        written, media = _csv(session, workspace_id, shares), CSV.encode()
    else:
        written, media = _lines(session, workspace_id, head, shares), b"application/jsonl"
    return Stream(written, media, headers, close=leave, workspace_id=workspace_id)


def share(tx: Tx, secret: bytes, workspace_id: str, log: str, since: int | None, until: int | None) -> Share:
    """What an export has of a log, and the line that proves it."""
    tiles = proofs.tree(tx, workspace_id, log)
    first, last = audit.numbers(tx, log, workspace_id, tiles.size, since, until)
    signer = proofs.signer(secret)
    note = signer.sign(proofs.checkpoint(workspace_id, log, tiles, time.now_ms()).text())

    def hashes(start: int, end: int) -> list[str]:
        return [_base64(tiles.node(level, index)) for level, index in merkle.subtrees(start, end)]

    proof = {
        "log": log, "first": first, "last": last, "size": tiles.size, "left": hashes(0, first - 1),
        "right": hashes(last, tiles.size), "checkpoint": note,
    }  # fmt: skip
    return Share(log, first, last, {"proof": proof})


def header(secret: bytes, workspace_id: str) -> str:
    """The first line of an export."""
    shown = {
        "version": EXPORT_VERSION,
        "workspace_id": workspace_id or None,
        "exported_at": time.format_ms(time.now_ms()),
        "key": proofs.signer(secret).verifier,
    }
    return json.encode({"audit_export": shown}) + "\n"


def line(entry: Event | Access) -> str:
    """An entry in an export: its columns as they are stored, and its hash in the tree."""
    log = CHANGES if isinstance(entry, Event) else audit.ACCESS
    shown = {"log": log, "leaf": _base64(proofs.hashed(entry)), "entry": proofs.columns_of(entry)}
    return json.encode(shown) + "\n"


async def _lines(session: Session, workspace_id: str, head: str, shares: list[Share]) -> AsyncGenerator[bytes, None]:
    yield head.encode()
    for part in shares:
        yield (json.encode(part.proof) + "\n").encode()
        after = part.first - 1
        while after < part.last:
            text, after = await session.read(_page_reader(workspace_id, part, after, as_lines), heavy=True)
            yield text.encode()


async def _csv(session: Session, workspace_id: str, shares: list[Share]) -> AsyncGenerator[bytes, None]:
    # Spreadsheets take a file for one of their country's encoding unless it begins with a byte order mark.
    yield codecs.BOM_UTF8 + csv_head().encode()
    for part in shares:
        after = part.first - 1
        while after < part.last:
            text, after = await session.read(_page_reader(workspace_id, part, after, as_rows), heavy=True)
            yield text.encode()


def as_lines(tx: Tx, entries: list[Event | Access]) -> str:
    """Entries as JSON Lines."""
    return "".join(map(line, entries))


def as_rows(tx: Tx, entries: list[Event | Access]) -> str:
    """Entries as rows of CSV."""
    names = audit.Names(tx, entries)
    return csv_text([_row(audit.shown(entry, names)) for entry in entries])


def _page_reader(workspace_id: str, part: Share, after: int, form: Any) -> Any:
    def read(call: Call, tx: Tx) -> tuple[str, int]:
        workspace_of(call, workspace_id)
        entries = proofs.read(tx, workspace_id, part.log, after, part.last, _PAGE)
        return form(tx, entries), entries[-1].seq if entries else part.last

    return read


def _row(shown: dict[str, Any]) -> dict[str, Any]:
    actor, through = shown["actor"], shown["key"] or {}
    flat = {
        **shown,
        **{f"actor_{name}": actor[name] for name in ("id", "name", "email")},
        **{f"key_{name}": through.get(name) for name in ("id", "name", "prefix")},
    }
    return {name: flat[name] for name in CSV_COLUMNS}


def csv_head() -> str:
    """The names of the columns."""
    return csv_text([dict(zip(CSV_COLUMNS, CSV_COLUMNS, strict=True))])


def csv_text(rows: list[Mapping[str, Any]] | list[dict[str, Any]]) -> str:
    """Rows of CSV (RFC 4180) in which no cell is a formula, whatever somebody called a task."""
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    for row in rows:
        writer.writerow([_cell(row[name]) for name in CSV_COLUMNS])
    return out.getvalue()


def _cell(value: Any) -> str:
    if value is None or value == {}:
        return ""
    text = value if isinstance(value, str) else json.encode(value)
    # A spreadsheet takes what begins like this for a formula; an apostrophe makes it text.
    return f"'{text}" if text.startswith(_DANGEROUS) else text


def routes() -> Iterator[Route]:
    """The routes of proofs and of the export."""
    yield Route(
        "GET",
        "/audit/checkpoint",
        "audit.checkpoint",
        SCOPE,
        checkpoint,
        None,
        "Read how far the audit log is, signed",
        answer="document",
        consistent=True,
        document=audit_schema.CHECKPOINT,
    )
    yield Route(
        "GET",
        "/audit/proof",
        "audit.proof",
        SCOPE,
        proof,
        None,
        "Prove that an entry is in the audit log, or that the log only grew",
        answer="document",
        consistent=True,
        document=audit_schema.PROOF,
    )
    yield Route(
        "GET",
        "/audit/key",
        "audit.key",
        SCOPE,
        key,
        None,
        "Read the public key that checkpoints are signed with",
        answer="document",
        document=audit_schema.KEY,
    )
    yield _export_route()


def _export_route() -> Route:
    return Route(
        "GET",
        "/audit/export",
        "audit.export",
        SCOPE,
        listing,
        None,
        "Export the audit log",
        answer="document",
        batchable=False,
        live=exporting,
        read_action=EXPORTED,
        media=("application/jsonl", "text/csv"),
        document=audit_schema.EXPORT,
    )
