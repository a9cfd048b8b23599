"""The values of members: what is wrong with one, or its normal form.

Each function notes what is wrong with a value at its place, and returns the value as it is stored.
"""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from taskade_server.engine.model.declaration import REGISTRY
from taskade_server.engine.model.documents import copy_of, merge_patch, unexpanded
from taskade_server.engine.model.faults import Faults
from taskade_server.engine.model.fields import MAX_INTEGER, SIDE_VALUE_LENGTH, Field
from taskade_server.kit import ids, json, text, time, zones
from taskade_server.kit.errors import did_you_mean
from taskade_server.kit.strict_json import escape_pointer

MAX_CUSTOM_FIELDS: Final = 100

MAX_CUSTOM_KEY: Final = 64

MAX_CUSTOM_TEXT: Final = 5_000

MAX_CUSTOM_LIST: Final = 100

CUSTOM_KEY: Final = r'[^\s\x00-\x1f\x7f\x85\ufeff\[\]$/~"\\][^\x00-\x1f\x7f\[\]/~"\\]{0,63}'

_CUSTOM_KEY: Final = re.compile(CUSTOM_KEY)


def check_value(faults: Faults, member: Field, value: Any, place: str, before: Any = None) -> Any:
    """One member's normalised value, or None after noting what is wrong with it."""
    if value is None:
        if not member.nullable:
            if member.nested or member.multiple:
                return copy_of(member.default)
            faults.fault(place, "required", f"{member.name} must not be null.")
        return copy_of(member.default) if member.nested or member.multiple else None
    return _CHECKS[member.kind](faults, member, value, place, before)


def _text_value(faults: Faults, member: Field, value: Any, place: str, before: Any = None) -> Any:
    if not isinstance(value, str):
        return faults.wrong_type(place, member, "a string", value)
    if len(value) > member.max_length:
        faults.fault(
            place,
            "too_long",
            f"{member.name} has {len(value):,} characters; {member.max_length:,} are allowed.",
        )
    elif len(value.strip()) < member.min_length:
        faults.fault(place, "too_short", f"{member.name} must not be empty.")
    elif member.pattern and not re.fullmatch(member.pattern, value):
        char = text.unseen(value)
        seen = f"{member.name} must match {member.pattern}."
        unseen = f"{member.name} has a character that nobody sees, U+{ord(char or ' '):04X}; type it anew."
        faults.fault(place, "invalid_format", unseen if char else seen)
    return value


def _zone(faults: Faults, member: Field, value: Any, place: str, before: Any = None) -> Any:
    if not isinstance(value, str):
        return faults.wrong_type(place, member, "the name of a time zone", value)
    try:
        zones.get(value)
    except ValueError as error:
        faults.fault(place, "unknown_timezone", f"{member.name}: {error}")
        return None
    return value


def _one_id(faults: Faults, member: Field, value: Any, place: str, before: Any = None) -> str | None:
    value = unexpanded(value)
    prefix = REGISTRY[member.target].prefix
    if not isinstance(value, str) or not ids.is_id(value, prefix):
        faults.fault(
            place,
            "invalid_id",
            f"{member.name} takes an id of the form {prefix}_ and 26 characters of a UUIDv7 in base32.",
        )
        return None
    return value


def _user(faults: Faults, member: Field, value: Any, place: str, before: Any = None) -> Any:
    value = unexpanded(value)
    if value == "":
        form = "an id, a handle, an e-mail or null" if member.nullable else "an id, a handle or an e-mail"
        return faults.fault(place, "required", f"{member.name} must not be empty: give {form}.")
    if not isinstance(value, str) or len(value) > 320:
        return faults.wrong_type(place, member, "a user's id, handle or e-mail", value)
    return value


def _enum(faults: Faults, member: Field, value: Any, place: str, before: Any = None) -> str | None:
    if value not in member.values or not isinstance(value, str):
        hint = did_you_mean(str(value), member.values)
        faults.fault(place, "not_allowed", f"{member.name} must be one of {', '.join(member.values)}.{hint}")
        return None
    return value


