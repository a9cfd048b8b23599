"""Merkle trees as in RFC 9162 (Certificate Transparency 2.0): roots, inclusion and consistency, and proofs of a range.

Why tiles: a tree is kept as rows of 256 hashes each, so that a leaf costs little more than its 32 bytes, a proof reads
a handful of rows, and growing touches one row of each height.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

EMPTY: Final = hashlib.sha256(b"").digest()
SIZE: Final = 32
HEIGHT: Final = 8
WIDTH: Final = 1 << HEIGHT

Nodes = Callable[[int, int], bytes]
"""The hash of a whole subtree: of the leaves from `index << level` up to the next such multiple."""


def leaf_hash(data: bytes) -> bytes:
    """The hash of an entry."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of two subtrees."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier:
    """A tree of which only as much is known as its root takes; leaves and whole subtrees are added at its end."""

    def __init__(self) -> None:
        self.size = 0
        self._subtrees: list[tuple[int, bytes]] = []

    def add(self, hashed: bytes, level: int = 0) -> None:
        """Add a leaf, or a subtree of 2**level leaves. ValueError if that cannot stand here."""
        if self.size % (1 << level) or not 0 <= level < 64:
            raise ValueError("a subtree does not fit here")
        self.size += 1 << level
        while self._subtrees and self._subtrees[-1][0] == level:
            hashed = node_hash(self._subtrees.pop()[1], hashed)
            level += 1
        self._subtrees.append((level, hashed))

    def root(self) -> bytes:
        """The root of what was added so far."""
        return _folded([hashed for _, hashed in self._subtrees])


def _folded(hashes: Sequence[bytes]) -> bytes:
    if not hashes:
        return EMPTY
    found = hashes[-1]
    for hashed in reversed(hashes[:-1]):
        found = node_hash(hashed, found)
    return found


def subtrees(first: int, last: int) -> Iterator[tuple[int, int]]:
    """The fewest whole subtrees, as (level, index), that hold the leaves from `first` up to, not with, `last`."""
    while first < last:
        level = (last - first).bit_length() - 1
        if first:
            level = min(level, (first & -first).bit_length() - 1)
        yield level, first >> level
        first += 1 << level


def root(nodes: Nodes, size: int) -> bytes:
    """The root of the first `size` leaves."""
    return _range(nodes, 0, size)


def _range(nodes: Nodes, first: int, last: int) -> bytes:
    return _folded([nodes(level, index) for level, index in subtrees(first, last)])


def _split(size: int) -> int:
    """The largest power of two below a size."""
    return 1 << ((size - 1).bit_length() - 1)


# ---- proofs ----------------------------------------------------------------------------------------------------------


def inclusion(nodes: Nodes, index: int, size: int) -> list[bytes]:
    """The proof that a leaf is in the tree of a size (RFC 9162, 2.1.3.1)."""
    if not 0 <= index < size:
        raise ValueError("there is no such leaf")
    path, first, last = [], 0, size
    while last - first > 1:
        middle = first + _split(last - first)
        if index < middle:
            path.append(_range(nodes, middle, last))
            last = middle
        else:
            path.append(_range(nodes, first, middle))
            first = middle
    return path[::-1]


def consistency(nodes: Nodes, old: int, new: int) -> list[bytes]:
    """The proof that a tree of one size is the beginning of a larger one (RFC 9162, 2.1.4.1)."""
    if not 0 < old <= new:
        raise ValueError("there is nothing to prove between these sizes")
    path, first, last, whole = [], 0, new, True
    while old != last:
        middle = first + _split(last - first)
        if old <= middle:
            path.append(_range(nodes, middle, last))
            last = middle
        else:
            path.append(_range(nodes, first, middle))
            first, whole = middle, False
    if not whole:
        path.append(_range(nodes, first, last))
    return path[::-1]


def included(leaf: bytes, index: int, size: int, path: Sequence[bytes], expected: bytes) -> bool:
    """Whether a proof shows that a leaf has this place in the tree with this root (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    place, last, found = index, size - 1, leaf
    for hashed in path:
        if last == 0:
            return False
        if place & 1 or place == last:
            found = node_hash(hashed, found)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            found = node_hash(found, hashed)
        place, last = place >> 1, last >> 1
    return last == 0 and found == expected


def consistent(old: int, new: int, old_root: bytes, new_root: bytes, path: Sequence[bytes]) -> bool:
    """Whether a proof shows that one tree is the beginning of the other (RFC 9162, 2.1.4.2)."""
    if not 0 <= old <= new or old == new or old == 0:
        return not path and (old_root == new_root if old == new else old == 0 and old_root == EMPTY)
    hashes = [old_root, *path] if old & (old - 1) == 0 else list(path)
    if not hashes:
        return False
    place, last = old - 1, new - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    before = after = hashes[0]
    for hashed in hashes[1:]:
        if last == 0:
            return False
        if place & 1 or place == last:
            before, after = node_hash(hashed, before), node_hash(hashed, after)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            after = node_hash(after, hashed)
        place, last = place >> 1, last >> 1
    return last == 0 and before == old_root and after == new_root


# ---- tiles -----------------------------------------------------------------------------------------------------------


class Tiles:
    """A tree in tiles. `load` gives one by height and number, as it was kept at a size of `size`; `changed` is to keep.

    Tile n of height h holds the hashes of subtrees with 256**h leaves, from number 256 * n on.
    """

    def __init__(self, load: Callable[[int, int], bytes], size: int) -> None:
        self.size = size
        self.changed: dict[tuple[int, int], bytes] = {}
        self._load = load
        self._known: dict[tuple[int, int], bytes] = {}

    def add(self, leaves: Iterable[bytes]) -> None:
        """Add the hashes of leaves at the end."""
        hashes, height, start = list(leaves), 0, self.size
        self.size += len(hashes)
        while hashes:
            upper: list[bytes] = []
            place = 0
            while place < len(hashes):
                number, fill = divmod(start + place, WIDTH)
                some = hashes[place : place + WIDTH - fill]
                tile = (self._tile(height, number)[: fill * SIZE] if fill else b"") + b"".join(some)
                if len(tile) != (fill + len(some)) * SIZE:
                    raise ValueError("a tile is shorter than the tree")
                self._known[height, number] = self.changed[height, number] = tile
                if fill + len(some) == WIDTH:
                    upper.append(_whole(tile))
                place += len(some)
            hashes, height, start = upper, height + 1, start // WIDTH

    def node(self, level: int, index: int) -> bytes:
        """The hash of a whole subtree."""
        height, inner = divmod(level, HEIGHT)
        first = index << inner
        number, place = divmod(first, WIDTH)
        part = self._tile(height, number)[place * SIZE : (place + (1 << inner)) * SIZE]
        if len(part) != SIZE << inner:
            raise ValueError("a tile is shorter than the tree")
        return _whole(part)

    def _tile(self, height: int, number: int) -> bytes:
        key = (height, number)
        if key not in self._known:
            self._known[key] = self._load(height, number)
        return self._known[key]


def _whole(hashes: bytes) -> bytes:
    """The root of a power of two of hashes."""
    row = [hashes[start : start + SIZE] for start in range(0, len(hashes), SIZE)]
    while len(row) > 1:
        row = [node_hash(row[place], row[place + 1]) for place in range(0, len(row), 2)]
    return row[0]
