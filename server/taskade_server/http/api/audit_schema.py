"""What the operations of the audit log say about themselves in the OpenAPI document."""

from collections.abc import Mapping
from typing import Any, Final

from taskade_server.consumers import access_log as refusals
from taskade_server.engine import audit, schema
from taskade_server.engine.schema import Schema, id_schema, or_null, ref, sample_id
from taskade_server.http.api.document import Answer, Document
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
    "id": (_ENTRY_ID, "The id: `evt_...` for a change, which is also the id of its event; otherwise `acc_...`."),
    "log": (ref("AuditLogName"), "Which of the two logs has it."),
    "seq": ({"type": "integer", "minimum": 1}, "Its number in that log of the workspace. No number is missing."),
    "timestamp": (_TIME, "When it happened."),
    "workspace_id": (or_null(id_schema("workspace")), "The workspace."),
    "action": (_TEXT, f"The type of the event, or one of {', '.join(refusals.ACTIONS)}."),
    "outcome": (ref("AuditOutcome"),
                "`denied` if a known caller lacked the right, `failed` if the credential was not valid."),
    "reason": (_MAYBE, "Why it was refused."),
    "actor": (ref("AuditActor"), "Who did it."),
    "key": (or_null(ref("AuditKeyUsed")), "The API key that was used; null if there was none."),
    "resource": (_MAYBE, "The kind of object that it is about."),
    "object_id": (_MAYBE, "The object that it is about."),
    "project_id": (or_null(id_schema("project")), "The project of that object."),
    "operation": (_MAYBE, "The operation that was refused, such as `tasks.update`."),
    "request_id": (or_null(ref("RequestId")), "The request. For several, the first of them."),
    "address": (_MAYBE, "The address of the client, as far as the proxies in between are trusted."),
    "user_agent": (_MAYBE, "The `User-Agent` of the client."),
    "origin": (_ANYTHING, "What led to a change that nobody asked for directly; otherwise null."),
    "times": ({"type": "integer", "minimum": 1}, "How many times the same was refused until `last_at`."),
    "last_at": (_TIME, "When it happened last."),
    "changes": ({"type": "object", "additionalProperties": ref("AuditChange")},
                "What changed, by member. For a new object, its first values."),
}  # fmt: skip
_MORE: Final[dict[str, tuple[Schema, str]]] = {
    "data": (_ANYTHING, "With `include=data`: the whole object after the change."),
    "previous": (_ANYTHING, "With `include=data`: the old values of what changed."),
}
_ACTOR: Final[dict[str, tuple[Schema, str]]] = {
    "type": ({"type": "string", "enum": ["user", audit.SYSTEM, "unknown"]}, "What kind of actor it was."),
    "id": (or_null(id_schema("user")), "The id of the user."),
    "name": (_MAYBE, "The present name of the user."),
    "email": (_MAYBE, "The present e-mail address of the user."),
}
_USED: Final[dict[str, tuple[Schema, str]]] = {
    "id": (id_schema("api_key"), "The id of the key."),
    "name": (_MAYBE, "The name of the key, even if the key was revoked."),
    "prefix": (_MAYBE, "The beginning of its secret."),
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


_ROOT: Final = "XcnaeacGWamtVZy3Ad7ZoqudgjqtL0lgz+Nw7/RgQyg="
_KEY: Final = "taskade.audit+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
_SIGNED: Final[dict[str, tuple[Schema, str]]] = {
    "log": (_TEXT, "Which of the two logs this is about."),
    "origin": (_TEXT, "The name of the log in the note."),
    "size": ({"type": "integer", "minimum": 0}, "How many entries the checkpoint covers."),
    "root": (_TEXT, "The root of the Merkle tree over these entries, in base64."),
    "timestamp": (_TIME, "When the checkpoint was made."),
    "key": (_TEXT, "The public key."),
    "note": (_TEXT, "The signed note, which holds all of this as text."),
}
_SIGNED_SAMPLE: Final = {
    "log": "changes", "origin": f"taskade.audit/{sample_id('ws')}/changes", "size": 8, "root": _ROOT,
    "timestamp": "2024-01-15T10:30:00.000Z", "key": _KEY,
    "note": f"taskade.audit/{sample_id('ws')}/changes\n8\n{_ROOT}\ntime 2024-01-15T10:30:00.000Z\n\n\u2014 ...\n",
}  # fmt: skip
_HASHES: Final[Schema] = {"type": "array", "items": _TEXT}
_INCLUSION: Final[dict[str, tuple[Schema, str]]] = {
    "log": (_TEXT, "Which of the two logs this is about."),
    "index": ({"type": "integer", "minimum": 0}, "The place of the entry in the tree: its `seq` minus one."),
    "size": ({"type": "integer", "minimum": 1}, "The size of the tree."),
    "columns": (
        {"type": "object", "additionalProperties": True},
        "The entry as it is stored, which is what the hash is over.",
    ),
    "leaf_hash": (_TEXT, "The hash of the entry, in base64."),
    "root": (_TEXT, "The root, in base64."),
    "first": ({"type": "integer", "minimum": 1}, "The smaller size."),
    "second": ({"type": "integer", "minimum": 1}, "The larger size."),
    "first_root": (_TEXT, "The root at the smaller size."),
    "second_root": (_TEXT, "The root at the larger size."),
    "hashes": (_HASHES, "The proof: hashes in base64, from the leaf up."),
    "checkpoint": (ref("AuditCheckpoint"), "The checkpoint that the proof leads to."),
}
_CONSISTENCY_SAMPLE: Final = {
    "log": "changes", "first": 4, "second": 8, "first_root": _ROOT, "second_root": _ROOT, "hashes": [_ROOT],
}  # fmt: skip
_KEY_ROWS: Final[dict[str, tuple[Schema, str]]] = {
    "name": (_TEXT, "The name of the key."),
    "algorithm": (_TEXT, "Always `ed25519`."),
    "public_key": (_TEXT, "The 32 bytes of the key, in base64."),
    "key": (_TEXT, "The name, the hash and the key as text, for tools that read signed notes."),
}
_KEY_SAMPLE: Final = {
    "name": "taskade.audit", "algorithm": "ed25519", "key": _KEY,
    "public_key": "GlzZBxQ8OExB6DDFvOEqqIF+xWSaqr8sMTiLNbLXRNY=",
}  # fmt: skip
_EXPORTED: Final = (
    f'{{"audit_export":{{"version":1,"workspace_id":"{sample_id("ws")}","exported_at":"2024-01-15T10:30:00.000Z",'
    f'"key":"{_KEY}"}}}}\n'
)
_NAMED: Final[Mapping[str, Schema]] = {
    "AuditLogName": {
        "type": "string",
        "enum": list(audit.LOGS),
        "description": "One of the two logs: of changes, and of accesses.",
    },
    "AuditOutcome": {"type": "string", "enum": list(audit.OUTCOMES), "description": "How it ended."},
}


def _entry() -> Mapping[str, Schema]:
    entry = _object(_ENTRY, "One thing that was done or refused.", _SAMPLE)
    entry["properties"] |= {name: {**part, "description": text} for name, (part, text) in _MORE.items()}
    change = {"from": (_ANYTHING, "The value before."), "to": (_ANYTHING, "The value after.")}
    return {
        **_NAMED,
        "AuditEntry": entry,
        "AuditActor": _object(_ACTOR, "Who did something."),
        "AuditKeyUsed": _object(_USED, "The API key of a request."),
        "AuditChange": _object(change, "The change of one member."),
    }


def _checkpoint() -> Mapping[str, Schema]:
    return {"AuditCheckpoint": _object(_SIGNED, "The present size and content of a log, signed.", _SIGNED_SAMPLE)}


def _proof() -> Mapping[str, Schema]:
    text = "A proof that an entry is in the log (inclusion), or that the log only grew (consistency)."
    return {"AuditProof": _object(_INCLUSION, text, _CONSISTENCY_SAMPLE, some=True)}


def _key() -> Mapping[str, Schema]:
    return {"AuditKey": _object(_KEY_ROWS, "The public key of the audit log.", _KEY_SAMPLE)}


# ---- parameters ------------------------------------------------------------------------------------------------------


def _parameter(name: str, form: Schema, text: str, example: Any = None) -> Schema:
    found: Schema = {"name": name, "in": "query", "schema": form, "description": text}
    if form.get("type") == "array":
        found |= {"style": "form", "explode": False}
    return found if example is None else {**found, "example": example}


def _several(items: Schema) -> Schema:
    return {"type": "array", "items": items}


_SIZE: Final[Schema] = {"type": "integer", "minimum": 1}
_LOG: Final[Schema] = {**ref("AuditLogName"), "default": "changes"}
_WORKSPACE: Final[dict[str, Schema]] = {
    "AuditWorkspace": _parameter(
        "workspace_id", id_schema("workspace"), "The workspace. Default: the default workspace of the caller."
    ),
}
_SPAN: Final[dict[str, Schema]] = {
    "AuditFrom": _parameter("from", _TEXT, "From when on: a time, a date, or a moment such as `-7d`.", "-7d"),
    "AuditTo": _parameter("to", _TEXT, "Before when.", "2024-02-01"),
    "AuditZone": _parameter("timezone", dict(schema.ZONE), "The IANA time zone of dates. Default: that of the caller.",
                            "Europe/Berlin"),
}  # fmt: skip
_FILTERS: Final[dict[str, Schema]] = {
    "AuditBy": _parameter("actor", _several(_TEXT), "Who did it: ids, handles or e-mail addresses of users, `me`, or"
                          " `system` for what nobody asked for.", ["ana"]),
    "AuditUsing": _parameter("key", _several({"type": "string", "pattern": "^(key|tsk)_"}),
                             "The API keys: ids (`key_...`) or prefixes (`tsk_...`), even of revoked ones.",
                             [sample_id("key")]),
    "AuditAction": _parameter("action", _several(_TEXT), "Actions, or patterns such as `task.*`.", ["task.*"]),
    "AuditResource": _parameter("resource", _several(ref("ResourceName")), "Kinds of objects.", ["task"]),
    "AuditObject": _parameter("object_id", _several(_TEXT), "Ids of objects.", [sample_id("task")]),
    "AuditProject": _parameter("project_id", _several(id_schema("project")), "Only changes in these projects.",
                               [sample_id("proj")]),
    "AuditAddress": _parameter("address", _several(_TEXT), "Addresses that requests came from.", ["192.0.2.7"]),
    "AuditWithOutcome": _parameter("outcome", _several(ref("AuditOutcome")), "How it ended.", ["denied"]),
    "AuditRequest": _parameter("request_id", _several(ref("RequestId")), "Requests by their `X-Request-Id`.",
                               [sample_id("req")]),
}  # fmt: skip
_PAGING: Final[dict[str, Schema]] = {
    "AuditOrder": _parameter("order", {"type": "string", "enum": ["desc", "asc"], "default": "desc"},
                             "`desc` for the newest first.", "desc"),
    "AuditLimit": _parameter("limit", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100},
                             "How many to return at most.", 50),
    "AuditWait": _parameter("wait", {"type": "integer", "minimum": 0, "maximum": 60, "default": 0},
                            "With `order=asc`, if there is nothing yet: wait this many seconds for something. The"
                            " response then always has a `Link`.", 0),
    "AuditInclude": _parameter("include", {"type": "string", "enum": ["data"]},
                               "`data` adds the whole objects before and after.", "data"),
    "AuditCursor": _parameter("cursor", {"type": "string", "minLength": 1}, "Where the last page ended. `Link` has the"
                              " whole address of the next page."),
}  # fmt: skip
_PROVING: Final[dict[str, Schema]] = {
    "AuditEvent": _parameter("event", _ENTRY_ID, "Prove that this entry is in the log."),
    "AuditFirst": _parameter("first", _SIZE, "Prove that the log of this size is the beginning of the other."),
    "AuditSecond": _parameter("second", _SIZE, "The other size. Default: the present size."),
    "AuditSize": _parameter("size", _SIZE, "With `event`: the size of the tree. Default: the present size."),
}
_WHICH: Final[dict[str, Schema]] = {"AuditLog": _parameter("log", _LOG, "Which of the two logs.", "changes")}
_FORMAT: Final[dict[str, Schema]] = {
    "AuditFormat": _parameter(
        "format",
        {"type": "string", "enum": ["jsonl", "csv"], "default": "jsonl"},
        "`jsonl` for JSON Lines with a proof, `csv` for people and spreadsheets.",
        "jsonl",
    ),
}

