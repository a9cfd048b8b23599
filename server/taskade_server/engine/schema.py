"""JSON Schema of resources: what a client receives and what it may send.

Derived from the declarations that validate, so that a schema cannot promise what the server refuses or hide what it
accepts. Values with a meaning of their own (ids, enumerations, records within a resource) are components with a name,
since generated clients name their types after them. Names of other schemas are references into the components of the
document that holds them. Schemas of filters are in `filter_schema`.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, Final, NamedTuple

from taskade_server.engine import filters, query
from taskade_server.engine.model import (
    CUSTOM_KEY,
    MAX_CUSTOM_FIELDS,
    MAX_CUSTOM_LIST,
    MAX_CUSTOM_TEXT,
    MAX_INTEGER,
    REGISTRY,
    SIDE_VALUE_LENGTH,
    Field,
    Relation,
    Resource,
)
from taskade_server.kit import ids

Schema = dict[str, Any]

SPACE: Final = r"\s\x1c-\x1f\x85"
"""White space as Python strips it: the regular expressions of JSON Schema know fewer characters under \\s."""
DATE: Final[Schema] = {"type": "string", "format": "date"}
TIME: Final[Schema] = {"type": "string", "format": "date-time"}
ZONE: Final[Schema] = {"type": "string", "pattern": r"^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}$"}
"""The name of a time zone: the list of them is longer than a schema should be."""
RELATIVE: Final[Schema] = {"type": "string", "pattern": r"^(now|today|yesterday|tomorrow|[+-]\d{1,5}[hdwmy])$"}
NULL: Final[Schema] = {"type": "null"}
SAMPLE_ID: Final = "01j9zq3v5kfg8wt2m4n6p8r0s2"
_SAMPLE_TIME: Final = "2024-01-15T10:30:00.000Z"


def title(resource: Resource | str) -> str:
    """The name of a resource's schema: `ApiKey`."""
    name = resource if isinstance(resource, str) else resource.name
    return "".join(word.capitalize() for word in re.split(r"[_-]", name))


def ref(name: str, description: str = "") -> Schema:
    """A reference to a schema of the document's components, described for the place that it is used in."""
    reference = {"$ref": f"#/components/schemas/{name}"}
    return {**reference, "description": description} if description else reference


def sample_id(prefix: str) -> str:
    """An id for examples."""
    return f"{prefix}_{SAMPLE_ID}"


def id_schema(target: str) -> Schema:
    """The id of a resource, as a reference to the schema of such ids."""
    return ref(f"{title(target)}Id")


def or_null(schema: Schema) -> Schema:
    """The schema, with null as one more value."""
    if isinstance(schema.get("type"), str) and "enum" not in schema:
        return {**schema, "type": [schema["type"], "null"]}
    described = {"description": schema["description"]} if "description" in schema else {}
    bare = {name: value for name, value in schema.items() if name not in described}
    choices = bare["anyOf"] if set(bare) == {"anyOf"} else [bare]
    return {**described, "anyOf": [*choices, NULL]}


def closed(properties: Mapping[str, Schema], **more: Any) -> Schema:
    """An object that may have these members only: everything else is an error, never ignored."""
    return {"type": "object", "properties": dict(properties), "additionalProperties": False, **more}


def extended(base: str, properties: Mapping[str, Schema], required: list[str], **more: Any) -> Schema:
    """What another schema of the components describes, with more members."""
    added = {"type": "object", "properties": dict(properties), "required": required}
    return {"allOf": [ref(base), added], **more}


# ---- values that have a name of their own ----------------------------------------------------------------------------


class _Names(NamedTuple):
    """The names of enumerations and of records: what has the same values or members has one name."""

    enums: dict[tuple[str, ...], tuple[str, str]]
    """Name and description by the values."""
    records: list[tuple[Field, str]]


def values() -> dict[str, Schema]:
    """The schemas of all values that have a name: ids, enumerations, records, dates, users, custom fields."""
    found: dict[str, Schema] = {}
    for resource in REGISTRY.values():
        found[f"{title(resource)}Id"] = {
            "type": "string",
            "pattern": ids.pattern(resource.prefix),
            "examples": [sample_id(resource.prefix)],
            "description": f"The id of {resource.one}.",
        }
        for relation in resource.relations:
            if relation.replaces:
                found[_either(relation)] = _id_or_object(relation)
    for allowed, (name, text) in _names().enums.items():
        found[name] = {"type": "string", "enum": list(allowed), "description": text}
    for member, name in _names().records:
        found[name] = _record(member)
        found[f"{name}Input"] = _record_input(member)
    found["ResourceName"] = {"type": "string", "enum": sorted(REGISTRY), "description": "A kind of object."}
    return dict(sorted((found | _VALUES).items()))


