"""One member of a resource: how it is validated, stored and filtered."""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Final, Literal

from taskade_server.kit import time

Kind = Literal[
    "id",
    "ref",
    "user",
    "text",
    "key",
    "enum",
    "bool",
    "integer",
    "number",
    "time",
    "day",
    "strings",
    "refs",
    "custom",
    "object",
    "filter",
    "list",
    "record",
    "zone",
    "document",
    "documents",
]

MAX_INTEGER: Final = 2**53 - 1

SIDE_VALUE_LENGTH: Final = 200
"""The most characters that the side table has of a text."""
SIDE_VALUE_BEGINNING: Final = 160
"""How many characters of a longer one are its beginning; those behind them are the digest of the whole text."""

_NESTED: Final = frozenset({"custom", "object", "filter", "list", "record", "document", "documents"})

_MULTIPLE: Final = frozenset({"strings", "refs", "custom"})


@lru_cache(4096)
def day_column(text: str) -> int:
    """A date or a time as a typed column holds it: twice the epoch milliseconds, and one more for a time.

    So a date is told from the moment at which it begins in UTC, and yet both sort by when they are.
    """
    return 2 * time.parse_ms(text) + (not time.is_date(text))


_CONVERTERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "time": time.parse_ms,
    "day": day_column,
    "bool": int,
    "number": float,
}


@dataclass(frozen=True)
class Field:
    """One member of a resource's JSON document.

    `kind` decides validation and storage. A body may hold `writable=False` members only as they are, so that a client
    can send back what it read. `column=False` keeps a member in the document only. `default` is what a new object has
    if its body leaves the member out.
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
    keys_of: tuple[str, str] | None = None
    """Its values are keys of a list in another object: the member that names that object, and the list's name there."""
    moving: bool = False
    """Read-only, and it changes without the client: what was read of it may be sent back however old it is."""
    explicit: bool = False
    """It gives rights, so that on creation null does not stand for the default, which may be everything."""
    members: tuple["Field", ...] = ()
    max_items: int = 100

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
        return [*columns, (f"{self.name}_folded", "text"), (f"{self.name}_sort", "text")] if self.folded else columns

    @cached_property
    def noun(self) -> str:
        """What one of its entries is called: `status` in `statuses`."""
        return re.sub(r"(?<=us)es$|s$", "", self.name)

    @cached_property
    def place(self) -> str:
        """Where it stands in a document, as a JSON Pointer."""
        return f"/{self.name}"

    @cached_property
    def converter(self) -> Callable[[Any], Any] | None:
        """Makes the document's value, unless it is null, what the typed column holds; None where that is the same."""
        if self.kind == "enum":
            return {value: place for place, value in enumerate(self.values)}.__getitem__
        return _CONVERTERS.get(self.kind)

    def to_column(self, value: Any) -> Any:
        """The document's value as the typed column holds it."""
        return value if value is None or self.converter is None else self.converter(value)

    def side_rows(self, value: Any) -> Iterable[tuple[str, str, float | None]]:
        """The side table's (field, value, number) rows of a multi-valued member."""
        if self.kind == "custom":
            # Each text of a list once: a list may name one a hundred times, which makes a single row.
            value = {key: [*dict.fromkeys(entry)] if isinstance(entry, list) else entry for key, entry in value.items()}
            return [(name, side_value(text), number) for name, text, number in self.side_texts(value)]
        return self.side_texts(value)

    def side_texts(self, value: Any) -> Iterable[tuple[str, str, float | None]]:
        """The (field, text, number) of each value of a multi-valued member: whole texts, however long."""
        if self.kind == "custom":
            for key, entry in (value or {}).items():
                for single in entry if isinstance(entry, list) else [entry]:
                    yield (f".{key}", *canonical(single))
        else:
            for single in value or ():
                yield (self.name, single, None)


def canonical(value: Any) -> tuple[str, float | None]:
    """A scalar as it is compared: its whole text, and the number if it is one."""
    if isinstance(value, bool):
        return ("true" if value else "false"), None
    if isinstance(value, int | float):
        number = float(value)
        return (str(int(number)) if number.is_integer() and abs(number) <= MAX_INTEGER else repr(number)), number
    return str(value), None


def side_value(text: str) -> str:
    """A text as the side table holds it: a long one as its beginning and a digest, SIDE_VALUE_LENGTH characters.

    So index entries stay small. A short text may look like that, too: whoever compares values of this length has to
    look at the whole text in the document.
    """
    if len(text) <= SIDE_VALUE_LENGTH:
        return text
    return text[:SIDE_VALUE_BEGINNING] + hashlib.blake2b(text.encode(), digest_size=20).hexdigest()
