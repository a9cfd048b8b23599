"""Schemas of the OpenAPI document that follow from the resources: the whole, what creates, changes and queries it.

A route that needs a schema of its own brings it along in its `Document`.
"""

from typing import Final

from taskade_server.domain import identity
from taskade_server.domain.resources import RESOURCES
from taskade_server.engine import event_schema, filter_schema, query, schema
from taskade_server.engine.model import CUSTOM_KEY, Resource
from taskade_server.engine.schema import Schema, closed, or_null, ref, sample_id, title
from taskade_server.http.api.route import Route
from taskade_server.kit import ids
from taskade_server.kit.errors import problem_classes


def shared_schemas(routes: list[Route]) -> Schema:
    """The components: what follows from the resources, what the routes bring along, events and errors."""
    found: Schema = schema.values() | _ids()
    everything = (*RESOURCES, identity.MEMBER)
    for resource in everything:
        name = title(resource)
        found[name] = schema.received(resource)
        found[f"{name}Filter"] = filter_schema.filter_document(resource)
        found |= _names(resource)
        if resource is not identity.MEMBER:
            found[f"{name}Create"] = schema.creation(resource)
            found[f"{name}Update"] = schema.update(resource)
            found[f"{name}Query"] = _query(resource)
    found |= filter_schema.conditions(everything) | event_schema.schemas() | _problems()
    for route in routes:
        found |= route.document.schemas()
    return dict(sorted(found.items()))


def _ids() -> Schema:
    """The ids of what is not a resource."""
    rows = {"Event": ("evt", "an event"), "Request": ("req", "a request, as in `X-Request-Id`")}
    any_id = {"type": "string", "pattern": ids.pattern("[a-z]+"), "description": "The id of an object."}
    return {"Id": any_id} | {
        f"{name}Id": {
            "type": "string",
            "pattern": ids.pattern(prefix),
            "examples": [sample_id(prefix)],
            "description": f"The id of {one}.",
        }
        for name, (prefix, one) in rows.items()
    }


def _names(resource: Resource) -> Schema:
    """What `sort`, `fields` and `include` take: one name, and several of them."""
    name, names = title(resource), schema.sort_names(resource)
    sort: Schema = {"type": "string", "enum": [*names, *(f"-{name}" for name in names)]}
    if "custom_fields" in resource.fields:
        # In a list of names, a comma of a key stands behind a backslash.
        first, others = CUSTOM_KEY.replace("[^", "[^,").removesuffix("{0,63}").split("][", 1)
        key = rf"({first}]|\\,)([{others}|\\,){{0,63}}"
        sort = {"type": "string", "pattern": rf"^-?({'|'.join(names)}|custom_fields\.{key})$"}
    rows: list[tuple[str, str, Schema, str, int | None]] = [
        ("SortKey", "SortKeys", sort, f"A member to sort {resource.nouns} by.", query.MAX_SORT_KEYS),
        ("FieldName", "FieldNames", _enum(schema.field_names(resource)), f"A member of {resource.one}.", None),
    ]
    if resource.relations:
        text = f"Something that `include` adds to {resource.one}."
        rows.append(("IncludeName", "IncludeNames", _enum(schema.include_names(resource)), text, query.MAX_INCLUDES))
    found: Schema = {}
    for one, several, form, text, most in rows:
        found[f"{name}{one}"] = {**form, "description": text}
        if resource is not identity.MEMBER:
            found[f"{name}{several}"] = _several(ref(f"{name}{one}"), most)
    return found


def _enum(names: list[str]) -> Schema:
    return {"type": "string", "enum": names}


def _several(one: Schema, most: int | None) -> Schema:
    listed: Schema = {"type": "array", "items": one}
    choices = [listed if most is None else {**listed, "maxItems": most}, {"type": "string"}]
    return {"anyOf": choices, "description": "A list of names, or one text with commas between the names."}


