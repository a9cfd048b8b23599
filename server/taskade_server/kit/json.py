"""JSON in (strict) and out (fast).

Why two parsers for what comes in: msgspec is five times as fast, but takes duplicate keys, excessive depth, NUL and
numbers beyond 64 bits. What is plainly free of them, it reads alone; whatever leaves a doubt goes to the slow parser,
whose hooks see everything and say where it stands.
"""

from typing import Any

import msgspec

encoder = msgspec.json.Encoder()
_canonical = msgspec.json.Encoder(order="deterministic")
decoder = msgspec.json.Decoder()
_raw_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


def encode(value: Any) -> str:
    """A value as compact JSON text."""
    return encoder.encode(value).decode()


def encode_bytes(value: Any) -> bytes:
    """A value as compact JSON in UTF-8."""
    return encoder.encode(value)


def canonical(value: Any) -> str:
    """A value as compact JSON text that is the same however its members were ordered."""
    return _canonical.encode(value).decode()


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON. To Python true is 1; to a reader of JSON it is not."""
    if one is other:
        return True
    if one != other:
        return False
    if isinstance(one, dict):
        return all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        return all(map(same, one, other))
    return isinstance(one, bool) is isinstance(other, bool)


def difference(before: Any, after: Any) -> Any:
    """The merge patch (RFC 7396) from one value to another: null removes, objects merge, all else replaces."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return after
    return {
        name: difference(before.get(name), after.get(name))
        for name in {**before, **after}
        if name not in before or name not in after or not same(before[name], after[name])
    }


def array(documents: list[str]) -> str:
    """Rendered documents as one JSON array, with a single large copy."""
    if not documents:
        return "[]"
    documents[0] = "[" + documents[0]
    documents[-1] += "]"
    return ",".join(documents)


def decode(text: str | bytes) -> Any:
    """Read JSON that this server wrote; use `decode_strict` for anything from outside."""
    return decoder.decode(text)


def decode_members(text: str) -> dict[str, msgspec.Raw]:
    """The members of a stored object, left as raw JSON (for picking some of them)."""
    return _raw_decoder.decode(text)
