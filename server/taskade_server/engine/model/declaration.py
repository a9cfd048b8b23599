"""A kind of resource: its members, relations, events, and the tables that hold it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from operator import itemgetter
from typing import Any, Final, Literal, NoReturn

from taskade_server.engine.model.documents import copy_of
from taskade_server.engine.model.fields import Field
from taskade_server.kit import json, text
from taskade_server.kit.budget import Budget


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
    """Types that say more exactly what a change was (`task.completed` beside `task.updated`), and what one then did, as
    words that go behind "A task"."""
    scope: str = ""
    project_column: str = ""
    private: tuple[tuple[str, str], ...] = ()
    """Columns that are not in the document (name, type token), such as a key's hash."""
    grants: tuple[str, ...] = ()
    """Members whose change alters what somebody may see (`*`: any); it invalidates cached principals."""
    later: tuple[str, ...] = ()
    """Members that a migration has put into the documents of all rows; those that the log keeps of before lack them."""

    @cached_property
    def noun(self) -> str:
        """What one is called in a sentence: `API key`."""
        return self.name.replace("_", " ").replace("api", "API")

    @cached_property
    def nouns(self) -> str:
        """What several are called in a sentence: `API keys`."""
        return self.plural.replace("-", " ").replace("api", "API")

    @cached_property
    def one(self) -> str:
        """The noun with its article: `an API key`."""
        return text.with_article(self.noun)

    @cached_property
    def fields(self) -> dict[str, Field]:
        """All members in document order: flat ones first, so that a nested key can never be mistaken for one."""
        flat = [item for item in self.own if not item.nested]
        nested = [item for item in self.own if item.nested]
        head = [
            Field(
                "id",
                "id",
                f"Unique id of the {self.noun}.",
                f"{self.prefix}_01j9zq3v5kfg8wt2m4n6p8r0s2",
                target=self.name,
                nullable=False,
                create_only=True,
                narrow=True,
            )
        ]
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
    def folded(self) -> list[int]:
        """Where among `columns` those stand that hold a folded text or its sort key."""
        names = {f"{item.name}_{part}" for item in self.stored if item.folded for part in ("folded", "sort")}
        return [place for place, (name, _) in enumerate(self.columns) if name in names]

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
        """Members that the body of a new one may set."""
        return {item.name: item for item in self.fields.values() if item.writable and not item.hidden}

    @cached_property
    def changeable(self) -> dict[str, Field]:
        """Members that the body of a change may set."""
        return {name: item for name, item in self.writable.items() if not item.create_only}

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
            found[name] = copy_of(value)
        return found

    @cached_property
    def _members_of_columns(self) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
        """Takes from a document, for each column but the private ones, the member that it is made of."""
        return itemgetter(*[item.name for item in self.stored for _ in item.sql_columns()])

    @cached_property
    def _conversions(self) -> list[tuple[int, Callable[[Any], Any]]]:
        """The places of the columns that hold something else than their member, and what makes it of the member."""
        converters = [convert for item in self.stored for convert in _converters(item)]
        return [(place, convert) for place, convert in enumerate(converters) if convert is not None]

    def to_columns(self, doc: Mapping[str, Any], private: Mapping[str, Any]) -> list[Any]:
        """The row of a document, in the order of `columns`."""
        row = list(self._members_of_columns(doc))
        for place, convert in self._conversions:
            if (value := row[place]) is not None:
                row[place] = convert(value)
        return row + [private.get(name) for name, _ in self.private]

    def column_values(self, member: Field, doc: Mapping[str, Any]) -> list[Any]:
        """The values of one member's columns, in the order of its `sql_columns`."""
        value = doc[member.name]
        return [value if value is None or convert is None else convert(value) for convert in _converters(member)]

    def side_rows(self, doc: Mapping[str, Any]) -> set[tuple[str, str, float | None]]:
        """All side-table rows of a document, as (field, value, number)."""
        return {row for item in self.multiple if doc[item.name] for row in item.side_rows(doc[item.name])}

    def completed(self, document: str) -> str:
        """A document from the log as a migration has made it of the row: with what it lacks, behind its id."""
        members = json.decode(document) if self.later else {}
        added = [name for name in self.later if name not in members]
        if not added:
            return document
        place = len('{"id":""') + len(members["id"])
        texts = [f",{json.encode(name)}:{json.encode(self.fields[name].default)}" for name in added]
        return document[:place] + "".join(texts) + document[place:]

    def words(self, doc: Mapping[str, Any], budget: Budget | None = None) -> list[str]:
        """The words of the searchable members; what finding them costs is taken from the budget."""
        return text.tokens(*[doc[name] or "" for name in self.search], budget=budget)

    def search_text(self, doc: Mapping[str, Any]) -> str:
        """The words of the searchable members, separated by spaces."""
        return " ".join(self.words(doc))

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
        return (
            "created",
            "updated",
            "deleted",
            *(("restored",) if self.trash else ()),
            *(() if self.lasting or not self.trash else ("purged",)),
        )

    def event_type(self, action: str) -> str:
        """`task.updated`; a resource may name its events otherwise."""
        return self.event_names.get(action, f"{self.name}.{action}")


def _converters(item: Field) -> list[Callable[[Any], Any] | None]:
    """What makes each column of a member from its value, unless that is null; None where both are the same."""
    return [None, text.fold, _sorted] if item.folded else [item.converter]


def _sorted(value: str) -> str | None:
    """What a text is sorted by, None if that is what it is folded to: most names have no accents and no numbers."""
    if text.sorts_as_folded(value):
        return None
    key = text.sort_key(value)
    return None if key == text.fold(value) else key


_WORKSPACE_ID = Field(
    "workspace_id", "ref", "The workspace it belongs to.", target="workspace", create_only=True, filled=True
)

_TAIL = [
    Field("created_by", "user", "The user who created it.", target="user", writable=False),
    Field(
        "created_at",
        "time",
        "When it was created.",
        "2024-01-15T10:30:00.000Z",
        writable=False,
        nullable=False,
        sortable=True,
        indexed="created_at",
    ),
    Field(
        "updated_at",
        "time",
        "When it last changed.",
        "2024-01-15T10:30:00.000Z",
        writable=False,
        nullable=False,
        moving=True,
        sortable=True,
        indexed="updated_at",
    ),
    Field(
        "version",
        "integer",
        "Rises with each change, from 1; also its ETag.",
        1,
        writable=False,
        nullable=False,
        moving=True,
    ),
]

_DELETED_AT = Field(
    "deleted_at",
    "time",
    "When it went to the trash; null while it is live.",
    writable=False,
    filterable=False,
)


class Registry(dict[str, Resource]):
    """The kinds of resources by name, for whoever acts on any of them; `domain/resources.py` registers them all."""

    def register(self, *resources: Resource) -> None:
        """Add some kinds; ValueError if another kind has the name or the prefix of one of them."""
        for resource in resources:
            for known in self.values():
                if known is not resource and (known.name == resource.name or known.prefix == resource.prefix):
                    raise ValueError(f"{known.name} and {resource.name} have a name or a prefix in common")
            self[resource.name] = resource

    def __missing__(self, name: str) -> NoReturn:
        raise KeyError(f'no resource "{name}" is registered; load taskade_server.domain.resources to have them all')


REGISTRY: Final = Registry()
