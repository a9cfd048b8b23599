"""JSON Schema of resources: what a client receives, what it may send, and how it may filter.

Why derived from the declarations that validate: a schema written beside them would promise what the server refuses, or
hide what it accepts, as soon as one of the two changes. Names of other schemas are references into the components of
the document that holds them.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

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
RELATIVE: Final[Schema] = {"type": "string", "pattern": r"^(now|today|yesterday|tomorrow|[+-]\d{1,5}[hdwmy])$"}
NUMERIC: Final[Schema] = {"type": "string", "pattern": f"^{filters.NUMBER}$"}
NULL: Final[Schema] = {"type": "null"}
SAMPLE_ID: Final = "01j9zq3v5kfg8wt2m4n6p8r0s2"
_SAMPLE_TIME: Final = "2024-01-15T10:30:00.000Z"


def title(resource: Resource | str) -> str:
    """The name of a resource's schema: `ApiKey`."""
    name = resource if isinstance(resource, str) else resource.name
    return "".join(word.capitalize() for word in re.split(r"[_-]", name))


def ref(name: str) -> Schema:
    """A reference to a schema of the document's components."""
    return {"$ref": f"#/components/schemas/{name}"}


def sample_id(prefix: str) -> str:
    """An id for examples."""
    return f"{prefix}_{SAMPLE_ID}"


def id_schema(target: str) -> Schema:
    """The id of a resource."""
    prefix = REGISTRY[target].prefix
    return {"type": "string", "pattern": ids.pattern(prefix), "examples": [sample_id(prefix)]}


def or_null(schema: Schema) -> Schema:
    """The same schema, or null."""
    if isinstance(schema.get("type"), str):
        extended = {**schema, "type": [schema["type"], "null"]}
        return {**extended, "enum": [*schema["enum"], None]} if "enum" in schema else extended
    if "anyOf" in schema:
        return {**schema, "anyOf": [*schema["anyOf"], NULL]}
    return {"anyOf": [schema, NULL]}


def closed(properties: Mapping[str, Schema], **more: Any) -> Schema:
    """An object that may have these members only: everything else is an error, never ignored."""
    return {"type": "object", "properties": dict(properties), "additionalProperties": False, **more}


# ---- what a client receives ------------------------------------------------------------------------------------------


def received(resource: Resource, extra: Mapping[str, Schema] | None = None) -> Schema:
    """A resource as an answer holds it. Members are always there; those that `include` adds only when asked for."""
    properties = {member.name: _received_member(resource, member) for member in _public(resource)}
    properties |= extra or {}
    required = list(properties)
    for relation in resource.relations:
        if not relation.replaces:
            properties |= _added(relation)
    return {"type": "object", "description": resource.description, "properties": properties, "required": required,
            "examples": [sample(resource)]}  # fmt: skip


def selection(resource: Resource) -> Schema:
    """What `fields` leaves of a resource: any of its members, each as in the whole."""
    names = [*(member.name for member in _public(resource)), *(relation.name for relation in resource.relations)]
    return {
        "type": "object",
        "description": f"The members of a {title(resource)} that `fields` names, and what `include` adds.",
        "propertyNames": {"enum": list(dict.fromkeys(names))},
        "minProperties": 1,
        "examples": [{name: sample(resource)[name] for name in ("id", "version")}],
    }


def _public(resource: Resource) -> list[Field]:
    return [member for member in resource.fields.values() if not member.hidden]


def _received_member(resource: Resource, member: Field) -> Schema:
    schema = _RECEIVED.get(member.kind, _plain)(member)
    if member.nullable and not member.filled:
        schema = or_null(schema)
    relation = resource.includes.get(member.name)
    text = member.description
    if relation is not None and relation.replaces:
        whole = ref(title(relation.target))
        if relation.kind == "many":
            schema = {**schema, "items": {"oneOf": [schema["items"], whole]}}
        else:
            schema = {"oneOf": [schema, whole]}
        text = f"{text} With `include={relation.name}` the {title(relation.target)} itself."
    return _described(member, schema, text, read_only=not member.writable or member.name == "id")