def _query(resource: Resource) -> Schema:
    """The body of a query: what the parameters of a list say, as one document."""
    name = title(resource)
    properties: Schema = {
        "filter": ref(f"{name}Filter", "Which ones to list."),
        "sort": ref(f"{name}SortKeys", "What to sort by, with `-` in front for descending."),
        "limit": {"type": "integer", "minimum": 1, "maximum": query.MAX_LIMIT,
                  "description": f"How many to return at most. Default: `{query.DEFAULT_LIMIT}`."},
        "cursor": {"type": ["string", "null"], "description": "Where the last page ended; null for the first page."},
        "fields": ref(f"{name}FieldNames", "Return only these members."),
        "count": {"type": "boolean", "description": "Whether to count all pages, in `Total-Count`."},
        "timezone": {**schema.ZONE, "description": "The IANA time zone of dates in the filter."},
    }  # fmt: skip
    if resource.relations:
        properties["include"] = ref(f"{name}IncludeNames", "Related objects to return as well.")
    if resource.search:
        places = " or ".join(resource.search)
        properties["q"] = {"type": "string", "description": f"Words to find in {places}."}
    if resource.trash:
        properties["deleted"] = {"type": "boolean", "description": "Whether to list the trash."}
    optional = {name: or_null(value) for name, value in properties.items() if name != "cursor"}
    return closed({**properties, **optional}, description=f"Which {resource.nouns} to list, and how.")


# ---- errors ----------------------------------------------------------------------------------------------------------


def _problems() -> Schema:
    text: Final = {"type": "string"}
    issue = {
        "pointer": {**text, "description": "The place in the body, as a JSON Pointer (RFC 6901)."},
        "parameter": {**text, "description": "The query parameter."},
        "code": {**text, "pattern": "^[a-z0-9_]+$", "description": "What kind of fault it is; stable."},
        "detail": {**text, "description": "What is wrong, and what is allowed."},
    }
    conflict = {
        "resource": {**text, "description": "The kind of object."},
        "object_id": {**text, "description": "The object."},
        "member": {"type": ["string", "null"], "description": "The member that was changed since."},
        "event_id": {"type": ["string", "null"], "description": "The event that was to be undone."},
        "later_event_id": {"type": ["string", "null"], "description": "The later event that is in the way."},
    }
    failed = {
        "index": {"type": "integer", "minimum": 0, "description": "Its place in the batch, from 0."},
        "id": {**text, "description": "Its id, if it has one."},
        "problem": ref("Problem", "The error that it would have had alone."),
    }
    required = ["type", "title", "status", "detail", "instance", "code", "request_id"]
    classes = problem_classes()
    return {
        "Problem": {"type": "object", "properties": _problem_members(), "required": required,
                    "description": "An error, as a problem document (RFC 9457)."},
        "ProblemCode": {"type": "string", "enum": [cls.code for cls in classes],
                        "description": "The kind of error; stable."},
        "Issue": {"type": "object", "properties": issue, "required": ["code", "detail"],
                  "description": "One fault of a request, at a place in its body or in a query parameter."},
        "BatchFailure": {"type": "object", "properties": failed, "required": ["index", "problem"],
                         "description": "The operation of a batch that failed."},
        "RevertConflict": {"type": "object", "properties": conflict, "required": ["resource", "object_id"],
                           "description": "Something that was changed after what is to be undone."},
    }  # fmt: skip


def _problem_members() -> Schema:
    text: Final = {"type": "string"}
    statuses = sorted({cls.status for cls in problem_classes()})
    return {
        "type": {**text, "format": "uri-reference", "description": "A page about this kind of error."},
        "title": {**text, "description": "The kind of error in words, the same for all errors with this code."},
        "status": {"type": "integer", "enum": statuses, "description": "The HTTP status."},
        "detail": {**text, "description": "What happened this time, and what to do about it."},
        "instance": {**text, "description": "The path of the request."},
        "code": ref("ProblemCode"),
        "request_id": ref("RequestId", "Tell the operator this id: the server's log has the request under it."),
        "errors": {"type": "array", "items": ref("Issue"), "minItems": 1,
                   "description": "Every fault, with its place."},
        "pointer": {**text, "description": "The place in the body that the whole error is about, as a JSON"
                    " Pointer: the operation of a batch that failed, or the entry of a bulk request that may not be"
                    " changed (403) or is outdated (412)."},
        "operation": ref("BatchFailure", "With `batch-failed`: the operation that failed."),
        "current": {"type": "object", "additionalProperties": True,
                    "description": "With 412: the resource as it is now."},
        "first_seq": {"type": "integer", "description": "With 410: the position at which the log now begins."},
        "seq": {"type": "integer", "description": "With 410: the position at which the log ends; continue after it."},
        "conflicts": {"type": "array", "items": ref("RevertConflict"),
                      "description": "With `revert-conflict`: what was changed since."},
        "event_id": {**text, "description": "With `not-revertible`: the event."},
        "violated-policies": {"type": "array", "items": {"type": "string"},
                              "description": "With 429: the names of the limits that were reached."},
    }  # fmt: skip
