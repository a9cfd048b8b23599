"""What the audit log answers and takes, as JSON Schema.

Why apart from the handlers: the OpenAPI document imports the routes, so the routes cannot import the document.
"""

from typing import Any, Final

from taskade_server.consumers import refusals
from taskade_server.engine import audit, schema
from taskade_server.engine.model import REGISTRY
from taskade_server.engine.schema import Schema, id_schema, or_null, sample_id
from taskade_server.kit import ids

_TIME: Final[Schema] = dict(schema.TIME)
_TEXT: Final[Schema] = {"type": "string"}
_MAYBE: Final[Schema] = {"type": ["string", "null"]}
_ANYTHING: Final[Schema] = {}
_ENTRY_ID: Final[Schema] = {"type": "string", "pattern": f"{ids.pattern('evt')}|{ids.pattern('acc')}"}


def _object(properties: dict[str, tuple[Schema, str]], text: str, example: Any = None, *, some: bool = False) -> Schema:
    described = {name: {**part, "description": words} for name, (part, words) in properties.items()}
    found: Schema = {"type": "object", "description": text, "properties": described}
    if not some:
        found["required"] = list(described)
    return found if example is None else {**found, "examples": [example]}


_ENTRY: Final[dict[str, tuple[Schema, str]]] = {
    "id": (_ENTRY_ID, "Unique id: `evt_...` of a change, which is also the id of the event; `acc_...` otherwise."),
    "log": ({"type": "string", "enum": list(audit.LOGS)}, "The log that it is in."),
    "seq": ({"type": "integer", "minimum": 1}, "Its number in that log of the workspace; none is missing."),
    "timestamp": (_TIME, "When it happened."),
    "workspace_id": (or_null(id_schema("workspace")), "The workspace."),
    "action": (_TEXT, f"The type of the event, or one of {', '.join(refusals.ACTIONS)}."),
    "outcome": ({"type": "string", "enum": list(audit.OUTCOMES)},
                "`denied`: somebody known lacked the right. `failed`: the credential was not valid."),
    "reason": (_MAYBE, "Why it was refused."),
    "actor": (_object({
        "type": ({"type": "string", "enum": ["user", audit.SYSTEM, "unknown"]}, "What acted."),
        "id": (or_null(id_schema("user")), "The user's id."),
        "name": (_MAYBE, "The user's name of today."),
        "email": (_MAYBE, "The user's e-mail of today."),
    }, "Who."), "Who."),
    "key": (or_null(_object({
        "id": (id_schema("api_key"), "The key's id."),
        "name": (_MAYBE, "The key's name, also of one that was revoked."),
        "prefix": (_MAYBE, "The beginning of its secret."),
    }, "The API key.")), "Through which API key; null: through none."),
    "resource": (_MAYBE, "The resource that it is about."),
    "object_id": (_MAYBE, "The object that it is about."),
    "project_id": (or_null(id_schema("project")), "The project that this lies in."),
    "operation": (_MAYBE, "The operation that was refused, such as `tasks.update`."),
    "request_id": ({"type": ["string", "null"], "pattern": ids.pattern("req")}, "The request; of several the first."),
    "address": (_MAYBE, "The client's address, as far as the proxies in between are trusted."),
    "user_agent": (_MAYBE, "What the client said it was."),
    "origin": (_ANYTHING, "What led to a change that nobody asked for directly; null otherwise."),
    "times": ({"type": "integer", "minimum": 1}, "How often the same was refused until `last_at`."),
    "last_at": (_TIME, "When it happened last."),
    "changes": ({
        "type": "object",
        "additionalProperties": _object(
            {"from": (_ANYTHING, "The value before."), "to": (_ANYTHING, "The value after.")}, "One member."
        ),
    }, "What changed, by member; of something new what it began with."),
}  # fmt: skip
_MORE: Final[dict[str, tuple[Schema, str]]] = {
    "data": (_ANYTHING, "With `include=data`: the whole resource after the change."),
    "previous": (_ANYTHING, "With `include=data`: the old values of what changed."),
}
_SAMPLE: Final = {
    "id": sample_id("evt"), "log": "changes", "seq": 123, "timestamp": "2024-01-15T10:30:00.000Z",
    "workspace_id": sample_id("ws"), "action": "task.updated", "outcome": "success", "reason": None,
    "actor": {"type": "user", "id": sample_id("user"), "name": "Ana Lima", "email": "ana@example.com"},
    "key": {"id": sample_id("key"), "name": "CI on the build server", "prefix": "tsk_01j9zq3v5kfg8wt2m4n6p8r0s2"},
    "resource": "task", "object_id": sample_id("task"), "project_id": sample_id("proj"), "operation": None,
    "request_id": sample_id("req"), "address": "192.0.2.7", "user_agent": "axios/1.7.2", "origin": None, "times": 1,
    "last_at": "2024-01-15T10:30:00.000Z", "changes": {"due_date": {"from": "2024-01-31", "to": "2024-02-15"}},
}  # fmt: skip


