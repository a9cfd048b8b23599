"""Schedules: the moments at which something runs again and again, by cron or by a recurrence rule, in a time zone.

Why not cron's library alone: what a clock skips and shows twice is decided here, the same for both forms, and asked of
the zone's rules at each call. The library (`cronsim`) reads the expression and goes through local times; it never sees
a zone. Rules expand in local times, too (`recurrence`).

- A time that the clocks skip runs at the first moment behind the gap. Times that a gap makes one run once.
- A time that comes twice runs once, the first time.
- A cron expression with `*` in the hours or the minutes, or with steps (`/`) in the minutes, goes by the time that
  passes: it runs each time that the clock shows what it says. An hourly one therefore runs in both of the hours that
  have one name, and not in one that is skipped. Nor does `0 */2 * * *` run if 02:00 is skipped, while `0 0,2,4 * * *`
  does, at 03:00.

Cron has five fields: minute, hour, day of the month, month, day of the week (0 and 7 are Sunday), with names (MON,
JAN), lists, ranges, steps, `L` (last day), `LW` (last weekday), `5L` (last Friday) and `5#2` (second Friday). Given
both days, either is enough, unless one of them begins with `*` (as in Debian's cron).

Rules have no COUNT, since a schedule keeps no record of how often it ran; UNTIL ends them, with its own moment
included. A rule with an interval, or one that leaves its day open, counts from `start`; nothing runs before that day.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from itertools import islice, takewhile
from typing import Any, Final

from cronsim import CronSim, CronSimError

from taskade_server.kit import recurrence, zones
from taskade_server.kit import time as times
from taskade_server.kit.errors import MAX_ISSUES, Issue, with_allowed
from taskade_server.kit.recurrence import Rule
from taskade_server.kit.strict_json import escape_pointer
from taskade_server.kit.zones import Zone

MEMBERS: Final = ("cron", "rrule", "at", "start")
MAX_CRON: Final = 200
"""The longest cron expression, in characters."""
MAX_RULE: Final = 500
"""The longest rule, in characters."""
_MINUTE: Final = timedelta(minutes=1)
_SECOND: Final = timedelta(seconds=1)
_WEEK: Final = timedelta(weeks=1)
_MS: Final = timedelta(milliseconds=1)
_CALENDAR: Final = datetime(2000, 1, 1)
"""Where a search for days that never come begins: the library looks 50 years ahead, and 28 of them hold them all."""
_FIELDS: Final = (
    # name, numbers, how many there are, what else there may be
    ("minute", "0 to 59", 60, ""),
    ("hour", "0 to 23", 24, ""),
    ("day of the month", "1 to 31", 31, ", L (the last day) or LW (the last weekday)"),
    ("month", "1 to 12", 12, " or JAN to DEC"),
    ("day of the week", "0 to 7 (0 and 7 are Sunday)", 7, ", SUN to SAT, 5L (the last Friday) or 5#2 (the second one)"),
)  # fmt: skip
_MACROS: Final = {
    "@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *", "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *",
}  # fmt: skip
_AT: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])", re.ASCII)
_CHARACTERS: Final = re.compile(r"[0-9A-Za-z*,/#-]+", re.ASCII)


# ---- the moments -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule in the zone of an IANA name: either `cron` is set, or `rule` with all of its times of day.

    A rule with a `start` has everything that it leaves to it.
    """

    zone: str
    cron: str | None = None
    rule: Rule | None = None
    start: date | None = None

    @classmethod
    def of(cls, document: dict[str, Any], zone: str) -> "Schedule":
        """The schedule that a document stands for. ValueError with its first fault, or if there is no such zone."""
        faults = check(document, "")
        if faults:
            raise ValueError(faults[0].detail)
        zones.get(zone)
        given = _given(document)
        if "cron" in given:
            return cls(zone, cron=given["cron"])
        start = times.day(given["start"]) if "start" in given else None
        return cls(zone, rule=_complete(given["rrule"], given.get("at"), start), start=start)

    def next(self, after: int) -> int | None:
        """The first moment (epoch ms) behind another; None if it never runs again, or not within some decades."""
        return next(self._moments(after), None)

    def between(self, after: int, until: int, limit: int) -> list[int]:
        """The moments (epoch ms) behind `after` and up to `until`, with it, in order: the first `limit` of them."""
        return list(islice(takewhile(lambda moment: moment <= until, self._moments(after)), max(limit, 0)))

    def _moments(self, after: int) -> Iterator[int]:
        """All moments behind another, in order. Looking for each one is bounded work."""
        zone = zones.get(self.zone)
        try:
            if self.cron is not None and _goes_by_elapsed_time(self.cron):
                yield from _elapsed(self.cron, after, zone)
                return
            until = self.rule.until if self.rule is not None else None
            end = recurrence.last_moment(until, zone) if until is not None else None
            for shown in self._local_times(zones.local(after, zone)):
                moment = zones.first_moment(shown, zone)
                if end is not None and moment > end:
                    return
                if moment > after:
                    after = moment
                    yield moment
        except OverflowError:  # beyond the year 9999
            return

    def _local_times(self, behind: datetime) -> Iterator[datetime]:
        """What a clock shows when it runs, in order, behind a local time.

        What a clock showed up to then has run by then: of a time that comes twice, the second is no run.
        """
        if self.cron is not None:
            yield from CronSim(self.cron, behind)
        elif self.rule is not None:
            yield from _expanded(self.rule, self.start, behind)


