"""Carries deliveries out: what is due goes to its endpoint, and what follows from the answer is written down.

Why an endpoint's state is here and not in the database: how much is under way, and whether the other side answers at
all, changes with every request. Only one process has an endpoint at a time, by its lease: one memory is enough.
Everybody else imports from here.
"""

from taskade_server.consumers.sender.attempts import (
    GONE,
    INTERNAL,
    INVISIBLE,
    JITTER,
    KEPT_BODY,
    KEPT_HEADERS,
    MAX_RETRY_AFTER,
    OWN,
    SCHEDULE,
    attempt_of,
    body_of,
    fault_of,
    next_wait,
    outcome_of,
    request_headers,
    test_event,
)
from taskade_server.consumers.sender.endpoint_queue import (
    OPEN_AFTER,
    OPEN_SECONDS,
    SHORTAGE_SECONDS,
    THROTTLE_SECONDS,
    EndpointQueue,
)
from taskade_server.consumers.sender.outcomes import FAILING_DAYS, note
from taskade_server.consumers.sender.sending import (
    ATTEMPT_STEPS,
    LOOK_SECONDS,
    PREFETCH,
    RECORD_AT_ONCE,
    TIMEOUT_SECONDS,
    Sender,
)

__all__ = [
    "ATTEMPT_STEPS",
    "FAILING_DAYS",
    "GONE",
    "INTERNAL",
    "INVISIBLE",
    "JITTER",
    "KEPT_BODY",
    "KEPT_HEADERS",
    "LOOK_SECONDS",
    "MAX_RETRY_AFTER",
    "OPEN_AFTER",
    "OPEN_SECONDS",
    "OWN",
    "PREFETCH",
    "RECORD_AT_ONCE",
    "SCHEDULE",
    "SHORTAGE_SECONDS",
    "THROTTLE_SECONDS",
    "TIMEOUT_SECONDS",
    "EndpointQueue",
    "Sender",
    "attempt_of",
    "body_of",
    "fault_of",
    "next_wait",
    "note",
    "outcome_of",
    "request_headers",
    "test_event",
]
