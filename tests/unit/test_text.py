"""What a text is found by and sorted by: any part of a run without spaces finds it, in whatever form it is typed, and
an order is what an oracle that compares letter by letter says.

Why properties beside the table of scripts in the API tests: nobody lists all the places at which a long text is cut, or
all the ways in which the same letters can be encoded.
"""

import unicodedata
from functools import cmp_to_key
from itertools import pairwise
from types import SimpleNamespace
from unittest import mock

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from taskade_server.domain import resources
from taskade_server.engine.filters import begin_words
from taskade_server.engine.model import REGISTRY
from taskade_server.kit import text

from tests.unit.examples import examples

assert resources.RESOURCES, "all resources are declared by now"

# Letters and vowels of each, from the code charts: what a word of the script may hold.
UNSPACED = {
    "Han": [*range(0x4E00, 0x4E80), 0x3005, 0x9F98, 0x20000, 0x2A6D6, 0x3400],
    "kana": [*range(0x3041, 0x3097), *range(0x30A1, 0x30FB), 0x30FC, 0x31F0],
    "Hangul": [*range(0xAC00, 0xAC60), 0xD7A3],
    "bopomofo": [*range(0x3105, 0x3130)],
    "Yi": [*range(0xA000, 0xA040)],
    "Thai": [*range(0x0E01, 0x0E2F), *range(0x0E30, 0x0E3A), *range(0x0E40, 0x0E4D)],
    "Lao": [0x0E81, 0x0E82, 0x0E84, *range(0x0E94, 0x0E98), *range(0x0EB0, 0x0EB9), *range(0x0EC0, 0x0EC5), 0x0EC8],
    "Khmer": [*range(0x1780, 0x17B3), *range(0x17B6, 0x17D3)],
    "Myanmar": [*range(0x1000, 0x1021), *range(0x102B, 0x103F)],
}  # fmt: skip
RUNS = st.sampled_from(sorted(UNSPACED)).flatmap(
    lambda name: st.text(st.sampled_from([chr(code) for code in UNSPACED[name]]), min_size=1, max_size=40)
)
AROUND = st.text(st.sampled_from("ab1é, .-\u200d東ก한"), max_size=8)
INVISIBLE = "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\u00ad\u202a\ufe0f"


def finds(q: str, *texts: str) -> bool:
    words = text.sought(q)
    assert words, q
    return begin_words(words, sorted(text.tokens(*texts)))


# ---- scripts without spaces ------------------------------------------------------------------------------------------


@examples(300)
@given(run=RUNS, before=AROUND, after=AROUND, data=st.data())
def test_any_part_of_a_run_without_spaces_finds_it(run, before, after, data):
    start = data.draw(st.integers(0, len(run) - 1))
    end = data.draw(st.integers(start + 1, len(run)))
    # Canonical order may move a mark across a cut that no writer makes: between marks of one letter.
    assume(unicodedata.normalize("NFD", run[start:end]) in unicodedata.normalize("NFD", run) or end - start == len(run))
    assert finds(run[start:end], f"{before}{run}{after}")


@examples(200)
@given(run=RUNS.filter(lambda run: len(run) >= 2), other=RUNS)
def test_a_run_is_found_only_where_all_its_neighbours_are_neighbours(run, other):
    decomposed = [unicodedata.normalize("NFC", unicodedata.normalize("NFKD", one)) for one in (run, other)]
    pairs = ["".join(pair) for pair in pairwise(decomposed[0])]
    assert not finds(run, other) or all(pair in decomposed[1] for pair in pairs)


@examples(100)
@given(run=RUNS, form=st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]), data=st.data())
def test_neither_the_form_of_letters_nor_what_nobody_sees_matters(run, form, data):
    places = data.draw(st.lists(st.integers(0, len(run)), max_size=5))
    typed = run
    for place in sorted(places, reverse=True):
        typed = typed[:place] + data.draw(st.sampled_from(INVISIBLE)) + typed[place:]
    assume(
        unicodedata.normalize("NFKD", run)
        == unicodedata.normalize("NFKD", typed.translate(dict.fromkeys(map(ord, INVISIBLE))))
    )
    assert set(text.tokens(unicodedata.normalize(form, run))) == set(text.tokens(run))
    if unicodedata.is_normalized("NFD", run):  # otherwise what is in between may keep marks from changing places
        assert set(text.tokens(typed)) == set(text.tokens(run))