def enum(allowed: tuple[str, ...]) -> Schema:
    """A reference to the enumeration of these values."""
    return ref(_names().enums[allowed][0])


def _names() -> _Names:
    return _names_of(tuple(REGISTRY))


@cache
def _names_of(resources: tuple[str, ...]) -> _Names:
    found = _Names({}, [])
    for resource in (REGISTRY[name] for name in resources):
        for owner, member in _members(title(resource), resource.fields.values()):
            if member.values:
                name = title(member.noun) if member.kind == "strings" else f"{owner}{title(member.name)}"
                found.enums.setdefault(member.values, (name, member.description))
            elif member.members and not any(known.members == member.members for known, _ in found.records):
                name = f"{title(resource)}{title(member.noun)}"
                repeated = any(name == other for _, other in found.records)
                found.records.append((member, f"Nested{name}" if repeated else name))
    return found


def _members(owner: str, fields: Any) -> Iterator[tuple[str, Field]]:
    """All members, with those of records, and what each belongs to."""
    for member in fields:
        yield owner, member
        yield from _members(title(member.noun), member.members)


def record_name(member: Field) -> str:
    """The name of the schema of a record, or of the entries of a list: `ProjectStatus`."""
    return next(name for known, name in _names().records if known.members == member.members)


def _either(relation: Relation) -> str:
    return f"{title(relation.target)}OrId"


def _id_or_object(relation: Relation) -> Schema:
    noun = REGISTRY[relation.target].noun
    return {
        "oneOf": [id_schema(relation.target), ref(title(relation.target))],
        "description": f"The id of {REGISTRY[relation.target].one}, or the whole {noun} if `include` asks for it.",
    }


_VALUES: Final[dict[str, Schema]] = {
    "CustomValue": {
        "anyOf": [
            {"type": "string", "maxLength": MAX_CUSTOM_TEXT},
            {"type": "number", "minimum": -MAX_INTEGER, "maximum": MAX_INTEGER},
            {"type": "boolean"},
            {"type": "array", "items": {"type": "string", "maxLength": SIDE_VALUE_LENGTH}, "maxItems": MAX_CUSTOM_LIST},
        ],
        "description": "The value of a custom field.",
    },
    "CustomFields": {
        "type": "object",
        "additionalProperties": ref("CustomValue"),
        "description": "The values of custom fields by their keys.",
        "examples": [{"difficulty": "medium", "estimated_hours": 8}],
    },
    "CustomFieldsInput": {
        "type": "object",
        "propertyNames": {"pattern": f"^{CUSTOM_KEY}$"},
        "maxProperties": MAX_CUSTOM_FIELDS,
        "additionalProperties": {"anyOf": [ref("CustomValue"), NULL]},
        "description": "New values of custom fields by their keys. An update leaves the other keys alone; null removes"
        " a key.",
        "examples": [{"difficulty": "medium", "estimated_hours": None}],
    },
    "DateOrTime": {"anyOf": [DATE, TIME], "description": "A date, or a time with its offset from UTC."},
    "TimeOrDate": {"anyOf": [TIME, DATE], "description": "A time with its offset from UTC, or a date."},
    "Moment": {
        "anyOf": [DATE, TIME, RELATIVE],
        "description": "A date, a time, or a moment relative to now such as `today`, `-7d` or `+2h`.",
    },
    "Number": {
        "anyOf": [{"type": "number"}, {"type": "string", "pattern": f"^{filters.NUMBER}$"}],
        "description": "A number; in a URL it is written as text.",
    },
    "UserReference": {
        "type": "string",
        "minLength": 1,
        "maxLength": 320,
        "examples": ["ana"],
        "description": "A user: an id, a handle or an e-mail address, or `me` for the caller.",
    },
    "ReadOnly": {
        "description": "A member that cannot be changed here. It may be sent back as it was read, so that a client can"
        " send the whole object."
    },
}


# ---- what a client receives ------------------------------------------------------------------------------------------


def received(resource: Resource) -> Schema:
    """A resource as a response holds it. Members are always there; those that `include` adds only when asked for."""
    properties = {member.name: _received_member(resource, member) for member in public(resource)}
    required = list(properties)
    for relation in resource.relations:
        if not relation.replaces:
            properties |= _added(relation)
    return {
        "type": "object",
        "description": resource.description,
        "properties": properties,
        "required": required,
        "examples": [sample(resource)],
    }