# ---- the operations --------------------------------------------------------------------------------------------------

ENTRIES: Final = Document(
    notes="For admins and owners of the workspace. It has all changes, those in private projects as well, everything"
    " that was refused, and every secret that was read. A page looks at 20,000 entries at most, so it may have fewer"
    " than `limit` although there are more; `Link` says so. To follow the log, begin with"
    " `order=asc&cursor=latest&wait=30` and continue with each `Link`.",
    parameters={**_WORKSPACE, **_FILTERS, **_SPAN, **_PAGING},
    answer=Answer("AuditEntry", "The entries, as an array.", many=True, headers=("Link",)),
    problems=(404,),
    cached=False,
    schemas=_entry,
)
CHECKPOINT: Final = Document(
    notes="A signed note (C2SP) with the size of the log and the root of the Merkle tree over it. Keep it: later, it"
    " proves that nothing before it was changed.",
    parameters={**_WORKSPACE, **_WHICH},
    answer=Answer("AuditCheckpoint", "The checkpoint of this moment."),
    problems=(404,),
    cached=False,
    schemas=_checkpoint,
)
PROOF: Final = Document(
    notes="With `event`: the path from the entry to the root (RFC 9162). With `first` and `second`: that the log only"
    " grew between these two sizes.",
    parameters={**_WORKSPACE, **_WHICH, **_PROVING},
    answer=Answer("AuditProof", "The proof."),
    problems=(404,),
    cached=False,
    schemas=_proof,
)
KEY: Final = Document(
    notes="An Ed25519 key, as text (a vkey of C2SP) and in base64.",
    parameters=_WORKSPACE,
    answer=Answer("AuditKey", "The public key."),
    problems=(404,),
    cached=False,
    schemas=_key,
)
EXPORT: Final = Document(
    notes="Oldest first, in one response of any length. JSON Lines begin with a line that says what this is. Then there"
    " is one line for each entry, with the columns that the hash is over, and one for each log with the proof. The"
    " export itself is on record.",
    parameters={**_WORKSPACE, **_FORMAT, **_SPAN},
    answer=Answer(
        "",
        "The audit log.",
        headers=("Cache-Control", "Content-Disposition"),
        media={
            "application/jsonl": {"schema": _TEXT, "example": _EXPORTED},
            "text/csv; charset=utf-8": {"schema": _TEXT, "example": '"timestamp","log","seq",...\r\n'},
        },
    ),
    problems=(404,),
    cached=False,
)