def _added(relation: Relation) -> dict[str, Schema]:
    text = f"{relation.description} Only with `include={relation.name}`."
    whole = ref(title(relation.target))
    if relation.kind == "one":
        return {relation.name: {"oneOf": [whole, NULL], "description": text, "readOnly": True}}
    return {
        relation.name: {"type": "array", "items": whole, "description": text, "readOnly": True},
        f"{relation.name}_truncated": {
            "const": True,
            "description": f"There are more than {query.MAX_INCLUDED_ROWS:,}; list them by themselves.",
            "readOnly": True,
        },
    }


def _plain(member: Field) -> Schema:
    return {"type": "string"}


def _received_object(member: Field) -> Schema:
    properties = {
        item.name: _described(item, or_null(schema) if item.nullable and not item.filled else schema)
        for item in member.members
        for schema in [_RECEIVED.get(item.kind, _plain)(item)]
    }
    return {"type": "object", "title": _noun(member), "properties": properties, "required": list(properties)}


_RECEIVED: Final[dict[str, Callable[[Field], Schema]]] = {
    "id": lambda member: id_schema(member.target),
    "ref": lambda member: id_schema(member.target),
    "user": lambda member: id_schema("user"),
    "enum": lambda member: {"type": "string", "enum": list(member.values)},
    "bool": lambda member: {"type": "boolean"},
    "integer": lambda member: {"type": "integer"},
    "number": lambda member: {"type": "number"},
    "time": lambda member: dict(TIME),
    "day": lambda member: {"anyOf": [DATE, TIME]},
    "strings": lambda member: {"type": "array", "items": {"type": "string"}},
    "refs": lambda member: {"type": "array", "items": id_schema(member.target)},
    "custom": lambda member: {"type": "object", "additionalProperties": {"anyOf": list(_CUSTOM_VALUES)}},
    "object": lambda member: {"type": "object", "additionalProperties": True},
    "filter": lambda member: {"type": "object", "additionalProperties": True},
    "record": _received_object,
    "list": lambda member: {"type": "array", "items": _received_object(member)},
}


def _noun(member: Field) -> str:
    """`Status` for an entry of `statuses`."""
    name = re.sub(r"(?<=us)es$|s$", "", member.name)
    return title(name)


# ---- what a client sends ---------------------------------------------------------------------------------------------


def creation(resource: Resource, extra: Mapping[str, Schema] | None = None, **more: Any) -> Schema:
    """The body of a create request. Read-only members are accepted and ignored: what was read may be sent back."""
    properties = {member.name: sent(member) if member.writable else ignored(member) for member in _public(resource)}
    required = [member.name for member in _public(resource) if member.required and member.writable]
    text = f"A new {resource.name.replace('_', ' ')}. Members that are left out get their defaults."
    return closed(
        {**properties, **(extra or {})}, description=text, **({"required": required} if required else {}), **more
    )


def update(resource: Resource) -> Schema:
    """The body of a merge patch: what is left out stays, null clears, objects merge."""
    properties = {}
    for member in _public(resource):
        if member.create_only:
            properties[member.name] = {"description": "Set on creation; may be sent back unchanged.", "readOnly": True}
        else:
            properties[member.name] = sent(member, default=False) if member.writable else ignored(member)
    for relation in resource.relations:
        text = f"What `include={relation.name}` added may come back; it is ignored."
        properties.setdefault(relation.name, {"description": text, "readOnly": True})
    noun = resource.name.replace("_", " ")
    text = f"Changes to a {noun} (JSON merge patch, RFC 7396): what is left out stays, null clears."
    text += " An object that `include` put in the place of an id may come back and stands for the id."
    return closed(properties, description=text)


def ignored(member: Field) -> Schema:
    """A read-only member in a body."""
    return {"description": f"{member.description} Read-only: ignored in a body.", "readOnly": True}


def sent(member: Field, *, default: bool = True) -> Schema:
    """What a body may hold for one member."""
    schema = _SENT[member.kind](member)
    if member.nullable or member.nested or member.multiple:
        schema = or_null(schema)
    if default and not member.required and member.default is not None:
        schema = {**schema, "default": member.default}
    return _described(member, schema)


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
    if member.values:
        items = {"type": "string", "enum": list(member.values)}
    return {"type": "array", "items": items, "maxItems": member.max_items}


def _sent_object(member: Field) -> Schema:
    required = [item.name for item in member.members if item.required]
    return closed({item.name: sent(item) for item in member.members}, title=_noun(member),
                  **({"required": required} if required else {}))  # fmt: skip