@examples(200)
@given(
    texts=st.lists(RUNS | st.text(st.sampled_from("abcéł1 ,-\u0301"), max_size=30), min_size=1, max_size=20),
    size=st.integers(70, 140),
)
def test_where_a_long_text_is_cut_does_not_matter(texts, size):
    """Cut or not, the same searches find it: what one way is found by begins something of the other."""
    whole_text = "".join(texts)
    whole = sorted(text.tokens(whole_text))
    with mock.patch.object(text, "PIECE", size):
        cut = sorted(text.tokens(whole_text))
    assert begin_words(whole, cut)
    assert begin_words(cut, whole) or any(len(word) >= text.MAX_TOKEN_LENGTH for word in whole)


def test_the_pieces_of_a_text_are_bounded():
    long = "".join(chr(0x4E00 + number * number % 20_000) for number in range(100_000))
    found = text.tokens(f"word {long}", long)
    assert len(found) <= text.MAX_TOKENS + text.MAX_PIECES
    assert max(map(len, found)) <= text.MAX_TOKEN_LENGTH


# ---- letters ---------------------------------------------------------------------------------------------------------

SAME = [
    "Łódź lodz",
    "ØRE ore",
    "Đà da",
    "Æsir aesir",
    "cœur coeur",
    "STRAẞE strasse",
    "ılık ilik",
    "İzmir izmir",
    "þorn thorn",
    "ðu du",
    "ħal hal",
    "ŧest test",
    "ŋa na",
    "ɓa ba",
    "Ạ a",
    "ǿ o",
    "ﬁn fin",
    "Ⅷ viii",
    "ⅳ iv",
    "x² x2",
    "½ 1\u20442",
    "ґава гава",
    "Ёж еж",
    "қала кала",
    "ὈΔΌΣ οδοσ",
    "إسلام اسلام",
    "آب اب",
    "مـــا ما",
    "على علي",
    "کتاب كتاب",
    "مدرسة مدرسه",
    "۱۲ 12",
    "१२ 12",
    "๑๒ 12",
    "שָׁ ש",
    "क़लम कलम",
]


@pytest.mark.parametrize("pair", SAME)
def test_letters_that_people_take_for_the_same(pair):
    one, other = pair.split(" ")
    assert text.tokens(one) == text.tokens(other) and text.sort_key(one) == text.sort_key(other)


@pytest.mark.parametrize(
    "pair", ["は ば", "か が", "カ ガ", "가 각", "ข่าว ข้าว", "कि की", "कु को", "ל כ", "و ي", "ь ъ", "と ト"]
)
def test_letters_that_are_different_letters(pair):
    one, other = pair.split(" ")
    assert not finds(one, other) or not finds(other, one)


@examples(200)
@given(st.text(max_size=200))
def test_words_hold_nothing_that_either_database_would_cut_at(given_text):
    for word in text.tokens(given_text):
        assert 0 < len(word) <= text.MAX_TOKEN_LENGTH
        assert not any(char.isascii() and not char.isalnum() for char in word), word
        assert not any(char.isspace() or unicodedata.category(char) in ("Cf", "Cc", "Cs") for char in word), word


@examples(200)
@given(st.text(st.characters(max_codepoint=127), max_size=200))
def test_texts_in_ascii_have_the_words_that_they_have_among_others(given_text):
    """There is a shorter way for them, and rows of earlier versions are left as they are because of it."""
    assert set(text.tokens(given_text)) == set(text.tokens(f"{given_text} ⊘", "☃"))


# ---- order -----------------------------------------------------------------------------------------------------------

BASES = {"ä": "a", "Ä": "a", "é": "e", "É": "e", "ł": "l", "Ł": "l", "ß": "ss", "æ": "ae", "Å": "a", "ñ": "n", "ό": "ο"}