def public(resource: Resource) -> list[Field]:
    """The members that clients see."""
    return [member for member in resource.fields.values() if not member.hidden]


def _received_member(resource: Resource, member: Field) -> Schema:
    schema = _received_value(member)
    relation = resource.includes.get(member.name)
    text = member.description
    if relation is not None and relation.replaces:
        whole = ref(_either(relation))
        schema = {**schema, "items": whole} if relation.kind == "many" else whole
        text = f"{text} `include={relation.name}` replaces the id by the {REGISTRY[relation.target].noun}."
    if member.nullable and not member.filled:
        schema = or_null(schema)
    return {**schema, "description": text}


def _received_value(member: Field) -> Schema:
    return _RECEIVED.get(member.kind, _plain)(member)


def _added(relation: Relation) -> dict[str, Schema]:
    text = f"{relation.description} Only with `include={relation.name}`."
    whole = ref(title(relation.target))
    if relation.kind == "one":
        return {relation.name: {"anyOf": [whole, NULL], "description": text}}
    return {
        relation.name: {"type": "array", "items": whole, "description": text},
        f"{relation.name}_truncated": {
            "type": "boolean",
            "description": f"Only present, and `true`, if there are more than {query.MAX_INCLUDED_ROWS:,}: a list of"
            " their own has them all.",
        },
    }


def _plain(member: Field) -> Schema:
    return {"type": "string"}


def _record(member: Field) -> Schema:
    properties = {
        item.name: {
            **(or_null(_received_value(item)) if item.nullable and not item.filled else _received_value(item)),
            "description": item.description,
        }
        for item in member.members
    }
    return {"type": "object", "properties": properties, "required": list(properties), "description": _about(member)}


def _about(member: Field) -> str:
    return member.description if member.kind == "record" else f"One of the {member.name}."


_RECEIVED: Final[dict[str, Callable[[Field], Schema]]] = {
    "id": lambda member: id_schema(member.target),
    "ref": lambda member: id_schema(member.target),
    "user": lambda member: id_schema("user"),
    "enum": lambda member: enum(member.values),
    "bool": lambda member: {"type": "boolean"},
    "integer": lambda member: {"type": "integer"},
    "number": lambda member: {"type": "number"},
    "time": lambda member: dict(TIME),
    "day": lambda member: ref("DateOrTime"),
    "strings": lambda member: {"type": "array", "items": enum(member.values) if member.values else {"type": "string"}},
    "refs": lambda member: {"type": "array", "items": id_schema(member.target)},
    "custom": lambda member: ref("CustomFields"),
    "object": lambda member: {"type": "object", "additionalProperties": True},
    "filter": lambda member: {"type": "object", "additionalProperties": True},
    "document": lambda member: {"type": "object", "additionalProperties": True},
    "documents": lambda member: {"type": "array", "items": {"type": "object", "additionalProperties": True}},
    "record": lambda member: ref(record_name(member)),
    "list": lambda member: {"type": "array", "items": ref(record_name(member))},
}


# ---- what a client sends ---------------------------------------------------------------------------------------------


def creation(resource: Resource, extra: Mapping[str, Schema] | None = None, **more: Any) -> Schema:
    """The body of a create request."""
    properties = {member.name: sent(member) for member in public(resource) if member.writable}
    required = [member.name for member in public(resource) if member.required and member.writable]
    text = f"A new {resource.noun}. What is left out or null gets its default."
    return closed(
        {**properties, **(extra or {})}, description=text, **({"required": required} if required else {}), **more
    )


def update(resource: Resource) -> Schema:
    """The body of a merge patch: what is left out stays, null clears, objects merge."""
    properties = {
        member.name: sent(member, creating=False) if member.writable and not member.create_only else ref("ReadOnly")
        for member in public(resource)
    }
    for relation in resource.relations:
        properties.setdefault(relation.name, ref("ReadOnly"))
    text = f"Changes to {resource.one} as a JSON merge patch (RFC 7396): what is left out stays as it is, null clears."
    if any(relation.replaces for relation in resource.relations):
        text += " In the place of an id, the object that `include` put there is taken as well."
    return closed(properties, description=text)


def fixed(member: Field) -> Schema:
    """A read-only member in the body of a creation: null, or what it will be where a client can know that."""
    if member.name == "version":
        return {"enum": [1, None]}
    return or_null(id_schema(member.target)) if member.kind in ("user", "ref") else NULL


