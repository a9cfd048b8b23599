"""`wait`: for a duration, until a moment, or until a condition holds, whichever comes first."""

from typing import Any, Final

from taskade_server.domain.automations.actions.kind import Done, Kind, Outcome, Sleep
from taskade_server.domain.automations.checking import Checking
from taskade_server.domain.automations.program import Instruction
from taskade_server.domain.automations.situation import Situation
from taskade_server.kit import durations, time
from taskade_server.kit.errors import Invalid, Issue
from taskade_server.store.tables import runs

LONGEST_DAYS: Final = 366


def check(checking: Checking, action: dict[str, Any], pointer: str) -> None:
    """Note what is wrong with the time and the condition."""
    if not action.keys() & {"for", "at", "until"}:
        detail = (
            "Say how long: for (a duration such as P2D), at (a time, or a reference to one) or until (a condition)."
        )
        checking.fault(pointer, "required", detail)
    if "for" in action and "at" in action:
        checking.fault(f"{pointer}/at", "not_allowed", "Give for or at, not both.")
    if "for" in action:
        for issue in durations.check(action["for"], f"{pointer}/for"):
            checking.fault(issue.pointer or "", issue.code, issue.detail)
    if "at" in action:
        checking.values(action["at"], f"{pointer}/at")
    if "until" in action:
        types = checking.types or ["task.*", "project.*"]
        action["until"] = checking.condition(action["until"], f"{pointer}/until", types)
        if "for" not in action and "at" not in action:
            detail = f"Say how long at most: for or at beside until, up to {LONGEST_DAYS} days."
            checking.fault(pointer, "required", detail)


def perform(situation: Situation, instruction: Instruction) -> Outcome:
    """Wait, or go on if what was waited for has come."""
    action, waits = instruction.action, situation.memory.waits
    due = waits.get("due")
    if due is None:
        due = _due(situation, action)
    held = "until" in action and situation.condition(action["until"])
    if situation.trying and not held and due > situation.now:
        return Done({"would_wait_until": time.format_ms(due)}, {"held": held})
    if held or due <= situation.now:
        situation.memory.waits = {}
        return Done({"reason": "until" if held else "time", "due": time.format_ms(due)}, {"held": held})
    situation.memory.waits = {"due": due, "until": "until" in action}
    return Sleep(due, runs.WAITING, {"due": time.format_ms(due)})


def _due(situation: Situation, action: dict[str, Any]) -> int:
    longest = situation.now + LONGEST_DAYS * time.DAY_MS
    if "for" in action:
        duration = durations.parse(action["for"])
        assert duration is not None
        return min(duration.after(situation.now, situation.zone), longest)
    value = situation.values().body({"at": action["at"]})["at"]
    if value is None:
        return situation.now
    try:
        return min(time.moment_ms(value, situation.now, situation.zone), longest)
    except (ValueError, TypeError, AttributeError) as error:
        detail = f"at must be a date or a time, and is {str(value)[:80]}."
        raise Invalid(detail, errors=[Issue("invalid_date", detail, pointer="/at")]) from error


KIND: Final = Kind("wait", ("for", "at", "until"), check, perform)
