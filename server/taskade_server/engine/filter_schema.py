"""JSON Schema of filters: the condition on each kind of member, and the filter document of each resource.

Derived from the declarations that the filter language itself reads. Every part has a name (`TaskPriorityCondition`,
`TaskPriorityMatch`, `TaskPriorityOperators`), since generated clients name their types after them.
"""

from collections.abc import Iterable
from typing import Final

from taskade_server.engine import filters
from taskade_server.engine.model import CUSTOM_KEY, Field, Resource
from taskade_server.engine.schema import NULL, Schema, closed, enum, ref, title

_KINDS: Final = {
    "id": "Id",
    "ref": "Id",
    "refs": "Id",
    "user": "User",
    "time": "Date",
    "day": "Date",
    "integer": "Number",
    "number": "Number",
    "custom": "Custom",
    "strings": "Label",
    "bool": "Boolean",
}
_ANYTHING: Final[Schema] = {"type": ["string", "number", "boolean"]}


def conditions(resources: Iterable[Resource]) -> dict[str, Schema]:
    """The schemas of conditions by name: three for each kind of member, enumeration and target."""
    found: dict[str, Schema] = {}
    for resource in resources:
        for member in resource.filterable.values():
            if condition_name(resource, member) not in found:
                found |= _condition(_stem(resource, member), member)
    return dict(sorted(found.items()))


def condition_name(resource: Resource, member: Field) -> str:
    """The name of the schema of conditions on a member: `DateCondition`, `TaskPriorityCondition`."""
    return f"{_stem(resource, member)}Condition"


def filter_document(resource: Resource) -> Schema:
    """A filter as one JSON document; everything in it must hold."""
    this = f"{title(resource)}Filter"
    properties = {
        name: ref(condition_name(resource, member))
        for name, member in resource.filterable.items()
        if member.kind != "custom"
    }
    properties |= {name: ref("Moment", text) for name, text in aliases(resource)}
    several = {"type": "array", "items": ref(this), "minItems": 1, "maxItems": filters.MAX_LEAVES}
    properties["$and"] = {**several, "description": "All of these must hold."}
    properties["$or"] = {**several, "description": "At least one of these must hold."}
    properties["$not"] = ref(this, "This must not hold.")
    text = (
        f"Conditions on {resource.nouns}, all of which must hold. A filter has at most {filters.MAX_LEAVES} conditions,"
        f" nested at most {filters.MAX_DEPTH} levels deep."
    )
    document = closed(properties, description=text)
    if "custom_fields" in resource.fields:
        custom = {"propertyNames": {"pattern": f"^{CUSTOM_KEY}$"}, "additionalProperties": ref("CustomCondition")}
        text = "Conditions by custom field. `custom_fields.<key>` is another way to write one of them."
        document["properties"]["custom_fields"] = {"type": "object", "minProperties": 1, **custom, "description": text}
    return document


def aliases(resource: Resource) -> list[tuple[str, str]]:
    """`due_before` and its like: name and description."""
    found = []
    for member in resource.filterable.values():
        stem, _, kind = member.name.rpartition("_")
        if member.kind in ("day", "time") and kind in ("date", "at"):
            for word, sign in (("before", "$lt"), ("after", "$gt")):
                found.append((f"{stem}_{word}", f"Short for `{member.name}[{sign}]`."))
    return found


def _stem(resource: Resource, member: Field) -> str:
    if member.kind == "enum":
        return f"{title(resource)}{title(member.name)}"
    return _KINDS.get(member.kind, "Text")


def _condition(stem: str, member: Field) -> dict[str, Schema]:
    """What a value is compared with, the operators, and either of the two."""
    value, ordered, text = _operand(member)
    most = filters.MAX_LEAVES if member.kind in ("day", "time") else filters.MAX_VALUES
    operators = {
        "$eq": ref(f"{stem}Match", "Equal to the value, or to one of a list."),
        "$ne": ref(f"{stem}Match", "Not equal, or no value."),
        "$in": ref(f"{stem}Match", "One of these."),
        "$nin": ref(f"{stem}Match", "None of these, or no value."),
    }
    if ordered:
        operators |= {
            "$gt": {**value, "description": "Greater or later."},
            "$gte": {**value, "description": "Greater, later or equal."},
            "$lt": {**value, "description": "Less or earlier."},
            "$lte": {**value, "description": "Less, earlier or equal; a date includes its whole day."},
        }
    if text:
        part = {"type": "string", "minLength": 1}
        operators["$contains"] = {**part, "description": "Contains this text, or has this label."}
        operators["$prefix"] = {**part, "description": "Starts with this text."}
    operators["$exists"] = {"type": "boolean", "description": "Whether there is a value."}
    choices = value.get("anyOf", [value])
    several = {"type": "array", "items": {"anyOf": [*choices, NULL]}, "maxItems": most}
    return {
        f"{stem}Match": {
            "anyOf": [*choices, NULL, several],
            "description": "A value, null for no value, or a list of which one must match.",
        },
        f"{stem}Operators": closed(
            operators, minProperties=1, description="Comparisons by operator; all of them must hold."
        ),
        f"{stem}Condition": {
            "anyOf": [ref(f"{stem}Match"), ref(f"{stem}Operators")],
            "description": "What the value must equal, or comparisons by operator.",
        },
    }


def _operand(member: Field) -> tuple[Schema, bool, bool]:
    """What a member is compared with, whether it has an order, and whether it is text."""
    if member.kind in ("id", "ref", "refs"):
        return ref("Id"), False, False
    if member.kind == "user":
        return ref("UserReference"), False, False
    if member.kind == "enum":
        return enum(member.values), True, False
    if member.kind == "bool":
        return {"type": "boolean"}, False, False
    if member.kind in ("number", "integer"):
        return ref("Number"), True, False
    if member.kind in ("day", "time"):
        return ref("Moment"), True, False
    return _ANYTHING, member.kind != "strings", True
