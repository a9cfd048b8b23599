"""What the program says of itself is English: every text that is put together from names is looked at.

Why by generating them: nobody reads "a api_key" while writing `f"a {name}"`; only all names together show it.
"""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from taskade_server.engine import events, filters
from taskade_server.engine.model import REGISTRY, Checker
from taskade_server.http.api.routing import Table
from taskade_server.http.documents import asyncapi, openapi
from taskade_server.http.routes import all_routes
from taskade_server.kit import ids, text
from taskade_server.kit.errors import Invalid, Issue, did_you_mean, problem_classes

SPELLED_WITH_A_VOWEL = frozenset("AEFHILMNORSX")
"""Letters whose names begin with a vowel: an RRULE, an SSE stream."""
SAID_AS_WORDS = frozenset({"JSON", "NUL", "SHA", "POST", "PUT", "GET", "MIB", "LIKE", "NAN", "HEAD", "SQL", "NAME"})
YOU = re.compile(r"(uni(?!n)|use|usu|uti|eu|one\b|once|u[rtsu][lcid])", re.IGNORECASE)
SILENT_H = re.compile(r"(hour|honest|heir)", re.IGNORECASE)
DOUBLED = re.compile(r"\b([A-Za-z]{2,}) \1\b")
MAY_DOUBLE = frozenset({"that", "had"})
JUNK: list[Any] = [None, 5, 1.5, True, "", " ", "x" * 101_000, "\u200b", [], [5], [""], {}, {"a": {"b": 1}}, {"": 1}]


def faults(said: str) -> Iterator[str]:
    """What is wrong with a text, as far as a machine can tell."""
    plain = re.sub(r"`[^`]*`|\"[^\"]*\"", "X_", said)
    for article, word in re.findall(r"\b([Aa]n?) ([A-Za-z][\w-]*)", plain):
        if word in ("X_", "and", "or", "is", "of", "to", "time") or word.startswith("X_"):
            continue
        capitals = word.isupper() and len(word) > 1 and word not in SAID_AS_WORDS
        vowel = (
            word[0] in SPELLED_WITH_A_VOWEL
            if capitals
            else ((word[0].lower() in "aeiou" and not YOU.match(word)) or bool(SILENT_H.match(word)))
        )
        if (article.lower() == "an") != vowel:
            yield f'"{article} {word}"'
    yield from (f'"{word} {word}"' for word in DOUBLED.findall(plain) if word.lower() not in MAY_DOUBLE)
    yield from re.findall(r"\b(?:1|[Oo]ne) (?:faults|tasks|members|entries|operations|requests|processes)\b", plain)
    yield from re.findall(r"\b(?:a|an|A|An) [a-z]+_[a-z_]+ has\b", plain)
    yield from re.findall(r"\w {2,}\w| [,;:.](?= |$)|\.\.(?!\.)(?<!\.\.\.)(?=\s|$)|[;,]\.", plain)
    if "\n" not in said and re.search(r"(?<![.])\. [a-z]", plain):
        yield "a sentence in lower case"


def texts(node: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Every summary, description and title of a document, with its place."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name in ("summary", "description", "title") and isinstance(value, str):
                yield f"{place}/{name}", value
            elif name not in ("example", "examples", "default"):
                yield from texts(value, f"{place}/{name}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from texts(value, f"{place}/{index}")


def of_bodies() -> Iterator[str]:
    """What is said of every member of every resource when it is wrong."""
    for resource in REGISTRY.values():
        for name in [*resource.fields, "no_such_name", *resource.includes]:
            for junk in JUNK:
                for creating in (True, False):
                    checker = Checker()
                    current = None if creating else {"id": ids.new(resource.prefix)}
                    checker.body(resource, {name: junk}, creating=creating, current=current)
                    yield from (issue.detail for issue in checker.issues)
        checker = Checker()
        checker.body(resource, [], creating=True)
        yield from (issue.detail for issue in checker.issues)
        yield resource.one
        yield f"{text.sentence(resource.nouns)} have no trash."


def of_filters() -> Iterator[str]:
    """What is said of every filter of every resource when it is wrong."""
    for resource in REGISTRY.values():
        for name in [*resource.filterable, "no_such_name", "$gte"]:
            for operator in [*filters.OPERATORS, "$nope", ""]:
                for junk in JUNK:
                    document = {name: {operator: junk}} if operator else {name: junk}
                    for typed in (True, False):
                        parser = filters.Parser(resource, lambda *_: None, 0, typed=typed, prefix="/filter")
                        parser.parse(document)
                        yield from (issue.detail for issue in parser.issues)


def of_paths() -> Iterator[str]:
    table = Table(all_routes())
    for first in [*table.paths(), "me", "todos", "x"]:
        for rest in ("", "/x", "/x/foo", "/x/comments", "/x/tasks", "/x/foo/bar"):
            yield table.near(f"{first}s{rest}")
            yield table.near(f"{first}{rest}")


SAID = {
    "bodies": of_bodies,
    "filters": of_filters,
    "paths": of_paths,
    "errors": lambda: (words for cls in problem_classes() for words in (cls.title, cls.advice, cls.__doc__ or "")),
    "events": lambda: (kind.summary for kind in events.catalogue().values()),
    "hints": lambda: (did_you_mean(word, filters.RESERVED) for word in ("page", "order", "search", "per_page", "x")),
    "the OpenAPI document": lambda: (said for _, said in texts(openapi.document())),
    "the AsyncAPI document": lambda: (said for _, said in texts(asyncapi.document())),
}


@pytest.mark.parametrize("what", SAID)
def test_what_is_said_is_english(what):
    said = {words for words in SAID[what]() if words}
    assert len(said) >= 4
    assert {words[:200]: found for words in said if (found := list(faults(words)))} == {}


@pytest.mark.parametrize(
    "said",
    [
        "A api_key has no member.",
        "Something happened to a API key.",
        "An task.",
        "It is is gone.",
        "It has 1 faults.",
        "The body has one faults.",
        "An user.",
        "A hour.",
        "Gone ; said.",
        "It is gone.. Go on.",
    ],
)
def test_what_is_not_english_is_found(said):
    assert list(faults(said))


@pytest.mark.parametrize(
    "said",
    ["An API key, a user, a URL, an hour, an RRULE, a JSON document, an e-mail, a one-off, a unit, an unseen one."],
)
def test_what_is_english_is_left_alone(said):
    assert list(faults(said)) == []


def test_one_fault_speaks_for_itself():
    issue = Issue("required", "name is required.", pointer="/name")
    assert Invalid(errors=[issue]).detail == "name is required."
    assert Invalid(errors=[issue, issue]).detail == "The request has 2 faults; `errors` lists them."
    assert Invalid(errors=[Issue("x", "It is wrong.", pointer="/a/b")]).detail == "It is wrong (at /a/b)."
    for cls in problem_classes():
        assert cls().detail != cls.title, "who prints the detail alone learns something"


def test_a_message_names_the_field_that_it_is_about():
    for resource in REGISTRY.values():
        for name in resource.writable:
            for junk in JUNK:
                checker = Checker()
                checker.body(resource, {**dict.fromkeys(resource.required, "x"), name: junk}, creating=True)
                for issue in checker.issues:
                    if issue.pointer == f"/{name}":
                        assert name in issue.detail, (resource.name, name, issue.detail)