_CUSTOM_VALUES: Final[tuple[Schema, ...]] = (
    {"type": "string", "maxLength": MAX_CUSTOM_TEXT},
    {"type": "number", "minimum": -MAX_INTEGER, "maximum": MAX_INTEGER},
    {"type": "boolean"},
    {"type": "array", "items": {"type": "string", "maxLength": SIDE_VALUE_LENGTH}, "maxItems": MAX_CUSTOM_LIST},
)


def _sent_custom(member: Field) -> Schema:
    return {
        "type": "object",
        "propertyNames": {"pattern": f"^{CUSTOM_KEY}$"},
        "maxProperties": MAX_CUSTOM_FIELDS,
        "additionalProperties": {"anyOf": [*_CUSTOM_VALUES, NULL]},
    }


_SENT: Final[dict[str, Callable[[Field], Schema]]] = {
    "id": lambda member: id_schema(member.target),
    "ref": lambda member: id_schema(member.target),
    "user": lambda member: {"type": "string", "minLength": 1, "maxLength": 320},
    "text": _sent_text,
    "key": _sent_text,
    "enum": lambda member: {"type": "string", "enum": list(member.values)},
    "bool": lambda member: {"type": "boolean"},
    "integer": _sent_number,
    "number": _sent_number,
    "time": lambda member: {"anyOf": [TIME, DATE]},
    "day": lambda member: {"anyOf": [DATE, TIME]},
    "strings": _sent_strings,
    "refs": lambda member: {"type": "array", "items": id_schema(member.target), "maxItems": member.max_items},
    "custom": _sent_custom,
    "object": lambda member: {"type": "object", "additionalProperties": True},
    "filter": lambda member: {"type": "object", "additionalProperties": True, "minProperties": 1},
    "record": _sent_object,
    "list": lambda member: {"type": "array", "items": _sent_object(member), "maxItems": member.max_items},
}


# ---- how a client filters --------------------------------------------------------------------------------------------


def conditions(resources: Iterable[Resource]) -> dict[str, Schema]:
    """The schemas of conditions by name: one for each kind of member, enum and target."""
    found: dict[str, Schema] = {}
    for resource in resources:
        for member in resource.filterable.values():
            found.setdefault(condition_name(resource, member), _condition(member))
    return dict(sorted(found.items()))


def condition_name(resource: Resource, member: Field) -> str:
    """The name of a member's condition schema: `DateCondition`, `TaskPriorityCondition`."""
    if member.kind == "enum":
        return f"{title(resource)}{title(member.name)}Condition"
    if member.kind in ("id", "ref", "refs"):
        return f"{title(member.target or resource.name)}IdCondition"
    names = {"user": "User", "time": "Date", "day": "Date", "integer": "Number", "number": "Number", "custom": "Custom",
             "strings": "Label", "bool": "Boolean"}  # fmt: skip
    return f"{names.get(member.kind, 'Text')}Condition"


def filter_document(resource: Resource) -> Schema:
    """A filter as one JSON document; everything in it must hold."""
    this = ref(f"{title(resource)}Filter")
    properties = {
        name: {**ref(condition_name(resource, member)), "description": member.description}
        for name, member in resource.filterable.items()
        if member.kind != "custom"
    }
    properties |= {name: {**schema, "description": text} for name, text, schema in aliases(resource)}
    several = {"type": "array", "items": this, "minItems": 1, "maxItems": filters.MAX_LEAVES}
    properties["$and"] = {**several, "description": "All of these hold."}
    properties["$or"] = {**several, "description": "At least one of these holds."}
    properties["$not"] = {**this, "description": "This does not hold."}
    limits = f"at most {filters.MAX_LEAVES}, nested at most {filters.MAX_DEPTH} levels deep"
    document = closed(properties, description=f"Conditions, all of which must hold: {limits}.")
    if "custom_fields" in resource.fields:
        custom = {"propertyNames": {"pattern": f"^{CUSTOM_KEY}$"}, "additionalProperties": ref("CustomCondition")}
        document["properties"]["custom_fields"] = {"type": "object", **custom,
                                                   "description": "Conditions on custom fields by key."}  # fmt: skip
        document["patternProperties"] = {rf"^custom_fields\.{CUSTOM_KEY}$": ref("CustomCondition")}
    return document


