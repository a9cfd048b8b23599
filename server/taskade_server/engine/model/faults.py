"""The faults of a request's body, each with its place."""

from collections.abc import Iterable
from typing import Any

from taskade_server.engine.model.declaration import Resource
from taskade_server.engine.model.fields import Field
from taskade_server.kit import text
from taskade_server.kit.errors import MAX_ISSUES, Issue, did_you_mean


class Faults:
    """Collects faults in `issues`; `pointer` is where the checked document stands inside the body."""

    def __init__(self, pointer: str = "") -> None:
        self.pointer = pointer
        self.issues: list[Issue] = []

    def fault(self, place: str, code: str, detail: str) -> None:
        """Note a fault at a place below the checked document; those beyond the hundredth are not told."""
        if len(self.issues) <= MAX_ISSUES:
            self.issues.append(Issue(code, detail, pointer=self.pointer + place))

    def unknown(self, place: str, key: str, allowed: Iterable[str], noun: Resource | str) -> None:
        """Note a member that does not exist, with the nearest one that does. `noun` is what has not got it."""
        if len(self.issues) > MAX_ISSUES:
            return
        names = sorted(set(allowed))
        hint = did_you_mean(key, names)
        one = text.sentence(text.with_article(noun) if isinstance(noun, str) else noun.one)
        self.fault(place, "unknown_field", f'{one} has no field "{key[:80]}".{hint} Allowed: {", ".join(names)}.')

    def wrong_type(self, place: str, member: Field, expected: str, value: Any) -> Any:
        found = (
            "null"
            if value is None
            else {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}.get(type(value), "a number")
        )
        self.fault(place, "wrong_type", f"{member.name} must be {expected}, not {found}.")