def parts(name: str) -> list[str | int]:
    """A name as its letters, without accents, and its numbers."""
    found: list[str | int] = []
    digits = ""
    for char in [*name.strip(), ""]:
        if char and char in "0123456789":
            digits += char
            continue
        if digits:
            found.append(int(digits))
        digits = ""
        found += list(BASES.get(char, char).lower())
    return found


def compared(one: str, other: str) -> int:
    """Letter by letter, a number where digits would stand; at last by the exact characters."""
    mine, theirs = parts(one), parts(other)
    for left, right in zip(mine, theirs, strict=False):
        if left == right:
            continue
        if isinstance(left, int) and isinstance(right, int):
            return -1 if left < right else 1
        a, b = ("0" if isinstance(left, int) else left), ("0" if isinstance(right, int) else right)
        return -1 if a < b else 1
    if len(mine) != len(theirs):
        return -1 if len(mine) < len(theirs) else 1
    return (one > other) - (one < other)


NAMES = st.text(st.sampled_from("aAbBzäÄéÉełŁlßsæÅñnόο 0012399.-(東京"), max_size=12)


@examples(500)
@given(st.lists(NAMES, min_size=2, max_size=12))
def test_names_are_in_the_order_that_the_oracle_says(given_names):
    assert sorted(given_names, key=lambda name: (text.sort_key(name), name)) == sorted(
        given_names, key=cmp_to_key(compared)
    )


@pytest.mark.parametrize("digits", [1, 8, 9, 10, 40, 90])
def test_numbers_of_any_length_are_in_order(digits):
    least = 10 ** (digits - 1)
    numbers = sorted({0, 1, 9, least - 1, least, least + 1, 10 * least - 1, 10 * least})
    assert sorted(map(str, numbers), key=text.sort_key) == [str(number) for number in numbers]


@examples(100)
@given(st.text(max_size=600))
def test_a_sort_key_is_bounded_and_made_of_what_is_folded_anyway(name):
    key = text.sort_key(name)
    assert len(key) <= text.MAX_SORTED
    stored = REGISTRY["task"].column_values(REGISTRY["task"].fields["name"], {"name": name})
    assert stored[0] == name and (stored[2] if stored[2] is not None else stored[1]) == key


MARKS = [chr(code) for code in range(0x110000) if unicodedata.combining(unicodedata.normalize("NFKD", chr(code))[0])]
"""What belongs to the letter before it once it is decomposed."""


def longest_run(found: str) -> int:
    """How many marks follow each other at most, in a text that is decomposed."""
    longest = run = 0
    for char in unicodedata.normalize("NFKD", found):
        run = run + 1 if unicodedata.combining(char) else 0
        longest = max(longest, run)
    return longest


PARTS = st.one_of(
    st.tuples(st.sampled_from(MARKS), st.integers(1, 60)).map(lambda part: part[0] * part[1]),
    st.lists(st.sampled_from(MARKS), min_size=20, max_size=60).map("".join),
    st.sampled_from(["a", "か", " ", "\u200d", "\u034f", "ﾊ", "漢", "\u0e38", "é", "!" * 40]),
)


@given(st.lists(PARTS, max_size=12).map("".join))
@example("\u3099\u0e38" * 15 + "\u200d" + "\u3099\u0e38" * 15)
@example("\u0f73" * 40)
@example("ﾞ" * 40)
def test_no_normal_form_is_made_of_a_long_run_of_marks(content):
    """That takes time with the square of the run's length: 60,000 marks held up the whole server for seven seconds."""
    runs = []

    def normalize(form, found):
        runs.append(longest_run(found))
        return unicodedata.normalize(form, found)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "unicodedata", SimpleNamespace(**{**vars(unicodedata), "normalize": normalize}))
        for function in (text.fold, text.sort_key, text.tokens, text.sought, text.tidy):
            function(content)
    # A character may be two marks when it is decomposed.
    assert max(runs, default=0) <= 2 * text.MAX_MARKS


def test_thirty_marks_of_a_letter_are_kept():
    word = "a" + "\u0301\u0323" * 15
    assert text.fold(word) == unicodedata.normalize("NFKC", word)
    assert text.fold(word + "\u0301" * 100) == text.fold(word)
    assert text.tokens(f"{word} {word}{chr(0x323) * 500}b") == ["a", "ab"]