def schemas() -> dict[str, Schema]:
    """The components."""
    entry = _object(_ENTRY, "One thing that was done, or refused.", _SAMPLE)
    entry["properties"] |= {name: {**part, "description": text} for name, (part, text) in _MORE.items()}
    return {"AuditEntry": entry} | {
        name: _object(rows, text, example, some=some) for name, (rows, text, example, some) in _PROOFS.items()
    }


_ROOT: Final = "XcnaeacGWamtVZy3Ad7ZoqudgjqtL0lgz+Nw7/RgQyg="
_KEY: Final = "taskade.audit+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
_SIGNED: Final[dict[str, tuple[Schema, str]]] = {
    "log": (_TEXT, "The log."),
    "origin": (_TEXT, "The log's name in the note."),
    "size": ({"type": "integer", "minimum": 0}, "How many entries are covered."),
    "root": (_TEXT, "The root of the Merkle tree over them, in base64."),
    "timestamp": (_TIME, "When that was so."),
    "key": (_TEXT, "The public key."),
    "note": (_TEXT, "The signed note: all of this as text."),
}
_SIGNED_SAMPLE: Final = {
    "log": "changes", "origin": f"taskade.audit/{sample_id('ws')}/changes", "size": 8, "root": _ROOT,
    "timestamp": "2024-01-15T10:30:00.000Z", "key": _KEY,
    "note": f"taskade.audit/{sample_id('ws')}/changes\n8\n{_ROOT}\ntime 2024-01-15T10:30:00.000Z\n\n\u2014 ...\n",
}  # fmt: skip
_HASHES: Final[Schema] = {"type": "array", "items": _TEXT}
_INCLUSION: Final[dict[str, tuple[Schema, str]]] = {
    "log": (_TEXT, "The log."),
    "index": ({"type": "integer", "minimum": 0}, "The entry's place in the tree, from 0: its `seq` less one."),
    "size": ({"type": "integer", "minimum": 1}, "The size of the tree."),
    "columns": ({"type": "object"}, "The entry as it is stored: what is hashed."),
    "leaf_hash": (_TEXT, "The entry's hash, in base64."),
    "root": (_TEXT, "The root, in base64."),
    "first": ({"type": "integer", "minimum": 1}, "The smaller size."),
    "second": ({"type": "integer", "minimum": 1}, "The larger size."),
    "first_root": (_TEXT, "The root at the smaller size."),
    "second_root": (_TEXT, "The root at the larger size."),
    "hashes": (_HASHES, "The proof: hashes in base64, from the leaf up."),
    "checkpoint": ({"$ref": "#/components/schemas/AuditCheckpoint"}, "The checkpoint that the path leads to."),
}
_CONSISTENCY_SAMPLE: Final = {
    "log": "changes", "first": 4, "second": 8, "first_root": _ROOT, "second_root": _ROOT, "hashes": [_ROOT],
}  # fmt: skip
_KEY_ROWS: Final[dict[str, tuple[Schema, str]]] = {
    "name": (_TEXT, "The key's name."),
    "algorithm": (_TEXT, "ed25519."),
    "public_key": (_TEXT, "The 32 bytes in base64."),
    "key": (_TEXT, "Name, hash and key as text, for tools that read signed notes."),
}
_KEY_SAMPLE: Final = {
    "name": "taskade.audit", "algorithm": "ed25519", "key": _KEY,
    "public_key": "GlzZBxQ8OExB6DDFvOEqqIF+xWSaqr8sMTiLNbLXRNY=",
}  # fmt: skip
_PROOFS: Final[dict[str, tuple[dict[str, tuple[Schema, str]], str, Any, bool]]] = {
    "AuditCheckpoint": (_SIGNED, "How far a log is, signed.", _SIGNED_SAMPLE, False),
    "AuditProof": (_INCLUSION, "A proof of inclusion or of consistency.", _CONSISTENCY_SAMPLE, True),
    "AuditKey": (_KEY_ROWS, "The public key.", _KEY_SAMPLE, False),
}
_EXPORTED: Final = (
    f'{{"audit_export":{{"version":1,"workspace_id":"{sample_id("ws")}","exported_at":"2024-01-15T10:30:00.000Z",'
    f'"key":"{_KEY}"}}}}\n'
)
ANSWERS: Final[dict[str, tuple[str, str, Any]]] = {
    "audit.entries": ("[AuditEntry]", "Entries in a bare array.", [_SAMPLE]),
    "audit.checkpoint": ("AuditCheckpoint", "The checkpoint of this moment.", _SIGNED_SAMPLE),
    "audit.proof": ("AuditProof", "The proof.", _CONSISTENCY_SAMPLE),
    "audit.key": ("AuditKey", "The public key.", _KEY_SAMPLE),
}
"""By operation: the schema (in brackets: a list of it), what it is, and an example."""