def _boolean(faults: Faults, member: Field, value: Any, place: str, before: Any = None) -> Any:
    return value if isinstance(value, bool) else faults.wrong_type(place, member, "true or false", value)


def _integer(faults: Faults, member: Field, value: Any, place: str, before: Any = None) -> Any:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 1.0 is a whole number in JSON, too
    if isinstance(value, bool) or not isinstance(value, int):
        return faults.wrong_type(place, member, "a whole number", value)
    return _number(faults, member, value, place)


def _number(faults: Faults, member: Field, value: Any, place: str, before: Any = None) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return faults.wrong_type(place, member, "a number", value)
    low = -MAX_INTEGER if member.minimum is None else member.minimum
    high = MAX_INTEGER if member.maximum is None else member.maximum
    if not low <= value <= high:
        faults.fault(place, "out_of_range", f"{member.name} must lie between {low:g} and {high:g}.")
    return value


def _day(faults: Faults, member: Field, value: Any, place: str, before: Any = None) -> Any:
    if not isinstance(value, str):
        return faults.wrong_type(place, member, "a date or a time", value)
    try:
        return time.normalize(value)
    except ValueError as error:
        faults.fault(place, "invalid_date", f"{member.name}: {error}.")
        return None


def _moment(faults: Faults, member: Field, value: Any, place: str, before: Any = None) -> str | None:
    normal = _day(faults, member, value, place)
    return time.format_ms(time.parse_ms(normal)) if normal else None


def _strings(faults: Faults, member: Field, value: Any, place: str, before: Any = None) -> list[str]:
    if not isinstance(value, list):
        faults.wrong_type(place, member, "a list of strings", value)
        return []
    if len(value) > member.max_items:
        faults.fault(place, "too_many", f"{member.name} may have {member.max_items} entries, not {len(value)}.")
        return []
    for index, entry in enumerate(value):
        if not isinstance(entry, str) or not entry.strip() or len(entry) > member.max_length or "," in entry:
            detail = f"{member.name} takes strings of 1 to {member.max_length} characters without a comma."
            faults.fault(f"{place}/{index}", "invalid_format", detail)
            return []
    return list(dict.fromkeys(map(text.tidy, value)))


def _refs(faults: Faults, member: Field, value: Any, place: str, before: Any = None) -> list[str]:
    if not isinstance(value, list) or len(value) > member.max_items:
        faults.wrong_type(place, member, f"a list of at most {member.max_items} ids", value)
        return []
    found = [_one_id(faults, member, entry, f"{place}/{index}") for index, entry in enumerate(value)]
    return list(dict.fromkeys(entry for entry in found if entry))


def _json_object(faults: Faults, member: Field, value: Any, place: str, before: Any = None) -> dict[str, Any]:
    if not isinstance(value, dict):
        faults.wrong_type(place, member, "an object", value)
        return {}
    merged: dict[str, Any] = merge_patch(before or {}, value)
    if len(json.encode(merged)) > member.max_length:
        faults.fault(place, "too_long", f"{member.name} may take {member.max_length:,} bytes as JSON.")
    return merged


def _filter_document(faults: Faults, member: Field, value: Any, place: str, before: Any = None) -> Any:
    return _whole_document(faults, member, value, place, "an object with conditions, or null")


def _document(faults: Faults, member: Field, value: Any, place: str, before: Any = None) -> Any:
    return _whole_document(faults, member, value, place, "an object")


def _whole_document(faults: Faults, member: Field, value: Any, place: str, expected: str) -> Any:
    """An object that replaces the former one whole: to merge two would make a third that nobody wrote."""
    if not isinstance(value, dict) or not value:
        return faults.wrong_type(place, member, expected, value)
    if len(json.encode(value)) > member.max_length:
        faults.fault(place, "too_long", f"{member.name} may take {member.max_length:,} bytes as JSON.")
    return value


def _documents(faults: Faults, member: Field, value: Any, place: str, before: Any = None) -> list[dict[str, Any]]:
    """Objects whose own members somebody else checks; like a document, the list replaces the former one whole."""
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        faults.wrong_type(place, member, "a list of objects", value)
        return []
    if len(value) > member.max_items:
        faults.fault(place, "too_many", f"{member.name} may have {member.max_items} entries, not {len(value)}.")
        return []
    if len(json.encode(value)) > member.max_length:
        faults.fault(place, "too_long", f"{member.name} may take {member.max_length:,} bytes as JSON.")
    return value


