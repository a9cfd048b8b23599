"""Reads the parameters of a request one by one, and collects everything that is wrong with them.

Why collected: a client that sends three wrong parameters should learn of all three at once.
"""

from collections.abc import Iterable
from typing import Final

from taskade_server.kit import time
from taskade_server.kit.errors import InvalidQuery, Issue, with_allowed
from taskade_server.kit.numbers import whole

MAX_VALUES: Final = 50
"""How many values a parameter may have that takes several."""


class Faults:
    """What is wrong with a request, collected until `fail` raises it."""

    def __init__(self) -> None:
        self.issues: list[Issue] = []

    def fault(self, name: str, code: str, detail: str) -> None:
        """Note what is wrong with the parameter of this name."""
        self.issues.append(Issue(code, detail, parameter=name))

    def fail(self) -> None:
        """InvalidQuery with everything that was noted; nothing happens if that is nothing."""
        if self.issues:
            raise InvalidQuery(errors=self.issues)


class Parameters(Faults):
    """The parameters of a query string. Unknown and repeated ones are faults.

    `lists` are the names of parameters with several values, which are separated by commas, or repeated.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]], allowed: Iterable[str], lists: Iterable[str] = ()) -> None:
        super().__init__()
        self._values: dict[str, list[str]] = {}
        names, several = list(allowed), set(lists)
        for name, value in pairs:
            if name not in names:
                detail = with_allowed(f'There is no parameter "{name[:80]}".', name, names)
                self.fault(name[:100], "unknown_parameter", detail)
            elif name in several:
                self._values.setdefault(name, []).extend(value.split(","))
            elif name in self._values:
                self.fault(name, "repeated", f"{name} stands more than once.")
            else:
                self._values[name] = [value]
        for name in several:
            if len(self._values.get(name, ())) > MAX_VALUES:
                self.fault(name, "too_many", f"{name} takes at most {MAX_VALUES} values.")

    def several(self, name: str) -> list[str]:
        """The values of a parameter that takes several; none if it is not given."""
        return self._values.get(name, [])

    def text(self, name: str) -> str | None:
        """A parameter as it is, None if it is not given."""
        return self._values.get(name, [None])[0]

    def number(self, name: str, default: int, most: int, least: int = 1) -> int:
        """A whole number; `default` if it is not given."""
        value = self.text(name)
        if value is None:
            return default
        found = whole(value)
        if found is None or not least <= found <= most:
            self.fault(name, "out_of_range", f"{name} is a number from {least} to {most:,}.")
            return default
        return found

    def instant(self, name: str) -> int | None:
        """A time in RFC 3339, in milliseconds since 1970; None if it is not given."""
        value = self.text(name)
        if value is None:
            return None
        try:
            return time.parse_ms(value)
        except ValueError:
            self.fault(name, "invalid_format", f"{name} is a time such as 2024-01-15T10:30:00Z.")
            return None
