"""Checking the body of a request against the declaration of a resource."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from taskade_server.engine.model.declaration import Resource
from taskade_server.engine.model.documents import NOTHING, unexpanded
from taskade_server.engine.model.faults import Faults
from taskade_server.engine.model.fields import Field
from taskade_server.engine.model.values import check_value
from taskade_server.kit import json
from taskade_server.kit.strict_json import escape_pointer


class Checker(Faults):
    """Checks documents and single values, and collects every fault of them."""

    def body(
        self,
        resource: Resource,
        body: Any,
        *,
        creating: bool,
        extra: Collection[str] = (),
        current: Mapping[str, Any] | None = None,
        given: Mapping[str, Any] = NOTHING,
    ) -> dict[str, Any]:
        """The valid members of a create or merge-patch body; faults are collected.

        A read-only member may hold what it is anyway: what is stored in `current`, or on creation what the server is
        going to give it, as far as `given` tells. Anything else there is a fault.
        """
        if not isinstance(body, dict):
            self.fault("", "wrong_type", f"The body is a JSON object with the fields of {resource.one}.")
            return {}
        result: dict[str, Any] = resource.defaults() if creating else {}
        settable = resource.writable if creating else resource.changeable
        for key, value in body.items():
            member = settable.get(key)
            if member is None:
                if (fixed := resource.fields.get(key)) is not None and not fixed.hidden:
                    self._fixed(fixed, value, given if creating else current or NOTHING, creating=creating)
                elif key not in extra:
                    self._added(resource, key, value, current, [*resource.writable, *extra])
            elif value is None and creating and not member.required and not member.explicit:
                pass  # it keeps the default: many clients write null for what they do not set
            else:
                before = None if current is None else current.get(key)
                if before is not None and json.same(value, before):
                    result[key] = before  # what was read can be sent back, even if the rules have changed since
                else:
                    result[key] = check_value(self, member, value, member.place, before)
        if creating:
            for name in resource.required:
                if name not in body:
                    self.fault(f"/{name}", "required", f"{name} is required.")
        return result

    def _fixed(self, member: Field, value: Any, present: Mapping[str, Any], *, creating: bool) -> None:
        """Note a member that only the server sets, unless it holds what is there anyway."""
        if (creating and value is None) or (member.moving and not creating):
            return
        if member.name in present and json.same(unexpanded(value), present[member.name]):
            return
        if creating:
            detail = f"{member.name} is read-only: the server sets it. Leave it out."
        elif member.create_only:
            detail = f"{member.name} cannot change after creation. Leave it out, or send it as it was read."
        else:
            detail = f"{member.name} is read-only. Leave it out, or send it as it was read."
        self.fault(member.place, "read_only", detail)

    def _added(
        self, resource: Resource, key: str, value: Any, current: Mapping[str, Any] | None, names: Iterable[str]
    ) -> None:
        """Note a member that does not exist, unless it is what an include added to the document that was read."""
        relation = resource.includes.get(key.removesuffix("_truncated"))
        place = f"/{escape_pointer(key)}"
        if current is None or relation is None or key in resource.fields:
            self.unknown(place, key, names, resource)
        elif relation.kind == "one" and not json.same(unexpanded(value), current.get(relation.source)):
            detail = f"{key} is what include={key} adds, and it is another one. Set {relation.source} to change it."
            self.fault(place, "read_only", detail)
        elif relation.kind != "one" and not isinstance(value, list | bool):
            detail = f"{key} is what include={relation.name} adds; it cannot be set here. Leave it out."
            self.fault(place, "read_only", detail)

    def value(self, member: Field, value: Any, place: str, before: Any = None) -> Any:
        """Return one member's value in its normal form, or None after noting what is wrong with it."""
        return check_value(self, member, value, place, before)
