"""What a resource is: one declaration from which validation, JSON Schema, SQL columns and filters all follow.

Why one declaration: a field that is validated, stored, documented and filtered by four different lists will sooner or
later differ in one of them.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Literal

from taskade_server.kit import ids, json, text, time
from taskade_server.kit.errors import MAX_ISSUES, Issue, did_you_mean

Kind = Literal[
    "id", "ref", "user", "text", "key", "enum", "bool", "integer", "number", "time", "day",
    "strings", "refs", "custom", "object", "filter", "list", "record",
]  # fmt: skip

MAX_CUSTOM_FIELDS: Final = 100
MAX_CUSTOM_KEY: Final = 64
MAX_CUSTOM_TEXT: Final = 5_000
MAX_CUSTOM_LIST: Final = 100
MAX_INTEGER: Final = 2**53 - 1
SIDE_VALUE_LENGTH: Final = 200
CUSTOM_KEY: Final = r'[^\x00-\x1f\x7f\[\]$/~"\\][^\x00-\x1f\x7f\[\]/~"\\]{0,63}'
_CUSTOM_KEY: Final = re.compile(CUSTOM_KEY)
_NESTED: Final = frozenset({"custom", "object", "filter", "list", "record"})
_MULTIPLE: Final = frozenset({"strings", "refs", "custom"})
_CONVERTERS: Final[dict[str, Callable[[Any], Any]]] = {
    "time": lambda value: None if value is None else time.parse_ms(value),
    "day": lambda value: None if value is None else time.parse_ms(value),
    "bool": lambda value: None if value is None else int(value),
    "number": lambda value: None if value is None else float(value),
}

REGISTRY: Final[dict[str, "Resource"]] = {}


@dataclass(frozen=True)
class Field:
    """One member of a resource's JSON document.

    `kind` decides validation and storage; `writable=False` members are ignored in bodies,
    so that a client can send back
    what it read. `column=False` keeps a member in the document only. `default` is what create uses when it is absent.
    """

    name: str
    kind: Kind
    description: str
    example: Any = None
    required: bool = False
    nullable: bool = True
    writable: bool = True
    create_only: bool = False
    default: Any = None
    min_length: int = 0
    max_length: int = 200
    values: tuple[str, ...] = ()
    target: str = ""
    minimum: float | None = None
    maximum: float | None = None
    pattern: str = ""
    filterable: bool = True
    sortable: bool = False
    folded: bool = False
    column: bool = True
    narrow: bool = False
    """An index starts with it: equal rows are few and found at once (`project_id`)."""
    indexed: str = ""
    """An index goes on with it behind `workspace_id`, and then with the member named here, or with itself alone."""
    hidden: bool = False
    filled: bool = False
    """The server supplies it where a client does not: null may be sent, but never comes back."""
    members: tuple["Field", ...] = ()
    max_items: int = 100

    @cached_property
    def check(self) -> str:
        """The method of a Checker that looks at its values."""
        return f"_{self.kind}"

    @cached_property
    def nested(self) -> bool:
        """Whether the value is a JSON object or a list of objects."""
        return self.kind in _NESTED

    @cached_property
    def multiple(self) -> bool:
        """Whether the values live in the side table, one row each."""
        return self.column and self.kind in _MULTIPLE

    @cached_property
    def stored(self) -> bool:
        """Whether the resource's table has a typed column for it."""
        return self.column and not self.nested and self.kind not in _MULTIPLE

    def sql_columns(self) -> list[tuple[str, str]]:
        """Column names and type tokens: (`due_date`, `bigint`), (`name_folded`, `text`)."""
        if not self.stored:
            return []
        kinds = {
            "number": "real",
            "integer": "bigint",
            "bool": "bigint",
            "enum": "bigint",
            "time": "bigint",
            "day": "bigint",
        }
        columns = [(self.name, kinds.get(self.kind, "text"))]
        return [*columns, (f"{self.name}_folded", "text")] if self.folded else columns

    @cached_property
    def place(self) -> str:
        """Where it stands in a document, as a JSON Pointer."""
        return f"/{self.name}"

    @cached_property
    def converter(self) -> Callable[[Any], Any] | None:
        """Makes the document's value what the typed column holds; None where that is the same."""
        if self.kind == "enum":
            places: dict[str | None, int | None] = {value: place for place, value in enumerate(self.values)}
            return {None: None, **places}.__getitem__
        return _CONVERTERS.get(self.kind)

    def to_column(self, value: Any) -> Any:
        """The document's value as the typed column holds it."""
        return value if self.converter is None else self.converter(value)

    def side_rows(self, value: Any) -> Iterable[tuple[str, str, float | None]]:
        """The side table's (field, value, number) rows of a multi-valued member."""
        if self.kind == "custom":
            for key, entry in (value or {}).items():
                for single in entry if isinstance(entry, list) else [entry]:
                    yield (f".{key}", *side_value(single))
        else:
            for single in value or ():
                yield (self.name, single, None)


