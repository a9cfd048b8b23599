"""Computes the next occurrence of a recurring task: its dates, its rule, and by how much its subtasks' dates move.

Why apart from the tasks: it is arithmetic on one document, and undo needs it for completions of long ago.

A rule counts in the time zone of its task (RFC 5545). A task that is due at a time is due again at the same local time.
If the clocks skip that time, the occurrence is later by as much, and the one after it is on time again: its rule then
names the hour, minute and second that were meant.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from taskade_server.kit import recurrence, time, zones
from taskade_server.kit.recurrence import Rule
from taskade_server.kit.zones import Zone

RULE_STEPS: Final = 50
"""Steps of the budget for parsing a recurrence rule."""
SEARCH_STEPS: Final = 3
"""Steps of the budget for each day or period that the search for the next date looks at."""
MAX_RULE: Final = 500
"""The longest rule, in characters."""

Spend = Callable[[int], None]


def _free(steps: int) -> None:
    """Spend nothing."""


@dataclass(frozen=True, slots=True)
class Occurrence:
    """The next occurrence of a task: its date, its rule, and how far its dates are from those before.

    `member` is the date that the rule goes by: `due_date`, or `start_date` of a task that has no other. `days` move a
    date, `clock` what a clock shows.
    """

    at: str
    rule: str
    days: int
    clock: timedelta
    zone: Zone
    member: str = "due_date"

    def moved(self, text: str | None) -> str | None:
        """A date or time of the task or of one below it, for the next occurrence. OverflowError, ValueError."""
        if text is None:
            return None
        if time.is_date(text):
            return (time.day(text) + timedelta(self.days)).isoformat()
        shown = zones.local(time.parse_ms(text), self.zone) + self.clock
        return time.format_ms(zones.moment(shown, self.zone))


def following(task: Mapping[str, Any], rule: str, zone: Zone, spend: Spend = _free) -> Occurrence | None:
    """What comes after a completed task by a rule in a zone; None if nothing does. ValueError, OverflowError.

    The rule goes by the due date; without one by the start date; without either by the day of the completion, which
    then gives the next task a due date.
    """
    spend(RULE_STEPS)
    parsed = recurrence.parse(rule)
    if parsed.count == 1:
        return None  # COUNT tells how many occurrences there are from this one on, and this is the last
    at = time.parse_ms(task["completed_at"])
    today = zones.day_of(at, zone)
    base = task["due_date"] or task["start_date"] or today.isoformat()
    anchor = at if task["recurrence_from"] == "completion" else None
    if time.is_date(base):
        found = _next_day(parsed, rule, time.day(base), today if anchor else time.day(base), zone, spend)
    else:
        found = _next_time(parsed, rule, time.parse_ms(base), anchor, zone, spend)
    by_start = found is not None and task["due_date"] is None and task["start_date"] is not None
    return replace(found, member="start_date") if found is not None and by_start else found


def following_formerly(task: Mapping[str, Any], rule: str, zone: Zone) -> Occurrence | None:
    """What once came after a completed task with a start date alone. ValueError, OverflowError.

    It got a due date, counted from the day of its completion, or from the start if that was still to come.
    """
    today = zones.day_of(time.parse_ms(task["completed_at"]), zone)
    start = task["start_date"]
    base = start if date.fromisoformat(day_in(start, zone)) > today else None
    return following({**task, "start_date": None, "due_date": base}, rule, zone)


def _next_day(parsed: Rule, rule: str, due: date, base: date, zone: Zone, spend: Spend) -> Occurrence | None:
    start = datetime(base.year, base.month, base.day)
    found = recurrence.next_after(parsed, start, whole_days=True, spend=_priced(spend))
    if found is None or (parsed.until is not None and found.date() > _last_day(parsed.until, zone)):
        return None
    days = (found.date() - due).days
    return Occurrence(found.date().isoformat(), counted_down(rule), days, timedelta(days), zone)


def _next_time(parsed: Rule, rule: str, due: int, completed: int | None, zone: Zone, spend: Spend) -> Occurrence | None:
    meant = _meant(parsed, due, zone, spend)
    start, after = meant, due
    if completed is not None:
        # At the same time of day as before, but not before the completion itself.
        start = datetime.combine(zones.day_of(completed, zone), meant.time())
        after = max(completed, zones.moment(start, zone))
    found = recurrence.next_in(parsed, start, after, zone, _priced(spend))
    if found is None or (parsed.until is not None and found[1] > recurrence.last_moment(parsed.until, zone)):
        return None
    shown, at = found
    rule = counted_down(rule)
    if zones.local(at, zone) != shown:
        rule = _spelled_out(rule, parsed, shown)
    days = (shown.date() - meant.date()).days
    return Occurrence(time.format_ms(at), rule, days, shown - meant, zone)


def _meant(parsed: Rule, due: int, zone: Zone, spend: Spend) -> datetime:
    """The local time that a rule meant by a moment: where a clock skipped one, that, and not what it showed then.

    Only a rule that says all of its time of day can have been late (`_spelled_out`).
    """
    shown = zones.local(due, zone)
    if not (parsed.hours and parsed.minutes and parsed.seconds):
        return shown
    times = recurrence.times_of(parsed, shown)
    spend(2 * len(times))
    # At most a whole day is skipped, as on some islands that moved to the other side of the date line.
    candidates = [datetime.combine(shown.date() - timedelta(back), one) for back in (0, 1) for one in times]
    return next((one for one in candidates if one != shown and zones.moment(one, zone) == due), shown)


def _spelled_out(rule: str, parsed: Rule, shown: datetime) -> str:
    """A rule with what it left to its start: the start of the next one is not what the rule means."""
    parts = []
    whole = recurrence.completed(parsed, shown.date())
    if whole.weekdays != parsed.weekdays:
        parts.append(f"BYDAY={recurrence.WEEKDAYS[shown.weekday()]}")
    if whole.months != parsed.months:
        parts.append(f"BYMONTH={shown.month}")
    if whole.month_days != parsed.month_days:
        parts.append(f"BYMONTHDAY={shown.day}")
    for name, given, value in (
        ("BYHOUR", parsed.hours, shown.hour),
        ("BYMINUTE", parsed.minutes, shown.minute),
        ("BYSECOND", parsed.seconds, shown.second),
    ):
        if not given:
            parts.append(f"{name}={value}")
    found = ";".join([rule, *parts])
    return found if len(found) <= MAX_RULE else rule


def require_day(rule: str, due: str | None, zone: Zone = UTC, spend: Spend = _free) -> None:
    """ValueError if a new rule is invalid, or names no day at all, whatever its COUNT or UNTIL.

    `due` is the date that it goes by.

    The calendar repeats every 400 years, so that the years from 2000 on stand for all.
    """
    spend(RULE_STEPS)
    parsed = recurrence.parse(rule)
    recurrence.check_new(rule)
    is_day = due is None or time.is_date(due)
    shown = zones.local(time.now_ms() if due is None else time.parse_ms(due), UTC if due and is_day else zone)
    start = shown.replace(year=2000 + shown.year % 400)
    endless = replace(parsed, until=None)
    if recurrence.next_after(endless, start, whole_days=is_day, spend=_priced(spend)) is None:
        raise ValueError("such a day never comes, or is too far away")


def day_in(text: str, zone: Zone) -> str:
    """A date as it is, of a time its day in a zone."""
    return text if time.is_date(text) else zones.day_of(time.parse_ms(text), zone).isoformat()


def counted_down(rule: str) -> str:
    """A rule with one occurrence less to come."""
    parts = []
    for part in rule.split(";"):
        name, _, value = part.partition("=")
        parts.append(f"{name}={int(value) - 1}" if name.upper().endswith("COUNT") and value.isdigit() else part)
    return ";".join(parts)


def _priced(spend: Spend) -> Spend:
    return lambda steps: spend(SEARCH_STEPS * steps)


def _last_day(until: date | datetime, zone: Zone) -> date:
    """The last day that a rule of dates allows."""
    if not isinstance(until, datetime):
        return until
    if until.tzinfo is None:
        return until.date()
    return zones.day_of(zones.moment(until.replace(tzinfo=None), UTC), zone)