def _custom_fields(faults: Faults, member: Field, value: Any, place: str, before: Any = None) -> dict[str, Any]:
    if not isinstance(value, dict):
        faults.wrong_type(place, member, "an object of field keys and values", value)
        return {}
    for key, entry in value.items():
        _custom_entry(faults, key, entry, f"{place}/{escape_pointer(key)}")
    merged: dict[str, Any] = merge_patch(before or {}, value)
    if len(merged) > MAX_CUSTOM_FIELDS:
        faults.fault(place, "too_many", f"At most {MAX_CUSTOM_FIELDS} custom fields are allowed.")
    return merged


def _custom_entry(faults: Faults, key: str, entry: Any, place: str) -> None:
    if _CUSTOM_KEY.fullmatch(key) is None:
        faults.fault(
            place,
            "invalid_key",
            f"A custom field's key has 1 to {MAX_CUSTOM_KEY} characters, none of [ ] / ~ \" \\, and no $ or space"
            " first.",
        )
    elif isinstance(entry, dict):
        faults.fault(
            place,
            "wrong_type",
            "A custom field holds a string, number, boolean, null or a list of strings, not an object.",
        )
    elif isinstance(entry, list):
        if len(entry) > MAX_CUSTOM_LIST or not all(
            isinstance(item, str) and len(item) <= SIDE_VALUE_LENGTH for item in entry
        ):
            detail = f"A list holds at most {MAX_CUSTOM_LIST} strings of at most {SIDE_VALUE_LENGTH} characters."
            faults.fault(place, "wrong_type", detail)
    elif isinstance(entry, str) and len(entry) > MAX_CUSTOM_TEXT:
        faults.fault(place, "too_long", f"A custom text field may have {MAX_CUSTOM_TEXT:,} characters.")
    elif isinstance(entry, int | float) and not isinstance(entry, bool) and abs(entry) > MAX_INTEGER:
        faults.fault(place, "out_of_range", "A number must lie between -(2^53-1) and 2^53-1.")


def _record(faults: Faults, member: Field, value: Any, place: str, before: Any = None) -> dict[str, Any]:
    if not isinstance(value, dict):
        faults.wrong_type(place, member, "an object", value)
        return {}
    by_name = {item.name: item for item in member.members}
    result: dict[str, Any] = {}
    for key, entry in value.items():
        if key not in by_name:
            faults.unknown(f"{place}/{escape_pointer(key)}", key, by_name, member.noun)
        elif entry is not None or by_name[key].required:
            result[key] = check_value(faults, by_name[key], entry, f"{place}/{key}")
    for item in member.members:
        if item.name not in result:
            if item.required:
                faults.fault(f"{place}/{item.name}", "required", f"{item.name} is required.")
            result[item.name] = copy_of(item.default)
    return result


def _records(faults: Faults, member: Field, value: Any, place: str, before: Any = None) -> list[dict[str, Any]]:
    if not isinstance(value, list) or len(value) > member.max_items:
        faults.wrong_type(place, member, f"a list of at most {member.max_items} objects", value)
        return []
    return [_record(faults, member, entry, f"{place}/{index}") for index, entry in enumerate(value)]


_CHECKS: Final[Mapping[str, Callable[[Faults, Field, Any, str, Any], Any]]] = MappingProxyType(
    {
        "id": _one_id,
        "ref": _one_id,
        "user": _user,
        "text": _text_value,
        "key": _text_value,
        "enum": _enum,
        "bool": _boolean,
        "integer": _integer,
        "number": _number,
        "time": _moment,
        "day": _day,
        "strings": _strings,
        "refs": _refs,
        "custom": _custom_fields,
        "object": _json_object,
        "filter": _filter_document,
        "list": _records,
        "record": _record,
        "zone": _zone,
        "document": _document,
        "documents": _documents,
    }
)
"""By the kind of a member: what looks at its values."""
