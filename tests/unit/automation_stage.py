"""A workspace with automations and a clock of its own, in which the server's part is done step by step."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from taskade_server.consumers.automations import starts
from taskade_server.consumers.matching import match_events
from taskade_server.domain import automations
from taskade_server.domain.automations import AUTOMATION, READER, Firing, changing, firing
from taskade_server.domain.automations.timing import scanning
from taskade_server.domain.tasks import COMMENT, TASK
from taskade_server.engine import log
from taskade_server.engine.log import Actor, Change
from taskade_server.engine.model import Resource
from taskade_server.kit import ids, json, time
from taskade_server.kit.budget import Budget
from taskade_server.store.database import Database, Tx
from taskade_server.store.tables import runs, timers

from tests.unit import world

HOME = world.WORKSPACES[0]
PROJECT = world.PROJECTS[0]
STOP = [{"do": "stop"}]
TABLES = (
    "automations", "automation_versions", "automation_runs", "automation_timers", "automation_scans", "comments",
    "cursors",
)  # fmt: skip


def ms(text: str) -> int:
    return time.parse_ms(text)


class Stage:
    """One workspace with its clock, and what the server does about its automations, step by step."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.now = ms("2024-01-15T10:30:00Z")
        self.watched = 0

    def clock(self) -> int:
        return self.now

    def apply(self, *changes: Change, origin: str | None = None) -> list[dict[str, Any]]:
        actor = Actor(world.USERS[0], None, ids.new("req"), origin=origin)
        return [json.decode(text) for text in self.db.write_sync(lambda tx: log.apply(tx, actor, list(changes)))]

    # -- automations

    def automation(self, trigger: dict[str, Any], **more: Any) -> dict[str, Any]:
        given = {
            "id": ids.new("auto"), "workspace_id": HOME, "user_id": world.USERS[0], "api_key_id": ids.new("key"),
            "name": "A rule", "enabled": True, "mode": "parallel", "trigger": trigger, "actions": STOP, **more,
        }  # fmt: skip
        (found,) = self.apply(world.created(AUTOMATION, **given))
        self.begin(found)
        return found

    def begin(self, document: dict[str, Any], *, existing: bool = True) -> None:
        self.db.write_sync(lambda tx: changing._begin_version(tx, document, existing=existing))

    def alter(self, before: dict[str, Any], **members: Any) -> dict[str, Any]:
        (found,) = self._update(AUTOMATION, before, members)
        self.begin(found, existing="trigger" in members or members.get("enabled", False))
        return found

    # -- objects

    def task(self, **members: Any) -> dict[str, Any]:
        same = {"name": "A task", "status": "pending", "position": "b", "workspace_id": HOME, "project_id": PROJECT}
        (found,) = self.apply(world.created(TASK, **{**same, "id": ids.new("task"), **members}))
        return found

    def change(self, task: dict[str, Any], *, origin: str | None = None, **members: Any) -> dict[str, Any]:
        (found,) = self._update(TASK, task, members, origin)
        return found

    def comment(self, task: dict[str, Any], origin: str | None = None) -> None:
        members = {"task_id": task["id"], "project_id": task["project_id"], "workspace_id": HOME, "body": "Well?"}
        change = world.created(COMMENT, id=ids.new("cmt"), author=world.USERS[0], **members)
        self.apply(change, origin=origin)

    def _update(
        self, resource: Resource, before: dict[str, Any], members: dict[str, Any], origin: str | None = None
    ) -> list[dict[str, Any]]:
        sql = f"SELECT n, doc FROM {resource.table} WHERE id = ?"
        n, doc = self.db.read_sync(lambda tx: tx.one(sql, (before["id"],))) or (0, "")
        now = json.decode(doc)
        return self.apply(Change(resource, "updated", {**now, **members}, now, n), origin=origin)

    # -- the server

    def read(self) -> None:
        """Let the reader of the log do what it does about all events."""
        for workspace_id, position in self.db.read_sync(partial(runs.behind, reader=READER, limit=10)):
            page = self.db.read_sync(partial(starts.read_page, workspace_id=workspace_id, position=position))
            for _ in match_events(page, Budget(10**9)):
                pass
            self.db.write_sync(partial(starts.write_runs, page=page))

    def scan(self) -> None:
        while self.db.write_sync(lambda tx: automations.scan(tx, world.SECRET, self.now, 2)):
            pass

    def settle(self) -> None:
        self.read()
        self.scan()

    def fire(self, at: int | str | None = None, *, watched: int | str | None = None) -> None:
        """Fire what is due at a time, by a server that has watched since another one (default: always)."""
        if at is not None:
            self.now = ms(at) if isinstance(at, str) else at
        since = self.watched if watched is None else ms(watched) if isinstance(watched, str) else watched
        while due := self.db.read_sync(partial(timers.due, now=self.now, limit=500)):
            for automation_id, object_id in due:
                self.db.write_sync(partial(self._fire_one, automation_id, object_id, since))

    def _fire_one(self, automation_id: str, object_id: str, watched: int, tx: Tx) -> None:
        automations.fire(tx, Firing(watched), automation_id, object_id, self.now)

    def restart_with(self, now: int | str) -> None:
        """A process begins to watch: it corrects what a clock that was ahead has left."""
        self.now = ms(now) if isinstance(now, str) else now
        self.db.write_sync(lambda tx: automations.correct_times(tx, self.now))

    # -- what is there

    def runs(self, rule: dict[str, Any]) -> list[runs.Run]:
        found = self.db.read_sync(lambda tx: runs.since(tx, rule["id"], 0, 10_000))
        return sorted(found, key=lambda run: run.created_at)

    def causes(self, rule: dict[str, Any], *states: str) -> list[str]:
        """What has started the runs of an automation: moments as times, and objects by their names."""
        return [self._told(run.cause) for run in self.runs(rule) if run.state in (states or ("queued",))]

    def _told(self, cause: str) -> str:
        kind, *rest = cause.split(":")
        return time.format_ms(int(rest[0])) if kind == "schedule" else rest[0]

    def due(self, rule: dict[str, Any], object_id: str = "") -> str | None:
        found = self.db.read_sync(lambda tx: timers.find(tx, rule["id"], object_id))
        return None if found is None else time.format_ms(found.due_at)


@contextmanager
def staged(db: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """A stage with nothing on it yet; automations have the rights of a member."""

    def forget(tx: Tx) -> None:
        world.forget_tasks(tx)
        for table in TABLES:
            tx.run(f"DELETE FROM {table}")

    db.write_sync(forget)
    found = Stage(db)
    for module in (firing, scanning, sys.modules[automations.rules.__module__]):
        monkeypatch.setattr(module, "principal_of", lambda tx, document: world.a_member(HOME))
    with world.frozen_clock(found.clock):
        yield found