def side_value(value: Any) -> tuple[str, float | None]:
    """A scalar as the side table compares it: canonical text, and the number if it is one."""
    if isinstance(value, bool):
        return ("true" if value else "false"), None
    if isinstance(value, int | float):
        number = float(value)
        return (str(int(number)) if number.is_integer() and abs(number) <= MAX_INTEGER else repr(number)), number
    text_value = str(value)
    if len(text_value) > SIDE_VALUE_LENGTH:
        # Index entries stay small; the digest keeps equality exact.
        text_value = text_value[:160] + hashlib.blake2b(text_value.encode(), digest_size=20).hexdigest()
    return text_value, None


@dataclass(frozen=True)
class Relation:
    """Something `include=` can expand. `replaces`: the expanded object takes the place of the id under that name.

    kind `one`: `source` holds an id; `many`: it holds ids; `reverse`: the rows of `target` whose `source` is this id.
    """

    name: str
    target: str
    kind: Literal["one", "many", "reverse"]
    source: str
    description: str
    replaces: bool = False


@dataclass(frozen=True)
class Resource:
    """One kind of thing. `visibility` names the access rule; `search` the members that `q=` reads."""

    name: str
    plural: str
    prefix: str
    description: str
    own: tuple[Field, ...]
    visibility: Literal["workspace", "project", "self", "shared", "owner", "member", "managed"]
    relations: tuple[Relation, ...] = ()
    search: tuple[str, ...] = ()
    alternate_keys: tuple[str, ...] = ()
    trash: bool = True
    lasting: bool = False
    """Stays in the trash for ever, because others refer to it."""
    event_names: Mapping[str, str] = field(default_factory=dict)
    narrower_events: Mapping[str, str] = field(default_factory=dict)
    """Types that say more exactly what a change was, and in words what: `task.completed` beside `task.updated`."""
    scope: str = ""
    project_column: str = ""
    private: tuple[tuple[str, str], ...] = ()
    """Columns that are not in the document (name, type token), such as a key's hash."""
    grants: tuple[str, ...] = ()
    """Members whose change alters what somebody may see (`*`: any); it invalidates cached principals."""

    def __post_init__(self) -> None:
        REGISTRY[self.name] = self

    @cached_property
    def fields(self) -> dict[str, Field]:
        """All members in document order: flat ones first, so that a nested key can never be mistaken for one."""
        flat = [item for item in self.own if not item.nested]
        nested = [item for item in self.own if item.nested]
        head = [Field("id", "id", f"Unique id of the {self.name}.", f"{self.prefix}_01j9zq3v5kfg8wt2m4n6p8r0s2",
                      target=self.name, nullable=False, create_only=True, narrow=True)]  # fmt: skip
        if "workspace_id" not in {item.name for item in self.own}:
            head.append(_WORKSPACE_ID)
        tail = [*_TAIL, _DELETED_AT] if self.trash else _TAIL
        return {item.name: item for item in [*head, *flat, *tail, *nested]}

    @cached_property
    def stored(self) -> list[Field]:
        """The members that have a column."""
        return [item for item in self.fields.values() if item.stored]

    @cached_property
    def multiple(self) -> list[Field]:
        """The members that live in the side table."""
        return [item for item in self.fields.values() if item.multiple]

    @cached_property
    def columns(self) -> list[tuple[str, str]]:
        """Every typed column with its type token, in table order (without `n`, `doc` and `search`)."""
        return [column for item in self.stored for column in item.sql_columns()] + list(self.private)

    @cached_property
    def side_table(self) -> str:
        """The table of multi-valued members."""
        return f"{self.name}_values"

    @cached_property
    def includes(self) -> dict[str, Relation]:
        """Relations by the name that `include=` takes."""
        return {relation.name: relation for relation in self.relations}

    @cached_property
    def filterable(self) -> dict[str, Field]:
        """Members that a filter may name."""
        return {
            name: item
            for name, item in self.fields.items()
            if item.filterable and not item.hidden and (item.stored or item.multiple)
        }

    @cached_property
    def public(self) -> list[str]:
        """Names of the members that clients see."""
        return [item.name for item in self.fields.values() if not item.hidden]

    @cached_property
    def writable(self) -> dict[str, Field]:
        """Members that a body may set."""
        return {item.name: item for item in self.fields.values() if item.writable}

    @cached_property
    def required(self) -> list[str]:
        """Names of the members that a new one must be given."""
        return [item.name for item in self.writable.values() if item.required]

    @cached_property
    def _defaults(self) -> dict[str, Any]:
        return {item.name: item.default for item in self.writable.values() if not item.required and item.name != "id"}

    @cached_property
    def _inner_defaults(self) -> list[tuple[str, Any]]:
        return [(name, value) for name, value in self._defaults.items() if isinstance(value, dict | list)]

    def defaults(self) -> dict[str, Any]:
        """What a new one has of the members that need not be given; to be changed at will."""
        found = self._defaults.copy()
        for name, value in self._inner_defaults:
            found[name] = _copy(value)
        return found

    @cached_property
    def _converters(self) -> list[tuple[str, Callable[[Any], Any] | None]]:
        return [pair for item in self.stored for pair in _converters(item)]

    def to_columns(self, doc: Mapping[str, Any], private: Mapping[str, Any]) -> list[Any]:
        """The row of a document, in the order of `columns`."""
        row = [doc[name] if convert is None else convert(doc[name]) for name, convert in self._converters]
        return row + [private.get(name) for name, _ in self.private]

    def column_values(self, member: Field, doc: Mapping[str, Any]) -> list[Any]:
        """The values of one member's columns, in the order of its `sql_columns`."""
        return [doc[name] if convert is None else convert(doc[name]) for name, convert in _converters(member)]

    def side_rows(self, doc: Mapping[str, Any]) -> set[tuple[str, str, float | None]]:
        """All side-table rows of a document, as (field, value, number)."""
        return {row for item in self.multiple if doc[item.name] for row in item.side_rows(doc[item.name])}

    def search_text(self, doc: Mapping[str, Any]) -> str:
        """The words of the searchable members, separated by spaces."""
        return " ".join(text.tokens(*[doc[name] or "" for name in self.search]))

    @cached_property
    def table(self) -> str:
        """The table of its rows."""
        return self.plural.replace("-", "_")

    def alters_grants(self, before: Mapping[str, Any] | None, doc: Mapping[str, Any]) -> bool:
        """Whether a change of this resource may alter what somebody sees."""
        if "*" in self.grants:
            return True
        return any((before or {}).get(name, self.fields[name].default) != doc[name] for name in self.grants)

    @cached_property
    def actions(self) -> tuple[str, ...]:
        """What can happen to one."""
        return ("created", "updated", "deleted", *(("restored",) if self.trash else ()),
                *(() if self.lasting or not self.trash else ("purged",)))  # fmt: skip

    def event_type(self, action: str) -> str:
        """`task.updated`; a resource may name its events otherwise."""
        return self.event_names.get(action, f"{self.name}.{action}")