def aliases(resource: Resource) -> list[tuple[str, str, Schema]]:
    """`due_before` and its like: name, description and schema."""
    found = []
    for member in resource.filterable.values():
        stem, _, kind = member.name.rpartition("_")
        if member.kind in ("day", "time") and kind in ("date", "at"):
            for word, sign in (("before", "$lt"), ("after", "$gt")):
                text = f"The same as `{member.name}[{sign}]`."
                found.append((f"{stem}_{word}", text, {"anyOf": [DATE, TIME, RELATIVE]}))
    return found


def _condition(member: Field) -> Schema:
    """A value (equal), a list (any of) or an object of operators."""
    value, ordered, text = _operand(member)
    most = filters.MAX_LEAVES if member.kind in ("day", "time") else filters.MAX_VALUES
    many = {"anyOf": [value, {"type": "array", "items": value, "maxItems": most}]}
    single = {"$eq": "Equal to the value, or to any of a list.", "$ne": "Not equal; holds for what has no value, too.",
              "$in": "Any of these.", "$nin": "None of these; holds for what has no value, too."}  # fmt: skip
    operators: dict[str, Schema] = {name: {**many, "description": words} for name, words in single.items()}
    if ordered is not None:
        for name, words in (("$gt", "Greater, or later."), ("$gte", "Greater or equal."), ("$lt", "Less, or earlier."),
                            ("$lte", "Less or equal; a date includes its whole day.")):  # fmt: skip
            operators[name] = {**ordered, "description": words}
    if text:
        part = {"type": "string", "minLength": 1}
        operators["$contains"] = {**part, "description": "Contains the text, or has the label."}
        operators["$prefix"] = {**part, "description": "Starts with the text."}
    operators["$exists"] = {"type": "boolean", "description": "true: has a value; false: has none."}
    return {
        "description": "A value, a list of values (any of them) or an object of operators.",
        "anyOf": [*many["anyOf"], closed(operators, minProperties=1)],
    }


def _operand(member: Field) -> tuple[Schema, Schema | None, bool]:
    """What a member is compared with: a value for equality, one for order (None: has none); and whether it is text."""
    if member.kind in ("id", "ref", "refs"):
        return or_null(id_schema(member.target)), None, False
    if member.kind == "user":
        words = {"type": ["string", "null"], "minLength": 1, "maxLength": 320, "examples": ["me", "ana"]}
        return {**words, "description": "A user's id, handle or e-mail, or `me`."}, None, False
    if member.kind == "enum":
        one = {"type": "string", "enum": list(member.values)}
        return or_null(one), one, False
    if member.kind == "bool":
        return {"type": ["boolean", "null"]}, None, False
    if member.kind in ("number", "integer"):
        return {"anyOf": [{"type": "number"}, NUMERIC, NULL]}, {"anyOf": [{"type": "number"}, NUMERIC]}, False
    if member.kind in ("day", "time"):
        moments = [DATE, TIME, RELATIVE]
        return {"anyOf": [*moments, NULL]}, {"anyOf": moments}, False
    scalar = {"type": ["string", "number", "boolean"]}
    return {"type": [*scalar["type"], "null"]}, None if member.kind == "strings" else scalar, True


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
    return [member.name for member in _public(resource)]


def sample(resource: Resource) -> dict[str, Any]:
    """A resource as an example shows it."""
    return {member.name: _sample(member) for member in _public(resource)}


def _sample(member: Field) -> Any:
    if member.kind == "time" and member.nullable and not member.example:
        return None
    if member.kind == "record":
        return {item.name: _sample(item) for item in member.members}
    if member.kind == "list" and not member.example:
        return [{item.name: _sample(item) for item in member.members}]
    return example(member)


def example(member: Field) -> Any:
    """A value for one member."""
    if member.example is not None:
        return member.example
    if member.kind in ("id", "ref", "user"):
        return sample_id(REGISTRY[member.target].prefix)
    if member.kind in ("time", "day"):
        return _SAMPLE_TIME
    return member.default


def _described(member: Field, schema: Schema, text: str = "", *, read_only: bool = False) -> Schema:
    schema = {**schema, "description": text or member.description}
    value = example(member)
    if value is not None and member.kind not in ("list", "record"):
        schema["examples"] = [value]
    return {**schema, "readOnly": True} if read_only else schema
