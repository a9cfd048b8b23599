"""The OpenAPI document in forms that tests need and that the published one leaves to words."""

import copy
import re
from typing import Any

from taskade_server.http.api import json_patch

Schema = dict[str, Any]
MERGE_PATCH, JSON_PATCH = "application/merge-patch+json", "application/json-patch+json"
STEP = {
    "type": "object",
    "properties": {
        "op": {"type": "string", "enum": ["add", "remove", "replace", "move", "copy", "test"]},
        "path": {"type": "string"},
        "from": {"type": "string"},
        "value": {},
    },
    "required": ["op", "path"],
    "additionalProperties": False,
}
STEPS = {"type": "array", "items": STEP, "maxItems": json_patch.MAX_OPERATIONS}
REFERENCE = "#/components/schemas/"


def with_queries(document: Schema) -> Schema:
    """The document with the operations under `x-query` written out: but for the method, each is one of POST."""
    found = copy.deepcopy(document)
    for path, item in found["paths"].items():
        if "x-query" in item:
            post = copy.deepcopy(found["paths"][f"{path}/query"]["post"])
            item["x-query"] = {**post, **item["x-query"]}
    return found


def with_patches(document: Schema) -> Schema:
    """The document with every content type that PATCH takes. It is changed in place."""
    for item in document["paths"].values():
        body = item.get("patch", {}).get("requestBody", {"content": {}})["content"]
        for media in list(body.values()):
            if re.fullmatch(rf"{REFERENCE}(?!\w*(Bulk|Member))\w+Update", media["schema"]["$ref"]):
                body[MERGE_PATCH] = media
                body[JSON_PATCH] = {"schema": STEPS}
    return document


def without_read_only(document: Schema) -> Schema:
    """The document without members that may only be sent back as they were read. It is changed in place."""
    for schema in document["components"]["schemas"].values():
        if "properties" in schema:
            kept = {
                name: one for name, one in schema["properties"].items() if one.get("$ref") != f"{REFERENCE}ReadOnly"
            }
            schema["properties"] = kept
    return document


def with_cut_answers(document: Schema) -> Schema:
    """The document with successful answers that may be what `fields` leaves of an object. It is changed in place."""
    schemas = document["components"]["schemas"]
    for item in document["paths"].values():
        for operation in item.values():
            if _takes_fields(document, operation):
                for status, response in operation["responses"].items():
                    if status < "3":
                        operation["responses"][status] = _cut_response(document, response)
    for name in [name for name in schemas if f"{name}FieldName" in schemas]:
        schemas[f"{name}Cut"] = cut(schemas[name])
    return document


def cut(schema: Schema) -> Schema:
    """What `fields` leaves of an object: at least one member, each as in the whole."""
    return {**{name: value for name, value in schema.items() if name != "required"}, "minProperties": 1}


def with_typed_text(document: Schema) -> Schema:
    """The document with parameters that hold JSON as text described by its schema. It is changed in place."""
    parameters = [
        entry for item in document["paths"].values() for operation in item.values() for entry in operation["parameters"]
    ]
    for parameter in [*parameters, *document["components"]["parameters"].values()]:
        inner = parameter.get("schema", {}).get("contentSchema")
        if inner is not None:
            del parameter["schema"]
            parameter["content"] = {"application/json": {"schema": inner}}
    return document


def merged(document: Schema, schema: Schema) -> Schema:
    """An object that is described by `allOf`, as one schema."""
    if "allOf" not in schema:
        return schema
    found: Schema = {name: value for name, value in schema.items() if name != "allOf"}
    found |= {"type": "object", "properties": {}, "required": []}
    for part in schema["allOf"]:
        whole = merged(document, document["components"]["schemas"].get(part.get("$ref", "")[len(REFERENCE) :], part))
        found["properties"] |= whole["properties"]
        found["required"] = [*found["required"], *whole.get("required", [])]
    return found


def _takes_fields(document: Schema, operation: Schema) -> bool:
    names = [_parameter(document, entry)["name"] for entry in operation["parameters"]]
    bodies = operation.get("requestBody", {"content": {}})["content"].values()
    return "fields" in names or any(body["schema"].get("$ref", "").endswith("Query") for body in bodies)


def _parameter(document: Schema, entry: Schema) -> Any:
    name = entry.get("$ref", "").rpartition("/")[2]
    return document["components"]["parameters"][name] if name else entry


def _cut_response(document: Schema, response: Schema) -> Schema:
    name = response.get("$ref", "").rpartition("/")[2]
    found: Schema = copy.deepcopy(document["components"]["responses"][name] if name else response)
    for media in found.get("content", {}).values():
        media["schema"] = _or_cut(media["schema"])
    return found


def _or_cut(schema: Schema) -> Schema:
    if schema.get("type") == "array":
        return {**schema, "items": _or_cut(schema["items"])}
    return {"anyOf": [schema, {"$ref": f"{schema['$ref']}Cut"}]}