def _converters(item: Field) -> list[tuple[str, Callable[[Any], Any] | None]]:
    """For each column of a member: which document member it comes from and how."""
    if item.folded:
        return [(item.name, None), (item.name, _folded)]
    return [(item.name, item.converter)]


def _folded(value: str | None) -> str | None:
    return None if value is None else text.fold(value)


_WORKSPACE_ID = Field("workspace_id", "ref", "The workspace it belongs to.", target="workspace", create_only=True,
                      filled=True)  # fmt: skip
_TAIL = [
    Field("created_by", "user", "The user who created it.", target="user", writable=False),
    Field("created_at", "time", "When it was created.", "2024-01-15T10:30:00.000Z", writable=False, nullable=False,
          sortable=True, indexed="created_at"),
    Field("updated_at", "time", "When it last changed.", "2024-01-15T10:30:00.000Z", writable=False, nullable=False,
          sortable=True, indexed="updated_at"),
    Field("version", "integer", "Counts its changes from 1; also its ETag.", 1, writable=False, nullable=False),
]  # fmt: skip
_DELETED_AT = Field(
    "deleted_at",
    "time",
    "When it went to the trash; null while it is live.",
    writable=False,
    filterable=False,
)


# ---- validation -----------------------------------------------------------------------------------------------------


