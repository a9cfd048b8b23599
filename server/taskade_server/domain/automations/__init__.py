"""Automations: rules that watch the log or the clock, and the runs that they start.

Why readers of the log: a change costs nothing more because rules exist, none is missed, and none is acted on twice.
Everybody else imports from here.
"""

from taskade_server.domain.automations.by_hand import cancel, check_input, retry, start_for
from taskade_server.domain.automations.changing import create, delete, disable, draft, update
from taskade_server.domain.automations.circles import Circle, circles
from taskade_server.domain.automations.explaining import explain, explanation
from taskade_server.domain.automations.firing import Firing, correct_times, fire
from taskade_server.domain.automations.operations import Acting, Operations
from taskade_server.domain.automations.resources import AUTOMATION, READER
from taskade_server.domain.automations.rules import FAILING, RIGHTS, Rule, rules
from taskade_server.domain.automations.running import (
    MAX_FAILURES,
    Progress,
    Services,
    StepFailed,
    advance,
    record_failure,
)
from taskade_server.domain.automations.situation import resource_of
from taskade_server.domain.automations.starting import Cause, cause_of, chain_of, circle_of, start, start_by_hand
from taskade_server.domain.automations.timing.following import follow
from taskade_server.domain.automations.timing.scanning import scan
from taskade_server.domain.automations.trying import Trial, Trying, kind_for, rule_for, try_out, trying

__all__ = [
    "AUTOMATION",
    "FAILING",
    "MAX_FAILURES",
    "READER",
    "RIGHTS",
    "Acting",
    "Cause",
    "Circle",
    "Firing",
    "Operations",
    "Progress",
    "Rule",
    "Services",
    "StepFailed",
    "Trial",
    "Trying",
    "advance",
    "cancel",
    "cause_of",
    "chain_of",
    "check_input",
    "circle_of",
    "circles",
    "correct_times",
    "create",
    "delete",
    "disable",
    "draft",
    "explain",
    "explanation",
    "fire",
    "follow",
    "kind_for",
    "record_failure",
    "resource_of",
    "retry",
    "rule_for",
    "rules",
    "scan",
    "start",
    "start_by_hand",
    "start_for",
    "try_out",
    "trying",
    "update",
]