def _several(items: Schema) -> Schema:
    return {"type": "array", "items": items}


_ROWS: Final[list[tuple[str, str, Schema, str, Any]]] = [
    ("AuditWorkspace", "workspace_id", id_schema("workspace"),
     "The workspace; the caller's default workspace unless given.", None),
    ("AuditActor", "actor", _several(_TEXT),
     "By whom: ids, handles or e-mails of users, `me`, or `system` for what nobody asked for.", ["ana"]),
    ("AuditKey", "key", _several({"type": "string", "pattern": "^(key|tsk)_"}),
     "Through which API key: ids (`key_...`) or prefixes (`tsk_...`), also of revoked ones.", [sample_id("key")]),
    ("AuditAction", "action", _several(_TEXT), "Actions, also by pattern: `task.*`, `access.denied`.", ["task.*"]),
    ("AuditResource", "resource", _several(_TEXT), "Kinds of objects.", ["task"]),
    ("AuditObject", "object_id", _several(_TEXT), "Objects by id.", [sample_id("task")]),
    ("AuditProject", "project_id", _several(id_schema("project")), "Only changes in these projects.",
     [sample_id("proj")]),
    ("AuditAddress", "address", _several(_TEXT), "Addresses that requests came from.", ["192.0.2.7"]),
    ("AuditOutcome", "outcome", _several({"type": "string", "enum": list(audit.OUTCOMES)}), "Outcomes.", ["denied"]),
    ("AuditRequest", "request_id", _several({"type": "string", "pattern": ids.pattern("req")}),
     "Requests by `X-Request-Id`.", [sample_id("req")]),
    ("AuditFrom", "from", _TEXT, "From this time on: a time, a date or a relative value such as `-7d`.", "-7d"),
    ("AuditTo", "to", _TEXT, "Before this time.", "2024-02-01"),
    ("AuditOrder", "order", {"type": "string", "enum": ["desc", "asc"], "default": "desc"},
     "`desc`: the newest first.", "desc"),
    ("AuditLimit", "limit", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100},
     "How many to return at most.", 50),
    ("AuditWait", "wait", {"type": "integer", "minimum": 0, "maximum": 60, "default": 0},
     "With `order=asc`: wait for something to tell for so many seconds; the answer then always has a `Link`.", 0),
    ("AuditInclude", "include", {"type": "string", "enum": ["data"]},
     "`data`: add the whole documents before and after.", "data"),
]  # fmt: skip


