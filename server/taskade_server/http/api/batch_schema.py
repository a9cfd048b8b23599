"""What a batch says about itself in the OpenAPI document."""

from collections.abc import Mapping
from typing import Any, Final

from taskade_server.domain import projects
from taskade_server.engine import schema
from taskade_server.engine.schema import Schema, closed, ref, sample_id
from taskade_server.http.api.document import Answer, Document
from taskade_server.http.api.weight import MAX_LISTED

_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "QUERY")
_PROJECT: Final = sample_id("proj")
_EXAMPLES: Final[dict[str, tuple[str, Any]]] = {
    "mixed": ("Change, create and delete", {"operations": [
        {"method": "PUT", "path": f"/tasks/{sample_id('task')}", "body": {"status": "completed"}},
        {"method": "POST", "path": "/tasks", "body": {"name": "Follow-up task", "project_id": _PROJECT}},
        {"method": "DELETE", "path": f"/tasks/{sample_id('task')}"},
    ]}),
    "references": ("A new project that is archived at once", {"operations": [
        {"id": "project", "method": "POST", "path": "/projects", "body": {"name": "Launch"}},
        {"method": "POST", "path": "/projects/{project.id}/archive"},
    ]}),
}  # fmt: skip


def _results() -> Schema:
    created = {"status": 201, "headers": {"ETag": '"1"', "Location": f"/v1/projects/{_PROJECT}"}}
    one = {"id": "project", **created, "body": schema.sample(projects.PROJECT)}
    return {"results": [one, {"status": 204, "headers": {}, "body": None}]}


def _schemas() -> Mapping[str, Schema]:
    operation = closed(
        {
            "id": {"type": ["string", "null"], "pattern": "^[A-Za-z_][A-Za-z0-9_-]{0,63}$", "examples": ["project"],
                   "description": "A name by which later operations refer to the result of this one."},
            "method": {"type": "string", "enum": list(_METHODS), "description": "The HTTP method."},
            "path": {"type": "string", "pattern": "^/", "examples": ["/tasks"],
                     "description": "The path with its parameters, with or without `/v1`."},
            "body": {"description": "The body, if the operation takes one."},
            "if_match": {"type": ["string", "integer", "null"], "examples": [3],
                         "description": "The version that the object must have, as in `If-Match`."},
        },
        required=["method", "path"], description="One operation of a batch.",
    )  # fmt: skip
    result: Schema = {
        "type": "object",
        "properties": {
            "id": {"type": "string", "description": "The id of the operation, if it has one."},
            "status": {"type": "integer", "description": "The HTTP status that it would have had alone."},
            "headers": {"type": "object", "additionalProperties": {"type": "string"},
                        "description": "`ETag`, `Location`, `Link` and `Total-Count`, if it has them."},
            "body": {"description": "The body that it would have had alone; null for none."},
        },
        "required": ["status", "headers", "body"],
        "description": "The result of one operation.",
    }  # fmt: skip
    operations = {"type": "array", "items": ref("BatchOperation"), "minItems": 1, "maxItems": MAX_LISTED,
                  "description": "What to do, in this order."}  # fmt: skip
    results = {"type": "array", "items": ref("BatchResult"), "description": "The results, in the same order."}
    return {
        "Batch": closed({"operations": operations}, required=["operations"],
                        description="Operations that take effect together or not at all."),
        "BatchOperation": operation,
        "BatchResults": {"type": "object", "required": ["results"], "properties": {"results": results},
                         "description": "One result for each operation.", "examples": [_results()]},
        "BatchResult": result,
    }  # fmt: skip


BATCH: Final = Document(
    notes="The operations run in their order. Every `x-batchable` operation is allowed. A later operation refers to the"
    " result of an earlier one by its id or index:"
    ' `{"$ref": "operation.field"}` in place of a value or within a text, `{operation.field}` within a path.'
    " Beside `$ref` there may be `default`, the value for when there is no such field (null stays null), and `format`:"
    " `date`, `number`, `json`, `upper`, `lower` or `truncate:N`. What is put in is never read again for references."
    " If one operation fails, nothing is written: the response has the status of that operation and the code"
    " `batch-failed`, and `pointer` names it. For the rate limit, a batch counts as one request per operation.",
    body="Batch",
    examples=_EXAMPLES,
    answer=Answer("BatchResults", "The results, in the order of the operations."),
    problems=(404, 412),
    schemas=_schemas,
)