def sent(member: Field, *, creating: bool = True) -> Schema:
    """What a body may hold for one member. On creation null stands for the default, unless the member gives rights."""
    schema = _SENT[member.kind](member)
    optional = creating and not member.required and not member.explicit
    if member.nullable or member.nested or member.multiple or optional:
        schema = or_null(schema)
    schema = {**schema, "description": member.description}
    if not creating or member.required:
        return schema
    if member.default is not None:
        schema["description"] += f" Default: `{default_text(member.default)}`."
    return schema


def default_text(value: Any) -> str:
    """A default value as a description shows it: text without quotes, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def _sent_text(member: Field) -> Schema:
    schema: Schema = {"type": "string", "maxLength": member.max_length}
    if member.min_length:
        schema["minLength"] = member.min_length
    if member.pattern:
        schema["pattern"] = f"^({member.pattern})$" if "|" in member.pattern else f"^{member.pattern}$"
    elif member.min_length:
        schema["pattern"] = rf"^[\s\S]*[^{SPACE}][\s\S]*$"
    return schema


def _sent_number(member: Field) -> Schema:
    low = -MAX_INTEGER if member.minimum is None else member.minimum
    high = MAX_INTEGER if member.maximum is None else member.maximum
    return {"type": "integer" if member.kind == "integer" else "number", "minimum": low, "maximum": high}


def _sent_strings(member: Field) -> Schema:
    items: Schema = {
        "type": "string",
        "minLength": 1,
        "maxLength": member.max_length,
        "pattern": rf"^[^,]*[^,{SPACE}][^,]*$",
    }
    return {"type": "array", "items": enum(member.values) if member.values else items, "maxItems": member.max_items}


def _record_input(member: Field) -> Schema:
    required = [item.name for item in member.members if item.required]
    return closed(
        {item.name: sent(item) for item in member.members},
        description=_about(member),
        **({"required": required} if required else {}),
    )


_SENT: Final[dict[str, Callable[[Field], Schema]]] = {
    "id": lambda member: id_schema(member.target),
    "ref": lambda member: id_schema(member.target),
    "user": lambda member: ref("UserReference"),
    "text": _sent_text,
    "key": _sent_text,
    "zone": lambda member: dict(ZONE),
    "enum": lambda member: enum(member.values),
    "bool": lambda member: {"type": "boolean"},
    "integer": _sent_number,
    "number": _sent_number,
    "time": lambda member: ref("TimeOrDate"),
    "day": lambda member: ref("DateOrTime"),
    "strings": _sent_strings,
    "refs": lambda member: {"type": "array", "items": id_schema(member.target), "maxItems": member.max_items},
    "custom": lambda member: ref("CustomFieldsInput"),
    "object": lambda member: {"type": "object", "additionalProperties": True},
    "filter": lambda member: {"type": "object", "additionalProperties": True, "minProperties": 1},
    "document": lambda member: {"type": "object", "additionalProperties": True, "minProperties": 1},
    "documents": lambda member: {
        "type": "array", "items": {"type": "object", "additionalProperties": True}, "maxItems": member.max_items
    },
    "record": lambda member: ref(f"{record_name(member)}Input"),
    "list": lambda member: {
        "type": "array", "items": ref(f"{record_name(member)}Input"), "maxItems": member.max_items
    },
}  # fmt: skip


# ---- words and samples -----------------------------------------------------------------------------------------------


def sort_names(resource: Resource) -> list[str]:
    """The members a list can be sorted by."""
    return [member.name for member in resource.fields.values() if member.sortable]


def include_names(resource: Resource) -> list[str]:
    """What `include` takes: relations, and relations of those."""
    return [
        name
        for relation in resource.relations
        for name in (relation.name, *(f"{relation.name}.{inner}" for inner in REGISTRY[relation.target].includes))
    ]


def field_names(resource: Resource) -> list[str]:
    """What `fields` takes."""
    return [member.name for member in public(resource)]


def sample(resource: Resource) -> dict[str, Any]:
    """A resource as an example shows it."""
    return {member.name: _sample(member) for member in public(resource)}


def _sample(member: Field) -> Any:
    if member.kind == "time" and member.nullable and not member.example:
        return None
    if member.kind == "record":
        return {item.name: _sample(item) for item in member.members}
    if member.kind == "list" and not member.example:
        return [{item.name: _sample(item) for item in member.members}]
    if member.example is not None:
        return member.example
    if member.kind in ("id", "ref", "user"):
        return sample_id(REGISTRY[member.target].prefix)
    if member.kind in ("time", "day"):
        return _SAMPLE_TIME
    return member.default
