"""From a document to the tree of a filter, with every fault of it."""

import re
from typing import Any, Final

from taskade_server.engine.filters.comparisons import ComparisonParser
from taskade_server.engine.filters.language import GROUPS, MAX_DEPTH, OPERATORS, RESERVED
from taskade_server.engine.filters.nodes import EVERYTHING, And, Node, Not, Or
from taskade_server.engine.model import CUSTOM_KEY, Field
from taskade_server.kit import hints
from taskade_server.kit.errors import MAX_ISSUES, did_you_mean

_JOINT: Final = re.compile(r"(?<=.)(?:__|[._: ]|(?=[<>!=]))")
"""Where a filter and its operator meet in other APIs: `due_date__gte`, `due_date.gte`, `due_date>`."""

_OPERATOR: Final = re.compile(r"[<>!=]+|\w+", re.ASCII)

MAX_JOINTS: Final = 3


class Parser(ComparisonParser):
    """Reads one filter document for a resource: fields with their conditions, and groups of filters."""

    def parse(self, document: Any, tokens: tuple[str, ...] = (), depth: int = 1) -> Node:
        """The tree of a document; look at `issues` afterwards."""
        if not isinstance(document, dict):
            self._fault(tokens, "wrong_type", "A filter is an object of fields and conditions.")
            return EVERYTHING
        if depth > MAX_DEPTH:
            self._fault(tokens, "too_deep", f"Filters may nest {MAX_DEPTH} levels deep.")
            return EVERYTHING
        if not document:
            self._count(1, tokens)
        parts = [self._entry(name, value, (*tokens, name), depth) for name, value in document.items()]
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _entry(self, name: str, value: Any, tokens: tuple[str, ...], depth: int) -> Node:
        if len(self.issues) > MAX_ISSUES:
            return EVERYTHING  # it is refused anyway
        if name in GROUPS:
            return self._group(name, value, tokens, depth)
        if name == "custom_fields" and name in self.resource.fields and isinstance(value, dict):
            if not value:
                # `{owner: undefined}` arrives like this, too; see `_field`.
                self._fault(tokens, "wrong_type", 'Give custom_fields a key with a value, as in {"area": "web"}.')
            return And(tuple(self._custom(key, inner, (*tokens, key)) for key, inner in value.items()))
        if name.startswith("custom_fields") and name[13:14] in ("", ".") and "custom_fields" in self.resource.fields:
            return self._custom(name[14:], value, tokens)
        member, implied = self._member(name)
        if member is None:
            self._fault(tokens, "unknown_parameter", self._unknown(name))
            return EVERYTHING
        if implied:
            value = {implied: value}
        return self._field(member, member.name if member.multiple else None, value, tokens)

    def _unknown(self, name: str) -> str:
        """What is wrong with the name of a filter, in words, with what was most likely meant."""
        allowed, groups = sorted(self.resource.filterable), GROUPS if self.typed else (*RESERVED, *GROUPS)
        joined = "" if hints.synonym(name, [*allowed, *groups]) else self._joined(name, allowed)
        if joined:
            hint = f" Did you mean {joined}?"
        elif name in OPERATORS:
            form = '{"due_date": {"$gte": "today"}}' if self.typed else "due_date[$gte]=today"
            hint = f" An operator belongs to a filter, as in {form}."
        else:
            hint = did_you_mean(name, [*allowed, *groups])
        what = "filter" if self.typed else "filter or parameter"
        others = "" if self.typed else f" Parameters: {', '.join(RESERVED)}."
        return f'There is no {what} "{name[:80]}".{hint} Filters: {", ".join(allowed)}.{others}'

    def _joined(self, name: str, allowed: list[str]) -> str:
        """A filter whose operator was written as part of its name, in the form that it has here; "" if it is none."""
        for joint in [*_JOINT.finditer(name[: hints.MAX_GUESSED])][-1 : -MAX_JOINTS - 1 : -1]:
            sign = _OPERATOR.match(name, joint.end())
            word = sign[0] if sign else ""
            if not self.typed and word in ("<", ">", "!") and name.endswith(word):
                word += "="  # in `due_date>=2024-01-31` the name of the parameter ends before the sign of equality
            member, operator = hints.near(name[: joint.start()], allowed), hints.near(word, OPERATORS)
            if member and operator:
                return f'{{"{member}": {{"{operator}": ...}}}}' if self.typed else f"{member}[{operator}]=..."
        return ""

    def _custom(self, key: str, value: Any, tokens: tuple[str, ...]) -> Node:
        if not re.fullmatch(CUSTOM_KEY, key):
            detail = "Name the custom field: custom_fields.key or custom_fields[key]."
            self._fault(tokens, "malformed_parameter", detail)
            return EVERYTHING
        return self._field(self.resource.fields["custom_fields"], f".{key}", value, tokens)

    def _member(self, name: str) -> tuple[Field | None, str]:
        member = self.resource.fields.get(name)
        if member is not None and member.name in self.resource.filterable:
            return member, ""
        stem, _, word = name.rpartition("_")
        if word in ("before", "after") and stem:
            for candidate in (f"{stem}_date", f"{stem}_at"):
                found = self.resource.fields.get(candidate)
                if found is not None and found.filterable:
                    return found, "$lt" if word == "before" else "$gt"
        return None, ""

    def _group(self, name: str, value: Any, tokens: tuple[str, ...], depth: int) -> Node:
        if name == "$not":
            return Not(self.parse(value, tokens, depth + 1))
        documents = [value] if isinstance(value, dict) and not self.typed else value
        if not isinstance(documents, list) or not documents:
            self._fault(tokens, "wrong_type", f"{name} takes a list of filters.")
            return EVERYTHING
        parts = tuple(self.parse(item, (*tokens, str(index)), depth + 1) for index, item in enumerate(documents))
        return Or(parts) if name == "$or" else And(parts)

    def _field(self, member: Field, side: str | None, value: Any, tokens: tuple[str, ...]) -> Node:
        if isinstance(value, dict):
            parts = []
            if not value:
                # `{$gte: undefined}` arrives like this; to take it for "all" would be dear in a bulk deletion.
                self._fault(tokens, "wrong_type", f"Give {member.name} a value, or an operator such as $gte with one.")
            for name, operand in value.items():
                if len(self.issues) > MAX_ISSUES:
                    break
                if name not in OPERATORS:
                    hint = did_you_mean(name, OPERATORS)
                    detail = f'There is no operator "{name[:40]}".{hint} Operators: {" ".join(OPERATORS)}.'
                    self._fault((*tokens, name), "unknown_operator", detail)
                    continue
                parts.append(self._condition(member, side, name, operand, (*tokens, name)))
            return And(tuple(parts))
        return self._condition(member, side, "$in" if isinstance(value, list) else "$eq", value, tokens)