class Checker:
    """Collects every fault of a body; `pointer` is where the checked document stands inside the body."""

    def __init__(self, pointer: str = "") -> None:
        self.pointer = pointer
        self.issues: list[Issue] = []

    def fault(self, place: str, code: str, detail: str) -> None:
        """Note a fault at a place below the checked document; those beyond the hundredth are not told."""
        if len(self.issues) <= MAX_ISSUES:
            self.issues.append(Issue(code, detail, pointer=self.pointer + place))

    def body(
        self,
        resource: Resource,
        body: Any,
        *,
        creating: bool,
        extra: Iterable[str] = (),
        current: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The valid members of a create or merge-patch body; faults are collected, read-only members are skipped."""
        if not isinstance(body, dict):
            self.fault("", "wrong_type", f"Must be a JSON object with the members of a {resource.name}.")
            return {}
        result: dict[str, Any] = resource.defaults() if creating else {}
        allowed = set(extra)
        for key, value in body.items():
            member = resource.fields.get(key)
            if member is None or member.hidden:
                # What an include added to a document may come back with it.
                if key not in allowed and (creating or key not in resource.includes):
                    self.unknown(f"/{json.escape_pointer(key)}", key, [*resource.writable, *allowed], resource.name)
            elif member.writable and (creating or not member.create_only):
                before = None if current is None else current.get(key)
                result[key] = self.value(member, value, member.place, before)
            elif member.create_only and not creating and current is not None and value != current.get(key):
                self.fault(f"/{key}", "read_only", f"{key} cannot change after creation.")
        if creating:
            for name in resource.required:
                if name not in body:
                    self.fault(f"/{name}", "required", f"{name} is required.")
        return result

    def unknown(self, place: str, key: str, allowed: Iterable[str], noun: str) -> None:
        """Note a member that does not exist, with the nearest one that does."""
        if len(self.issues) > MAX_ISSUES:
            return
        names = sorted(set(allowed))
        hint = did_you_mean(key, names)
        self.fault(place, "unknown_field", f'A {noun} has no member "{key[:80]}".{hint} Allowed: {", ".join(names)}.')

    def value(self, member: Field, value: Any, place: str, before: Any = None) -> Any:
        """One member's normalised value, or None after noting what is wrong with it."""
        if value is None:
            if not member.nullable:
                if member.nested or member.multiple:
                    return _copy(member.default)
                self.fault(place, "required", f"{member.name} must not be null.")
            return _copy(member.default) if member.nested or member.multiple else None
        return getattr(self, member.check)(member, value, place, before)

    def _text(self, member: Field, value: Any, place: str, before: Any = None) -> Any:
        if not isinstance(value, str):
            return self._wrong(place, member, "a string", value)
        if len(value) > member.max_length:
            self.fault(
                place,
                "too_long",
                f"{member.name} has {len(value):,} characters; {member.max_length:,} are allowed.",
            )
        elif len(value.strip()) < member.min_length:
            self.fault(place, "too_short", f"{member.name} must not be empty.")
        elif member.pattern and not re.fullmatch(member.pattern, value):
            self.fault(place, "invalid_format", f"{member.name} must match {member.pattern}.")
        return value

    _key = _text

    def _id(self, member: Field, value: Any, place: str, before: Any = None) -> str | None:
        value = _unexpanded(value)
        prefix = REGISTRY[member.target].prefix
        if not isinstance(value, str) or not ids.is_id(value, prefix):
            self.fault(
                place,
                "invalid_id",
                f"Must be an id of the form {prefix}_ and 26 characters of a UUIDv7 in base32.",
            )
            return None
        return value

    _ref = _id

    def _user(self, member: Field, value: Any, place: str, before: Any = None) -> Any:
        value = _unexpanded(value)
        if not isinstance(value, str) or not value or len(value) > 320:
            return self._wrong(place, member, "a user's id, handle or e-mail", value)
        return value

    def _enum(self, member: Field, value: Any, place: str, before: Any = None) -> str | None:
        if value not in member.values or not isinstance(value, str):
            hint = did_you_mean(str(value), member.values)
            self.fault(place, "not_allowed", f"{member.name} must be one of {', '.join(member.values)}.{hint}")
            return None
        return value

    def _bool(self, member: Field, value: Any, place: str, before: Any = None) -> Any:
        return value if isinstance(value, bool) else self._wrong(place, member, "true or false", value)

    def _integer(self, member: Field, value: Any, place: str, before: Any = None) -> Any:
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # 1.0 is a whole number in JSON, too
        if isinstance(value, bool) or not isinstance(value, int):
            return self._wrong(place, member, "a whole number", value)
        return self._number(member, value, place)

    def _number(self, member: Field, value: Any, place: str, before: Any = None) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return self._wrong(place, member, "a number", value)
        low = -MAX_INTEGER if member.minimum is None else member.minimum
        high = MAX_INTEGER if member.maximum is None else member.maximum
        if not low <= value <= high:
            self.fault(place, "out_of_range", f"{member.name} must lie between {low:g} and {high:g}.")
        return value

    def _day(self, member: Field, value: Any, place: str, before: Any = None) -> Any:
        if not isinstance(value, str):
            return self._wrong(place, member, "a date or a time", value)
        try:
            return time.normalize(value)
        except ValueError as error:
            self.fault(place, "invalid_date", f"{member.name}: {error}.")
            return None

    def _time(self, member: Field, value: Any, place: str, before: Any = None) -> str | None:
        normal = self._day(member, value, place)
        return time.format_ms(time.parse_ms(normal)) if normal else None

    def _strings(self, member: Field, value: Any, place: str, before: Any = None) -> list[str]:
        if not isinstance(value, list):
            self._wrong(place, member, "a list of strings", value)
            return []
        if len(value) > member.max_items:
            self.fault(place, "too_many", f"{member.name} may have {member.max_items} entries, not {len(value)}.")
            return []
        for index, entry in enumerate(value):
            if not isinstance(entry, str) or not entry.strip() or len(entry) > member.max_length or "," in entry:
                self.fault(f"{place}/{index}", "invalid_format",
                           f"Must be a string of 1 to {member.max_length} characters without a comma.")  # fmt: skip
                return []
        return list(dict.fromkeys(value))

    def _refs(self, member: Field, value: Any, place: str, before: Any = None) -> list[str]:
        if not isinstance(value, list) or len(value) > member.max_items:
            self._wrong(place, member, f"a list of at most {member.max_items} ids", value)
            return []
        found = [self._id(member, entry, f"{place}/{index}") for index, entry in enumerate(value)]
        return list(dict.fromkeys(entry for entry in found if entry))

    def _object(self, member: Field, value: Any, place: str, before: Any = None) -> dict[str, Any]:
        if not isinstance(value, dict):
            self._wrong(place, member, "an object", value)
            return {}
        merged: dict[str, Any] = merge_patch(before or {}, value)
        if len(json.encode(merged)) > member.max_length:
            self.fault(place, "too_long", f"{member.name} may take {member.max_length:,} bytes as JSON.")
        return merged

    def _filter(self, member: Field, value: Any, place: str, before: Any = None) -> dict[str, Any] | None:
        """A condition replaces the former one whole: to merge two would make a third that nobody wrote."""
        if not isinstance(value, dict) or not value:
            return self._wrong(place, member, "an object with conditions, or null", value)  # type: ignore[no-any-return]
        if len(json.encode(value)) > member.max_length:
            self.fault(place, "too_long", f"{member.name} may take {member.max_length:,} bytes as JSON.")
        return value

    def _custom(self, member: Field, value: Any, place: str, before: Any = None) -> dict[str, Any]:
        if not isinstance(value, dict):
            self._wrong(place, member, "an object of field keys and values", value)
            return {}
        for key, entry in value.items():
            self._custom_entry(key, entry, f"{place}/{json.escape_pointer(key)}")
        merged: dict[str, Any] = merge_patch(before or {}, value)
        if len(merged) > MAX_CUSTOM_FIELDS:
            self.fault(place, "too_many", f"At most {MAX_CUSTOM_FIELDS} custom fields are allowed.")
        return merged

    def _custom_entry(self, key: str, entry: Any, place: str) -> None:
        if _CUSTOM_KEY.fullmatch(key) is None:
            self.fault(
                place,
                "invalid_key",
                f"A custom field's key has 1 to {MAX_CUSTOM_KEY} characters, none of [ ] / ~ \" \\, no $ first.",
            )
        elif isinstance(entry, dict):
            self.fault(
                place,
                "wrong_type",
                "A custom field holds a string, number, boolean, null or a list of strings, not an object.",
            )
        elif isinstance(entry, list):
            if len(entry) > MAX_CUSTOM_LIST or not all(
                isinstance(item, str) and len(item) <= SIDE_VALUE_LENGTH for item in entry
            ):
                detail = f"A list holds at most {MAX_CUSTOM_LIST} strings of at most {SIDE_VALUE_LENGTH} characters."
                self.fault(place, "wrong_type", detail)
        elif isinstance(entry, str) and len(entry) > MAX_CUSTOM_TEXT:
            self.fault(place, "too_long", f"A custom text field may have {MAX_CUSTOM_TEXT:,} characters.")
        elif isinstance(entry, int | float) and not isinstance(entry, bool) and abs(entry) > MAX_INTEGER:
            self.fault(place, "out_of_range", "A number must lie between -(2^53-1) and 2^53-1.")

    def _record(self, member: Field, value: Any, place: str, before: Any = None) -> dict[str, Any]:
        if not isinstance(value, dict):
            self._wrong(place, member, "an object", value)
            return {}
        by_name = {item.name: item for item in member.members}
        result: dict[str, Any] = {}
        for key, entry in value.items():
            if key not in by_name:
                self.unknown(f"{place}/{json.escape_pointer(key)}", key, by_name, member.name)
            else:
                result[key] = self.value(by_name[key], entry, f"{place}/{key}")
        for item in member.members:
            if item.name not in result:
                if item.required:
                    self.fault(f"{place}/{item.name}", "required", f"{item.name} is required.")
                result[item.name] = _copy(item.default)
        return result

    def _list(self, member: Field, value: Any, place: str, before: Any = None) -> list[dict[str, Any]]:
        if not isinstance(value, list) or len(value) > member.max_items:
            self._wrong(place, member, f"a list of at most {member.max_items} objects", value)
            return []
        return [self._record(member, entry, f"{place}/{index}") for index, entry in enumerate(value)]

    def _wrong(self, place: str, member: Field, expected: str, value: Any) -> Any:
        found = (
            "null"
            if value is None
            else {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}.get(type(value), "a number")
        )
        self.fault(place, "wrong_type", f"{member.name} must be {expected}, not {found}.")


def _unexpanded(value: Any) -> Any:
    """The id of a reference that an include has expanded, so that a client can send back what it read."""
    return value["id"] if isinstance(value, dict) and isinstance(value.get("id"), str) else value


def merge_patch(target: Any, patch: Any) -> Any:
    """JSON merge patch (RFC 7396): members merge, null removes, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def _copy(value: Any) -> Any:
    kind = type(value)
    if kind is list or kind is dict:
        return json.decode(json.encode(value)) if value else kind()
    return value
