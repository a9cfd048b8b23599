"""Makes the tasks: the same ones in every run and for every peer, because a seed decides them.

They are as uneven as real work is: most tasks are done, some projects are many times larger than others, few tasks
are urgent, names are made of words of which some are common and most are rare. A filter is only tested by data in
which it selects sometimes much and sometimes little.
"""

import random
from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import accumulate
from typing import Any

STATUSES = ("completed", "pending", "in_progress")
PRIORITIES = ("none", "low", "medium", "high", "urgent")
LABELS = (
    *("bug", "feature", "design", "research", "docs", "backend", "frontend", "mobile", "ops", "security"),
    *("urgent", "client-work", "blocked", "quick-win", "tech-debt", "onboarding", "billing", "legal", "sales", "data"),
    *("q1", "q2", "q3", "q4", "later", "needs-review", "waiting", "recurring", "regression", "spike"),
)
REGIONS = ("north", "south", "east", "west", "central", "overseas", "islands", "highlands")
FIELDS = {"customer": "text", "region": "text", "points": "number"}
NEW_TASK = {  # the load generator puts a number for {n}
    "name": "Prepare checklist {n}",
    "description": "Agreed in the weekly meeting. See the notes for details.",
    "status": "pending",
    "priority": "medium",
    "labels": ["bug", "ops"],
    "due_date": "2025-06-30",
}
FIRST_DAY = date(2023, 1, 1)
DAYS = 1400  # due dates are spread over these, most of them late: teams grow

_VERBS = ("Fix", "Write", "Review", "Plan", "Test", "Draft", "Update", "Remove", "Measure", "Prepare", "Check", "Ship")
_THINGS = (
    *("invoice", "contract", "login", "report", "search", "export", "banner", "budget", "survey", "webhook", "pricing"),
    *("dashboard", "calendar", "roadmap", "handbook", "newsletter", "migration", "backup", "interview", "workshop"),
    *("prototype", "template", "integration", "checklist", "glossary", "warehouse", "schedule", "agreement", "design"),
)


def _rare_words(count: int) -> list[str]:
    rng = random.Random("words")
    syllables = [consonant + vowel for consonant in "bdfghklmnprstvwz" for vowel in "aeiou"]
    return ["".join(rng.choices(syllables, k=3)) for _ in range(count)]


RARE = _rare_words(4000)


@dataclass(frozen=True)
class Shape:
    """How much of what. Users and custom fields are only for peers that know them."""

    tasks: int
    projects: int = 200
    users: int = 0
    customers: int = 0  # different values of the text field `customer`; 0: no custom fields
    even: bool = True  # every project has the same number of tasks, and every task a due date


@dataclass(frozen=True)
class Task:
    """A task whose project and assignee are numbers still: each peer has its own ids for them."""

    project: int
    assignee: int | None
    fields: dict[str, Any]


class _Weighted:
    """A choice among numbers, the first ones far more likely than the last."""

    def __init__(self, count: int, skew: float) -> None:
        self._edges = list(accumulate(1 / (n + 1) ** skew for n in range(count)))

    def __call__(self, rng: random.Random) -> int:
        return min(bisect(self._edges, rng.random() * self._edges[-1]), len(self._edges) - 1)


def day(rng: random.Random) -> date:
    """A due date."""
    return FIRST_DAY + timedelta(days=int(DAYS * rng.random() ** 0.7))


def words(rng: random.Random) -> list[str]:
    """What a name is made of: a verb, a thing, and two words that are rare in the whole workspace."""
    return [rng.choice(_VERBS), rng.choice(_THINGS), rng.choice(RARE), rng.choice(RARE)]


def tasks(shape: Shape, seed: str = "tasks") -> Iterator[Task]:
    """All tasks, in the order in which they are created."""
    rng = random.Random(seed)
    pick_project = _Weighted(shape.projects, 0.8)
    pick_user = _Weighted(shape.users, 0.5) if shape.users else None
    pick_label = _Weighted(len(LABELS), 0.9)
    for number in range(shape.tasks):
        fields: dict[str, Any] = {
            "name": f"{' '.join(words(rng))} {number}",
            "description": f"Agreed in the weekly meeting. See {rng.choice(RARE)} and {rng.choice(RARE)} for details.",
            "status": rng.choices(STATUSES, (55, 35, 10) if shape.even else (72, 20, 8))[0],
            "priority": rng.choices(PRIORITIES, (50, 15, 20, 12, 3))[0],
            "labels": sorted({LABELS[pick_label(rng)] for _ in range(rng.choice((0, 1, 1, 2, 3)))}),
        }
        if shape.even or rng.random() < 0.8:
            fields["due_date"] = day(rng).isoformat()
        if shape.customers:
            fields["custom_fields"] = {
                "customer": f"customer-{rng.randrange(shape.customers)}",
                "region": rng.choice(REGIONS),
                "points": rng.randrange(1, 1001),
            }
        assignee = pick_user(rng) if pick_user and rng.random() < 0.85 else None
        project = number % shape.projects if shape.even else pick_project(rng)
        yield Task(project, assignee, fields)