def _goes_by_elapsed_time(cron: str) -> bool:
    minutes, hours = cron.split()[:2]
    return "*" in hours or "*" in minutes or "/" in minutes


def _elapsed(cron: str, after: int, zone: Zone) -> Iterator[int]:
    """The moments behind another at which a clock shows what cron says, each time that it does.

    From one change of the clocks to the next, the clock goes as time does. Of a long time without a run, only the first
    and the last week may show a time of the past, or of the next run, once more.
    """
    begin, shown, behind = after, zones.local(after, zone), zones.local(after, zone)
    reached = after
    while True:
        again = None
        for wanted in CronSim(cron, behind):
            moment = begin + (wanted - shown) // timedelta(milliseconds=1)
            is_far = moment - reached > 2 * _WEEK // _MS
            again = zones.next_change(reached, reached + _WEEK // _MS if is_far else moment, zone)
            if again is None and is_far:
                again = zones.first_moment(wanted - _WEEK, zone)
            if again is not None:
                break
            reached = moment
            yield moment
        if again is None:
            return
        begin = reached = again
        shown = zones.local(again, zone)
        behind = shown - _SECOND


def _expanded(rule: Rule, start: date | None, behind: datetime) -> Iterator[datetime]:
    """The local times that a rule names behind another, none before the day of its start."""
    near = max(behind.date(), start or date.min)
    anchor = near if start is None else _period_near(rule, start, near)
    for shown in recurrence.moments(rule, datetime.combine(anchor, time()), whole_days=False):
        if shown > behind and shown.date() >= (start or date.min):
            yield shown


def _period_near(rule: Rule, start: date, near: date) -> date:
    """A day in the last period that an interval from the start names, and that does not begin behind a day.

    A search from the start of long ago would end before it came to the present.
    """
    step = rule.interval
    if rule.frequency == "DAILY":
        return start + timedelta((near - start).days // step * step)
    if rule.frequency == "WEEKLY":
        begin, there = (day.toordinal() - (day.weekday() - rule.week_start) % 7 for day in (start, near))
        return start + timedelta((there - begin) // 7 // step * step * 7)
    if rule.frequency == "MONTHLY":
        months = (near.year - start.year) * 12 + near.month - start.month
        return times.add_months(start.replace(day=1), months // step * step)
    return date(start.year + (near.year - start.year) // step * step, 1, 1)


@lru_cache(1024)
def _complete(text: str, at: str | None, start: date | None) -> Rule:
    """A rule with its times of day, and with what it leaves to its start."""
    rule = replace(recurrence.parse(text), seconds=(0,))
    if at is not None:
        rule = replace(rule, hours=(int(at[:2]),), minutes=(int(at[3:]),))
    return rule if start is None else recurrence.completed(rule, start)


# ---- checking --------------------------------------------------------------------------------------------------------


def check(document: object, prefix: str) -> list[Issue]:
    """Every fault of a schedule's document; `prefix` is the pointer to it. Members that are null are not there.

    Whether it still has a run to come is a question of the present: ask `Schedule.next`.
    """
    if not isinstance(document, dict):
        detail = 'A schedule is an object: {"cron": "0 9 * * 1-5"} or {"rrule": "FREQ=WEEKLY;BYDAY=MO", "at": "09:00"}.'
        return [Issue("wrong_type", detail, pointer=prefix)]
    faults = [
        Issue(
            "unknown_field",
            with_allowed(f'A schedule has no "{name[:80]}".', name, MEMBERS),
            pointer=_below(prefix, name),
        )
        for name in islice((name for name in document if name not in MEMBERS), MAX_ISSUES)
    ]
    given = _given(document)
    wrong = [name for name, value in given.items() if not isinstance(value, str)]
    faults += [Issue("wrong_type", _EXAMPLES[name], pointer=f"{prefix}/{name}") for name in wrong]
    if "cron" in given and "rrule" in given:
        detail = "Give cron or rrule, not both: two schedules are two automations."
        faults.append(Issue("not_allowed", detail, pointer=f"{prefix}/rrule"))
    elif "cron" not in given and "rrule" not in given:
        detail = 'Say when: cron ("0 9 * * 1-5"), or rrule ("FREQ=WEEKLY;BYDAY=MO") with at ("09:00").'
        faults.append(Issue("required", detail, pointer=prefix))
    sound = {name: value for name, value in given.items() if name not in wrong}
    return faults + _faults_of_cron(sound, prefix) + _faults_of_rule(sound, given, prefix)


_EXAMPLES: Final = {
    "cron": 'cron is a text with five fields, such as "0 9 * * 1-5".',
    "rrule": 'rrule is a text such as "FREQ=WEEKLY;BYDAY=MO".',
    "at": 'at is a time of day as a text, such as "09:00".',
    "start": 'start is a date as a text, such as "2026-01-05".',
}


def _below(prefix: str, name: str) -> str:
    return f"{prefix}/{escape_pointer(name)}"


def _given(document: dict[str, Any]) -> dict[str, Any]:
    return {name: document[name] for name in MEMBERS if document.get(name) is not None}


def _faults_of_cron(given: dict[str, str], prefix: str) -> list[Issue]:
    if "cron" not in given:
        return []
    faults = [Issue("invalid_cron", detail, pointer=f"{prefix}/cron") for detail in _wrong_in_cron(given["cron"])]
    if "rrule" in given:
        return faults
    reasons = {
        "at": "Leave at out: cron has the time of day in its first two fields.",
        "start": "Leave start out: it belongs to rrule. Cron runs from the moment on at which it is saved.",
    }
    return faults + [
        Issue("not_allowed", reasons[name], pointer=f"{prefix}/{name}") for name in reasons if name in given
    ]


def _wrong_in_cron(text: str) -> list[str]:
    """What is wrong with a cron expression, each as a sentence with what to do."""
    fields = text.split()
    if len(text) > MAX_CRON:
        return [f"cron has at most {MAX_CRON} characters."]
    if text.strip().startswith("@"):
        meant = _MACROS.get(text.strip().lower())
        return [f'Write "{meant}" instead of {text.strip()}.' if meant else f"Write five fields: {_EXAMPLE_OF_FIELDS}"]
    if len(fields) != 5:
        seconds = " There are no seconds, as nothing runs more than once a minute." if len(fields) == 6 else ""
        return [f"cron has five fields, not {len(fields)}: {_EXAMPLE_OF_FIELDS}{seconds}"]
    wrong = [
        f'The {name} "{field[:40]}" is not right: {numbers}{more}, with lists (1,2), ranges (1-5, upward) and '
        f"steps (*/5) of at most {count}."
        for field, (name, numbers, count, more), place in zip(fields, _FIELDS, range(5), strict=True)
        if not _is_field(field, place, count)
    ]
    if wrong:
        return wrong
    never = "Such a day never comes: none is right by its number, its month and its weekday at once."
    try:
        return [] if next(CronSim(text, _CALENDAR), None) else [never]
    except CronSimError:
        return [never]


_EXAMPLE_OF_FIELDS: Final = (
    'minute, hour, day of the month, month, day of the week, as in "0 9 * * 1-5" (09:00 on weekdays).'
)


def _is_field(field: str, place: int, count: int) -> bool:
    """Whether one field is right by itself.

    Refused are steps that do something else than they say: one beyond the field's end names the first number only, one
    from `5-5` on would go to the end of the field, and one from L on none.
    """
    if not _CHARACTERS.fullmatch(field):
        return False
    for term in field.split(","):
        numbers, slash, step = term.partition("/")
        if slash and (not step.isdigit() or int(step) > count or numbers.upper().startswith("L")):
            return False
        if slash and "-" in numbers and len(_numbers(numbers, place)) < 2:
            return False
    return bool(_numbers(field, place))


def _numbers(field: str, place: int) -> set[Any]:
    """What a field names; empty if it is not right."""
    try:
        cron = CronSim(" ".join(field if number == place else "*" for number in range(5)), _CALENDAR)
    except CronSimError:
        return set()
    return set((cron.minutes, cron.hours, cron.days, cron.months, cron.weekdays)[place])


def _faults_of_rule(sound: dict[str, str], given: dict[str, Any], prefix: str) -> list[Issue]:
    if "cron" in given or "rrule" not in given:
        return []
    faults = []
    at, start = sound.get("at"), sound.get("start")
    if at is not None and not _AT.fullmatch(at):
        short = f' Write "0{at[:4]}".' if _AT.fullmatch(f"0{at}") else ""
        detail = f'at is a time of day as HH:MM, from "00:00" to "23:59", without seconds.{short}'
        faults.append(Issue("invalid_format", detail, pointer=f"{prefix}/at"))
    day: date | None = None
    if start is not None:
        try:
            day = times.day(start) if times.is_date(start) else None
        except ValueError as error:
            faults.append(Issue("invalid_date", f"start: {error}.", pointer=f"{prefix}/start"))
        else:
            if day is None:
                faults.append(Issue("invalid_format", _EXAMPLES["start"], pointer=f"{prefix}/start"))
    if "rrule" not in sound:
        return faults
    try:
        rule = _new_rule(sound["rrule"])
    except ValueError as error:
        return [*faults, Issue("invalid_rrule", f"rrule: {error}.", pointer=f"{prefix}/rrule")]
    faults += _faults_of_times(rule, "at" in given, prefix)
    faults += _faults_of_start(rule, "start" in given, prefix)
    return faults or _faults_of_days(sound, day, prefix)


def _new_rule(text: str) -> Rule:
    """A rule that schedules may have; ValueError says what is wrong with another."""
    if len(text) > MAX_RULE:
        raise ValueError(f"a rule has at most {MAX_RULE} characters")
    rule = recurrence.parse(text)
    recurrence.check_new(text)
    if rule.count is not None:
        raise ValueError("COUNT is not for schedules, which keep no count of their runs; end the rule with UNTIL")
    if rule.seconds:
        raise ValueError("BYSECOND is not for schedules, which run at most once a minute; leave it out")
    return rule


def _faults_of_times(rule: Rule, has_at: bool, prefix: str) -> list[Issue]:
    """Faults of the times of day: `at`, or both BYHOUR and BYMINUTE."""
    if has_at and (rule.hours or rule.minutes):
        detail = "Give at, or BYHOUR and BYMINUTE in the rule, not both."
        return [Issue("not_allowed", detail, pointer=f"{prefix}/at")]
    if not has_at and not (rule.hours and rule.minutes):
        detail = (
            'Say at what time of day, such as "09:00"; for several times a day, give BYHOUR and BYMINUTE in the rule.'
        )
        return [Issue("required", detail, pointer=f"{prefix}/at")]
    return []


def _faults_of_start(rule: Rule, has_start: bool, prefix: str) -> list[Issue]:
    """The fault of a rule that counts from its start and has none."""
    if has_start:
        return []
    if rule.interval > 1:
        detail = f"INTERVAL={rule.interval} counts from a day: give start, a date in the first period that runs."
        return [Issue("required", detail, pointer=f"{prefix}/start")]
    if recurrence.completed(rule, date(2000, 1, 1)) != rule:
        detail = "The rule names no day: add one, as in BYDAY=MO or BYMONTHDAY=1, or give start, whose day it then has."
        return [Issue("required", detail, pointer=f"{prefix}/start")]
    return []


def _faults_of_days(given: dict[str, str], start: date | None, prefix: str) -> list[Issue]:
    """The fault of a sound rule that never runs. The calendar repeats every 400 years, weekdays included."""
    rule = _complete(given["rrule"], given.get("at"), start)
    early = (start or date(2000, 1, 1)).replace(year=2000 + (start.year % 400 if start else 0))
    first = next(_expanded(replace(rule, until=None), early, datetime.combine(early, time()) - _MINUTE), None)
    if first is None:
        detail = "rrule: such a day never comes, or is too far away."
        return [Issue("invalid_rrule", detail, pointer=f"{prefix}/rrule")]
    last = None if rule.until is None else date(*rule.until.timetuple()[:3])
    # A day more, as UNTIL may be a moment of another zone.
    if start and last and (first.date() - early).days > (last - start).days + 1:
        detail = "rrule: UNTIL lies before the first run; give a later one, or leave it out."
        return [Issue("invalid_rrule", detail, pointer=f"{prefix}/rrule")]
    return []
