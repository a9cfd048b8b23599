"""What a route says about itself in the OpenAPI document, beside what follows from its declaration."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from taskade_server.engine.schema import Schema

Examples = Mapping[str, tuple[str, Any]]
"""Bodies of requests by name, each with a summary."""


def _no_schemas() -> Mapping[str, Schema]:
    return {}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a successful response holds, where that is not the route's resource or a list of it."""

    schema: str
    """The name of a schema of the components."""
    description: str
    many: bool = False
    """Whether the body is an array of these."""
    headers: tuple[str, ...] = ()
    """Names of `documents.headers.HEADERS`, beside those that follow from the route's declaration."""
    media: Mapping[str, Schema] = field(default_factory=dict)
    """The content by media type, where that is not JSON; `schema` is then empty."""


@dataclass(frozen=True, slots=True)
class Document:
    """The parts of an operation's documentation that only the route knows."""

    notes: str = ""
    """What a reader has to know beside the summary, in Markdown."""
    body: str = ""
    """The name of the schema of the body."""
    body_required: bool = True
    examples: Examples = field(default_factory=dict)
    """Examples of the body."""
    parameters: Mapping[str, Schema] = field(default_factory=dict)
    """Parameters of the query and headers by the name of their component, beside those of all lists, reads and
    writes."""
    in_path: Mapping[str, Schema] = field(default_factory=dict)
    """Parameters of the path, beside the ids of resources; `{delivery}` is the component `PathDelivery`."""
    answer: Answer | None = None
    problems: tuple[int, ...] = ()
    """Statuses of errors that do not follow from the route's declaration."""
    cached: bool = True
    """Whether a read takes `If-None-Match` and may answer 304."""
    schemas: Callable[[], Mapping[str, Schema]] = _no_schemas
    """Schemas of the components that the route needs, by name. Called when the document is made, since resources are
    declared only one after another."""
