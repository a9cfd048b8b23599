"""Merkle trees: the roots that Certificate Transparency publishes, and proofs that hold for the truth and nothing else.

Why a second, naive tree here: the definitions of RFC 9162 read as recursions over slices of a list, and code that
follows them word by word is the best witness against code that is fast.
"""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from taskade_server.kit import merkle, notes
from taskade_server.kit.merkle import Frontier, Tiles
from taskade_server.kit.notes import BadNote, Checkpoint, Signer, Verifier

# The leaves and roots of the reference implementation of RFC 6962.
LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
INCLUSION = {
    (0, 1): [],
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    (1, 5): [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
CONSISTENCY = {
    (1, 1): [],
    (1, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}


def naive(hashes):
    """MTH of RFC 9162, 2.1.1, word by word."""
    if not hashes:
        return hashlib.sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    return hashlib.sha256(b"\x01" + naive(hashes[:k]) + naive(hashes[k:])).digest()


def nodes_of(hashes):
    return lambda level, index: naive(hashes[index << level : (index + 1) << level])


def some_leaves(count):
    return [merkle.leaf_hash(str(number).encode()) for number in range(count)]


# ---- what others have published --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", range(9))
def test_roots(size):
    hashes = [merkle.leaf_hash(leaf) for leaf in LEAVES[:size]]
    assert merkle.root(nodes_of(hashes), size).hex() == ROOTS[size]
    frontier = Frontier()
    for hashed in hashes:
        frontier.add(hashed)
    assert frontier.root().hex() == ROOTS[size]


@pytest.mark.parametrize(("index", "size"), INCLUSION)
def test_inclusion(index, size):
    hashes = [merkle.leaf_hash(leaf) for leaf in LEAVES]
    path = merkle.inclusion(nodes_of(hashes), index, size)
    assert [hashed.hex() for hashed in path] == INCLUSION[index, size]
    assert merkle.included(hashes[index], index, size, path, bytes.fromhex(ROOTS[size]))


@pytest.mark.parametrize(("old", "new"), CONSISTENCY)
def test_consistency(old, new):
    hashes = [merkle.leaf_hash(leaf) for leaf in LEAVES]
    path = merkle.consistency(nodes_of(hashes), old, new)
    assert [hashed.hex() for hashed in path] == CONSISTENCY[old, new]
    assert merkle.consistent(old, new, bytes.fromhex(ROOTS[old]), bytes.fromhex(ROOTS[new]), path)


# ---- what has to hold ------------------------------------------------------------------------------------------------


def test_every_proof_of_every_small_tree():
    for size in range(1, 34):
        hashes = some_leaves(size)
        nodes, root = nodes_of(hashes), naive(hashes)
        for index in range(size):
            path = merkle.inclusion(nodes, index, size)
            assert merkle.included(hashes[index], index, size, path, root)
            assert not merkle.included(merkle.leaf_hash(b"another"), index, size, path, root)
            wrong = [other for other in range(size + 2) if other != index]
            assert not any(merkle.included(hashes[index], other, size, path, root) for other in wrong)
        for old in range(1, size + 1):
            path = merkle.consistency(nodes, old, size)
            before = naive(hashes[:old])
            assert merkle.consistent(old, size, before, root, path)
            assert not merkle.consistent(old, size, merkle.leaf_hash(b"x"), root, path)
            assert not merkle.consistent(old, size, before, merkle.leaf_hash(b"x"), path)
            for other in range(1, size + 1):
                if other != old and size > 1:
                    assert not merkle.consistent(other, size, before, root, path)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_proof_that_was_tampered_with_proves_nothing(data):
    size = data.draw(st.integers(2, 700))
    hashes = some_leaves(size)
    tiles = Tiles(lambda height, number: b"", 0)
    tiles.add(hashes)
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size - 1))
    root = merkle.root(tiles.node, size)
    path = merkle.inclusion(tiles.node, index, size)
    link = merkle.consistency(tiles.node, old, size)
    before = merkle.root(tiles.node, old)
    assert merkle.included(hashes[index], index, size, path, root)
    assert merkle.consistent(old, size, before, root, link)
    for proof, holds in (
        (path, lambda changed: merkle.included(hashes[index], index, size, changed, root)),
        (link, lambda changed: merkle.consistent(old, size, before, root, changed)),
    ):
        place = data.draw(st.integers(0, len(proof) - 1))
        flipped = bytes([proof[place][0] ^ 1]) + proof[place][1:]
        assert not holds([*proof[:place], flipped, *proof[place + 1 :]])
        assert not holds(proof[:-1])
        assert not holds([*proof, proof[-1]])


@given(st.lists(st.integers(0, 400), max_size=6))
@settings(max_examples=60, deadline=None)
def test_tiles_are_the_tree_however_it_grew(steps):
    kept: dict[tuple[int, int], bytes] = {}

    def load(height, number):
        return kept[height, number]

    hashes = some_leaves(sum(steps))
    done = 0
    for step in steps:
        tiles = Tiles(load, done)
        tiles.add(hashes[done : done + step])
        kept.update(tiles.changed)
        done += step
        again = Tiles(load, done)
        assert merkle.root(again.node, done) == naive(hashes[:done])
        if done > 1:
            assert merkle.root(again.node, done // 2) == naive(hashes[: done // 2])


def test_tiles_of_three_heights():
    size = 256 * 256 + 300
    tiles = Tiles(lambda height, number: b"", 0)
    hashes = some_leaves(size)
    for start in range(0, size, 1000):
        tiles.add(hashes[start : start + 1000])
    frontier = Frontier()
    for hashed in hashes:
        frontier.add(hashed)
    assert merkle.root(tiles.node, size) == frontier.root()
    assert max(height for height, _ in tiles.changed) == 2
    path = merkle.inclusion(tiles.node, 65_000, size)
    assert merkle.included(hashes[65_000], 65_000, size, path, frontier.root())


@given(st.integers(1, 300), st.data())
@settings(max_examples=100, deadline=None)
def test_a_range_and_what_lies_beside_it_make_the_root(size, data):
    first = data.draw(st.integers(0, size))
    last = data.draw(st.integers(first, size))
    hashes = some_leaves(size)
    nodes, frontier = nodes_of(hashes), Frontier()
    for level, index in merkle.subtrees(0, first):
        frontier.add(nodes(level, index), level)
    for hashed in hashes[first:last]:
        frontier.add(hashed)
    for level, index in merkle.subtrees(last, size):
        frontier.add(nodes(level, index), level)
    assert frontier.size == size and frontier.root() == naive(hashes)


def test_a_tile_that_is_too_short_is_noticed():
    tiles = Tiles(lambda height, number: b"", 5)
    with pytest.raises(ValueError):
        tiles.add(some_leaves(1))
    with pytest.raises(ValueError):
        tiles.node(0, 0)


# ---- notes -----------------------------------------------------------------------------------------------------------

SECRET = b"a secret of the tests, long enough"


def test_a_checkpoint_is_signed_and_read_again():
    signer = Signer(SECRET, "taskade.audit")
    checkpoint = Checkpoint("taskade.audit/ws_1/changes", 8, bytes.fromhex(ROOTS[8]), "2024-01-15T10:30:00.000Z")
    note = signer.sign(checkpoint.text())
    lines = note.split("\n")
    assert lines[:2] == ["taskade.audit/ws_1/changes", "8"]
    assert lines[4] == "" and lines[5].startswith("\u2014 taskade.audit ")
    assert notes.checkpoint_of(Verifier(signer.verifier).verified(note)) == checkpoint
    assert Signer(SECRET, "taskade.audit").verifier == signer.verifier
    assert Signer(SECRET + b"x", "taskade.audit").verifier != signer.verifier


def test_a_note_that_was_changed_or_signed_by_another_is_none():
    signer, other = Signer(SECRET, "taskade.audit"), Signer(b"another secret, also long enough..", "taskade.audit")
    note = signer.sign(Checkpoint("origin", 8, bytes(32), "now").text())
    verifier = Verifier(signer.verifier)
    for changed in (note.replace("\n8\n", "\n9\n"), note.replace("now", "then"), note[:-8] + "AAAAAA=\n"):
        with pytest.raises(BadNote):
            verifier.verified(changed)
    with pytest.raises(BadNote, match="not signed by this key"):
        Verifier(other.verifier).verified(note)
    both = note + other.sign(Checkpoint("origin", 8, bytes(32), "now").text()).rpartition("\n\n")[2]
    assert Verifier(other.verifier).verified(both) == verifier.verified(both)
    for nonsense in ("", "\n\n", "a\n\nb\n", note.replace("\u2014", "-"), note + "x", "x" * 20_000):
        with pytest.raises(BadNote):
            verifier.verified(nonsense)


@pytest.mark.parametrize("text", ["", "a+b", "a+00000000+AAAA", "x"])
def test_what_is_no_public_key(text):
    with pytest.raises(BadNote):
        Verifier(text)


@pytest.mark.parametrize("text", ["o\n\n\n", "o\n08\nAA==\n", "o\n-1\nAA==\n", "o\n8\nAA==\n", "o\n8\n!\n", "\n8\nA\n"])
def test_what_is_no_checkpoint(text):
    with pytest.raises(BadNote):
        notes.checkpoint_of(text)


def test_a_public_key_is_the_one_that_the_reference_implementation_shows():
    """The example key of golang.org/x/mod/sumdb/note."""
    vkey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    note = (
        "If you think cryptography is the answer to your problem,\n"
        "then you don't know what your problem is.\n"
        "\n"
        "\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6Ry"
        "yBwJnAM=\n"
    )
    text = Verifier(vkey).verified(note)
    assert text.startswith("If you think cryptography") and text.endswith("is.\n")
