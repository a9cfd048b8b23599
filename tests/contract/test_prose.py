"""The text that the server composes for its documents reads as if somebody had written it.

Why read by a machine: descriptions are put together from pieces, a hundred at a time, and nobody reads all of them
before a release. A faulty piece shows by its form: a clause twice, two full stops, a backtick without its partner.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from taskade_server.http.documents import asyncapi, openapi

DOCUMENTS = {"openapi": json.loads(openapi.render()), "asyncapi": json.loads(asyncapi.render())}
PROSE = frozenset(["description", "summary"])
DATA = frozenset(["example", "examples", "default", "enum", "const"])
CODE = re.compile(r"```.*?```|`[^`]*`", re.DOTALL)
LONGEST_REPEAT_WORDS = 4


def texts(node: Any, place: str) -> Iterator[tuple[str, str, str]]:
    """Every (place, "description" or "summary", text) of a document; examples are data, not text."""
    if isinstance(node, list):
        for index, item in enumerate(node):
            yield from texts(item, f"{place}/{index}")
    elif isinstance(node, dict):
        of_names = place.endswith("/properties")  # its keys are the names of members, which may be "description"
        for name, item in node.items():
            if name in PROSE and isinstance(item, str) and not of_names:
                yield f"{place}/{name}", name, item
            elif name not in DATA or of_names:
                yield from texts(item, f"{place}/{name}")


def faults(kind: str, text: str) -> Iterator[str]:
    """What is wrong with the form of one text."""
    text = text.removesuffix("\n")  # a page of Markdown
    plain = CODE.sub("X", text)
    if text != text.strip() or "  " in re.sub(r"\n\s+", "\n", plain):
        yield "spaces that belong nowhere"
    if kind == "description" and not re.search(r"[^.][.]$|```$|\|$", text):
        yield "it does not end in one full stop"
    if re.search(r"(?<!\.)\.\.(?!\.)|,[,.;]|;[.;]| [.,;]", plain):
        yield "punctuation twice, or after a space"
    if text.replace("```", "").count("`") % 2:
        yield "a backtick without its partner"
    if found := re.search(r"\b([a-z]+)\s+\1\b", plain, re.IGNORECASE):
        yield f"a word twice: {found[0]!r}"
    if found := re.search(r"(?<![\w-])None(?! of\b)(?![\w-])|\{\}|\bTrue\b|\bFalse\b|<[a-z]\w* object", plain):
        yield f"a value of the program: {found[0]!r}"
    yield from (f"a clause twice: {clause!r}" for clause in repeated(text))


def repeated(text: str) -> list[str]:
    """Runs of words that one sentence has twice."""
    found = []
    for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z])|\n", text):
        words = re.findall(r"[\w$]+", sentence.lower())
        runs = [" ".join(words[at : at + LONGEST_REPEAT_WORDS]) for at in range(len(words) - LONGEST_REPEAT_WORDS + 1)]
        found += sorted({run for run in runs if runs.count(run) > 1})
    return found


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_text_of_a_document_is_well_formed(name):
    known = {text: (kind, place) for place, kind, text in texts(DOCUMENTS[name], name)}
    assert len(known) > 80, "the texts are elsewhere now: mend this test"
    assert [f"{place}: {fault}: {text}" for text, (kind, place) in known.items() for fault in faults(kind, text)] == []


@pytest.mark.parametrize(
    "text",
    [
        'With `"payload": "thin"`, `data` With `"payload": "thin"`, `data` has the `id` only.',
        "Sent to those that ask; the data has the id; the data has the id only.",
        "It ends twice..",
        "It does not end",
        "Counts as as many requests.",
        "One of `a` and `b.",
        "The default is None.",
        "Starts at {}.",
        "A pause , and a word.",
        " Begins with a space.",
    ],
)
def test_a_garbled_text_is_noticed(text):
    assert list(faults("description", text))
