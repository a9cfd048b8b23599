"""Folding, word-splitting and ordering of text, done here so that both databases and Python agree on every character.

Why not the databases' own: SQLite folds ASCII only and PostgreSQL folds by locale, so the same search would find
different rows; with folded text stored, both only compare bytes.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Final, Literal

from taskade_server.kit.budget import UNLIMITED, Budget

MAX_TOKENS: Final = 2_000
MAX_PIECES: Final = 8_000
"""How many pairs and triples of characters a text of scripts without spaces may be found by, beside its words."""
MAX_TOKEN_LENGTH: Final = 64
MAX_TIDIED: Final = 1_000
"""Longer texts are no label, and are compared as they are."""
MAX_MARKS: Final = 30
MAX_FOLDED: Final = 10_000
"""Longer texts with characters beyond ASCII are cut before they are folded. No member that is folded is as long, so
that what is compared with one cannot equal it, nor occur in it, anyway."""
MAX_SORTED: Final = 100
"""How many characters the key has that a text is sorted by."""
MAX_NORMALISED: Final = 200_000
"""How many characters of a text are looked through for words, after normalising: one character may become eighteen."""
PIECE: Final = 4_096
"""How many characters are normalised at a time, so that reading ends soon after the last word that is wanted."""
NORMALISED_A_STEP: Final = 5
"""How many normalised characters one step of a Budget stands for."""
ASCII_A_STEP: Final = 40
"""How many characters one step stands for in a text of ASCII, which needs no normalising."""
FOLDED_A_STEP: Final = 4
"""How many characters of a folded text one step of a Budget stands for."""
FEW: Final = 24
"""Up to this many different characters are replaced one after another; more are translated in one go."""

# Scripts that are written without spaces, so that a word may begin at any character. Of those with thousands of
# characters, or with one for each syllable, two in a row tell enough; of those that spell with letters, three do.
_SYLLABLES: Final = (
    "\u1100-\u11ff\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3038-\u303b\u3041-\u30fa\u30fc-\u318f"
    "\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua48c\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff"
    "\U00016fe0-\U00018d8f\U0001aff0-\U0001b2ff\U00020000-\U0003ffff"
)  # Hangul, Han, kana, bopomofo, Yi, Tangut, Nushu, Khitan
_SPELLED: Final = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ece\u0edc-\u0edf\u1000-\u103f\u1050-\u108f\u109a-\u109f\u1780-\u17d3\u17d7"
    "\u17dc-\u17dd\u1950-\u1974\u1980-\u19c9\u1a00-\u1a1b\u1a20-\u1a7e\ua9e0-\ua9ef\ua9fa-\ua9fe\uaa60-\uaa7f\uaa80-\uaadf"
    "\U00011700-\U0001172b"
)  # Thai, Lao, Myanmar, Khmer, Tai Le, New Tai Lue, Buginese, Tai Tham, Tai Viet, Ahom
_RUNS: Final = re.compile(f"[{_SYLLABLES}]+|[{_SPELLED}]+|[^ {_SYLLABLES}{_SPELLED}]+")
_SYLLABLE: Final = re.compile(f"[{_SYLLABLES}]")
_UNSPACED: Final = re.compile(f"[{_SYLLABLES}{_SPELLED}]")
_CONTINUES: Final = re.compile("[\u1160-\u11ff\uff9e\uff9f]")
"""What makes one character of itself and the one before it, beside combining marks: Hangul, half-width kana."""
_FIRST_UNSPACED: Final = "\u0e01"

_IGNORED: Final = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")
"""Fillers and selectors of variants, which are seen no more than format characters, but are not in their category."""
_LETTERS: Final = {
    "æ": "ae",
    "œ": "oe",
    "ð": "d",
    "þ": "th",
    "ı": "i",
    "ȷ": "j",
    "ŋ": "n",
    "ĸ": "q",
    "ƿ": "w",
    # Arabic: alef wasla, alef maqsura and Persian yeh, Persian kaf, teh marbuta and the heh of Urdu; the tatweel.
    "\u0671": "\u0627",
    "\u0649": "\u064a",
    "\u06cc": "\u064a",
    "\u06a9": "\u0643",
    "\u0629": "\u0647",
    "\u06c1": "\u0647",
    "\u06c3": "\u0647",
    "\u0640": "",
}
"""Letters that people take for others, or type as others, and that Unicode does not decompose."""
_STROKE: Final = re.compile("((LATIN) SMALL LETTER ([A-Z])|(CYRILLIC) SMALL LETTER ([A-Z -]+)) WITH .+")
_MAYBE_MARKS: Final = re.compile(rf"[\W\uff9e\uff9f]{{{MAX_MARKS + 1},}}")
"""What is no letter and no digit, or one of the two letters that decompose to marks: so long a run may be of marks."""
_DIGITS: Final = b"0123456789"
_NUMBER: Final = re.compile("[0-9]+")
_ASCII_WORDS: Final = bytes(ord(chr(code).lower()) if chr(code).isalnum() else 32 for code in range(128)) + bytes(128)


def fold(text: str) -> str:
    """Text for comparing without regard to case: compatibility-normalised and case-folded."""
    if text.isascii():
        return text.lower()
    return _normalized("NFKC", _normalized("NFKC", text[:MAX_FOLDED]).casefold())


# ---- order -----------------------------------------------------------------------------------------------------------


def sort_key(text: str) -> str:
    """What a text is sorted by, character by character: without case and accents, and numbers by their size.

    A number is preceded by the count of its digits, so that 2 comes before 10. Texts that share a key, because they
    differ in accents or case alone or are longer than it, are for the caller to tell apart.
    """
    plain = text[: 2 * MAX_SORTED]
    plain = plain.lower() if plain.isascii() else _simplified(plain, _letter)
    return _NUMBER.sub(_counted, plain.strip())[:MAX_SORTED]


def sorts_as_folded(text: str) -> bool:
    """A quick answer for most names: without accents and numbers, and short, their sort key is what `fold` gives."""
    plain = text.isascii() and len(text) <= MAX_SORTED and text == text.strip()
    return plain and len(text.encode().translate(None, _DIGITS)) == len(text)


def _counted(found: re.Match[str]) -> str:
    digits = found[0].lstrip("0") or "0"
    return f"{len(digits)}{digits}" if len(digits) < 9 else f"9{len(digits):04}{digits}"


# ---- words -----------------------------------------------------------------------------------------------------------


def tokens(*texts: str, budget: Budget | None = None) -> list[str]:
    """Return what some texts are found by: their distinct words, folded and without accents (2,000 at most).

    Of scripts without spaces, every two or three characters in a row (8,000 at most) and the last ones. So a run of
    them is in a text only if each token of `sought(run)` begins one of these, wherever in a sentence it stands.

    Of a text that grows without end when it is normalised, only the beginning is read. The work is taken from `budget`
    piece by piece: BudgetSpent when that is not enough.
    """
    return _tokens(texts, budget or Budget(UNLIMITED), whole=False)


def sought(text: str) -> list[str]:
    """What the tokens of a text must begin with, for it to be found by these words."""
    return _tokens((text,), Budget(UNLIMITED), whole=True)


def _tokens(texts: tuple[str, ...], budget: Budget, *, whole: bool) -> list[str]:
    joined = " ".join(texts)
    if joined.isascii():  # most texts: no piece of them grows
        budget.spend(len(joined) // ASCII_A_STEP)
        words = joined[:MAX_NORMALISED].encode().translate(_ASCII_WORDS).decode().split()
        words = [word if len(word) <= MAX_TOKEN_LENGTH else word[:MAX_TOKEN_LENGTH] for word in words]
        return list(dict.fromkeys(words))[:MAX_TOKENS]
    found: dict[str, None] = {}
    pieces: dict[str, None] = {}
    left = MAX_NORMALISED
    for plain, read, is_ascii in _plain(texts):
        budget.spend(max(len(plain), read) // (ASCII_A_STEP if is_ascii else NORMALISED_A_STEP))
        runs = plain.split() if is_ascii or _UNSPACED.search(plain) is None else _words_and_runs(plain, pieces, whole)
        found.update(dict.fromkeys([word[:MAX_TOKEN_LENGTH] for word in runs]))
        left -= len(plain)
        if left <= 0 or len(found) >= MAX_TOKENS or len(pieces) >= MAX_PIECES:
            break
    return [*list(found)[:MAX_TOKENS], *list(pieces)[:MAX_PIECES]]


def tidy(text: str) -> str:
    """A label without space around it and in one form: two that look the same are the same."""
    return text.strip() if text.isascii() or len(text) > MAX_TIDIED else _normalized("NFC", text).strip()


def unseen(text: str) -> str | None:
    """The first character that nobody sees (a space, a format character, a control code); None if all are seen."""
    return next((char for char in text if unicodedata.category(char) in _UNSEEN or char in _BLANK), None)


_UNSEEN: Final = ("Cc", "Cf", "Zl", "Zp", "Zs")
_BLANK: Final = frozenset(
    map(
        chr,
        [
            0x034F,
            0x115F,
            0x1160,
            0x17B4,
            0x17B5,
            0x2800,
            0x3164,
            0xFFA0,
            *range(0x180B, 0x1810),
            *range(0xFE00, 0xFE10),
            *range(0xE0100, 0xE01F0),
        ],
    )
)
"""Letters and marks by their category that are drawn as nothing."""


def with_article(noun: str) -> str:
    """`a task`, `an API key`, `a user`: a noun as a sentence names one of its kind."""
    vowel = noun[:1].lower() in tuple("aeio") or noun[:2].lower() in ("un", "up")
    return f"an {noun}" if vowel else f"a {noun}"


def sentence(words: str) -> str:
    """The words with a capital letter first, as a sentence begins."""
    return words[:1].upper() + words[1:]


def _words_and_runs(plain: str, pieces: dict[str, None], whole: bool) -> list[str]:
    """The words of a text; the pieces of its runs without spaces are added to `pieces`, without the last if `whole`."""
    words = []
    for run in _RUNS.findall(plain):
        if run < _FIRST_UNSPACED or (length := _length(run[0])) == 0:
            words.append(run)
        else:
            last = max(1, len(run) - length + 1) if whole else len(run)
            pieces.update(dict.fromkeys([run[place : place + length] for place in range(last)]))
    return words


@lru_cache(maxsize=8192)
def _length(char: str) -> int:
    """How many characters of a run without spaces make a piece; 0 for a character that has no part in such a run."""
    return 0 if _UNSPACED.match(char) is None else 2 if _SYLLABLE.match(char) else 3


def _plain(texts: tuple[str, ...]) -> Iterator[tuple[str, int, bool]]:
    """The texts without accents and case, those beyond ASCII in pieces; how long a piece was, and whether it was ASCII.

    A piece begins with the end of the one before if that did not end with a space, so that no word is lost.
    """
    for text in texts:
        if text.isascii():
            yield text.encode().translate(_ASCII_WORDS).decode(), len(text), True
            continue
        start, rest = 0, ""
        while start < len(text):
            end = _end(text, start)
            plain = rest + _simplified(text[start:end], _token_char)
            yield plain, end - start, False
            start, rest = end, _rest(plain)


def _end(text: str, start: int) -> int:
    """Where a piece ends that begins at `start`: behind a space, if one is in reach, and never within a character."""
    end = start + PIECE
    if end >= len(text):
        return len(text)
    space = text.rfind(" ", start, end) + 1
    if space:
        return space
    while end > start + PIECE - 64 and (unicodedata.combining(text[end]) or _CONTINUES.match(text[end])):
        end -= 1
    return end


def _rest(plain: str) -> str:
    """What the next piece of a text has to begin with."""
    if plain[-1:] in ("", " "):
        return ""
    run: str = _RUNS.findall(plain[-MAX_TOKEN_LENGTH:])[-1]
    length = _length(run[0])
    return run if length == 0 else run[1 - length :]


# ---- characters ------------------------------------------------------------------------------------------------------


def _simplified(text: str, simple: Callable[[str], str]) -> str:
    """A text in lower case, each character of it as `simple` has it."""
    folded = _normalized("NFKD", text.casefold())
    others = {char: new for char in set(folded) if (new := simple(char)) != char}
    if len(others) > FEW:
        folded = folded.translate({ord(char): new for char, new in others.items()})
    else:
        for char, new in others.items():
            folded = folded.replace(char, new)
    # Syllables of Hangul, and kana with marks that make other letters of them, are characters again.
    return _normalized("NFC", folded).lower()


def _normalized(form: Literal["NFC", "NFKC", "NFKD"], text: str) -> str:
    """A text in a normal form, without the marks on a letter beyond the thirtieth.

    Normalising sorts the marks of each letter, which takes time with the square of their number. More than thirty are
    no writing of any language (Unicode Standard Annex 15, "Stream-Safe Text Format").
    """
    return unicodedata.normalize(form, _MAYBE_MARKS.sub(_without_excess, text))


def _without_excess(found: re.Match[str]) -> str:
    kept, marks = [], 0
    for char in found[0]:
        marks = marks + 1 if _is_mark(char) else 0
        if marks <= MAX_MARKS:
            kept.append(char)
    return "".join(kept)


@lru_cache(maxsize=8192)
def _is_mark(char: str) -> bool:
    """Whether a character, once it is decomposed, belongs to the letter before it."""
    return unicodedata.combining(unicodedata.normalize("NFKD", char)[0]) != 0


@lru_cache(maxsize=8192)
def _token_char(char: str) -> str:
    """A character of a decomposed text as searches have it: a space if it is no part of a word."""
    letter = _letter(char)
    return letter if not letter or letter.isalnum() or unicodedata.category(letter) in ("Mn", "Mc") else " "


@lru_cache(maxsize=8192)
def _letter(char: str) -> str:
    """A character of a decomposed text without accents and strokes; empty if nobody sees it.

    Marks that stand for a vowel, or that make another letter where nobody leaves them out, stay.
    """
    if char in _LETTERS:
        return _LETTERS[char]
    category = unicodedata.category(char)
    if category == "Nd":
        return str(unicodedata.decimal(char))
    if category in ("Cf", "Me") or _IGNORED.match(char):
        return ""
    if category == "Mn":
        return char if unicodedata.combining(char) == 0 or _UNSPACED.match(char) else ""
    if category == "Ll" and not char.isascii() and (named := _STROKE.fullmatch(unicodedata.name(char, ""))):
        return _base(char, named)
    return char


def _base(char: str, named: re.Match[str]) -> str:
    if named[2]:
        return named[3].lower()
    try:
        return unicodedata.lookup(named[1])
    except KeyError:
        return char