def _parameter(name: str, form: Schema, text: str, example: Any) -> Schema:
    found: Schema = {"name": name, "in": "query", "schema": form, "description": text}
    if form.get("type") == "array":
        found |= {"style": "form", "explode": False}
    return found if example is None else {**found, "example": example}


def parameters() -> dict[str, Schema]:
    """The parameters by the name of their component; a function, as resources are declared only by and by."""
    found = {key: _parameter(name, form, text, example) for key, name, form, text, example in (*_ROWS, *_PROOF_ROWS)}
    found["AuditResource"]["schema"] = _several({"type": "string", "enum": sorted(REGISTRY)})
    return found


_LOG: Final[Schema] = {"type": "string", "enum": list(audit.LOGS), "default": "changes"}
_SIZE: Final[Schema] = {"type": "integer", "minimum": 1}
_PROOF_ROWS: Final[list[tuple[str, str, Schema, str, Any]]] = [
    ("AuditLog", "log", _LOG, "Which of the two logs.", "changes"),
    ("AuditEvent", "event", _ENTRY_ID, "Prove that this entry is in the log.", None),
    ("AuditFirst", "first", _SIZE, "Prove that the log of this size is the beginning of the other.", None),
    ("AuditSecond", "second", _SIZE, "The other size; that of now unless given.", None),
    ("AuditSize", "size", _SIZE, "With `event`: in the tree of this size; that of now unless given.", None),
    ("AuditFormat", "format", {"type": "string", "enum": ["jsonl", "csv"], "default": "jsonl"},
     "`jsonl`: JSON Lines with a proof; `csv`: for people and spreadsheets.", "jsonl"),
]  # fmt: skip
OF: Final[dict[str, tuple[str, ...]]] = {
    "audit.entries": (*(row[0] for row in _ROWS), "Cursor"),
    "audit.checkpoint": ("AuditWorkspace", "AuditLog"),
    "audit.proof": ("AuditWorkspace", "AuditLog", "AuditEvent", "AuditFirst", "AuditSecond", "AuditSize"),
    "audit.key": ("AuditWorkspace",),
    "audit.export": ("AuditWorkspace", "AuditFormat", "AuditFrom", "AuditTo"),
}
"""By operation: its parameters."""
EXPORT: Final[Schema] = {
    "application/jsonl": {"schema": _TEXT, "example": _EXPORTED},
    "text/csv; charset=utf-8": {"schema": _TEXT, "example": '"timestamp","log","seq",...\r\n'},
}
"""What an export answers with, by its type."""
NOTES: Final[dict[str, str]] = {
    "audit.entries": "For admins and owners of the workspace: all changes in it, private projects too, everything that"
    " was refused, and secrets that were read. A page looks at 20,000 entries at most, so it may hold fewer than"
    " `limit` although there are more: `Link` says so. To follow the log, begin with `order=asc&cursor=latest&wait=30`"
    " and go on with each `Link`.",
    "audit.checkpoint": "A signed note (C2SP) with the size and the root of the Merkle tree over the log. Keep it: it"
    " proves later that nothing before it was changed.",
    "audit.proof": "`event`: the path from the entry to the root (RFC 9162); `first` and `second`: that the log only"
    " grew between two sizes.",
    "audit.key": "Ed25519, as text (a vkey of C2SP) and as base64.",
    "audit.export": "Oldest first, in one answer of any length. JSON Lines: a line that says what it is, one for each"
    " entry with the columns that are hashed, and for each log one with the proof. The export is on record itself.",
}
