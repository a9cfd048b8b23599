"""The page of the event catalogue: each type with a payload that a real server wrote when the change was made.

Why recorded: a payload written by hand shows what somebody thought. Ids, times and what is made up anew each time are
replaced, so that a second recording gives the same page. `python -m tests.support.catalogue` writes it.
"""

import json
import re
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from taskade_server.domain import automations, webhooks
from taskade_server.engine import edit, events, log
from taskade_server.engine.log import Actor
from taskade_server.engine.model import REGISTRY
from taskade_server.store.database import Database, connect
from taskade_server.tools.client import Api
from taskade_server.tools.triggers import IMPOSSIBLE, TRIGGERS, Scene

from tests.support.server import Server

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "guides" / "event-catalogue.md"
EARLIER, NOW = "2024-01-15T10:30:00.000Z", "2024-01-16T08:15:00.000Z"
_ID: Final = re.compile(r"\b([a-z]+)_[0-9a-hjkmnp-tv-z]{26}\b")
_HEAD: Final = """\
# The event catalogue

Every type of event, with a payload as a server wrote it when the change was made. This page is recorded by
`make openapi`; ids and times are replaced. What the parts mean is in [Events](events.md). `GET /v1/event-types` has the
types for programs, and the OpenAPI document a schema for each of them. Webhooks add one member to these payloads,
`previous_seq`. `taskade trigger TYPE` makes an event happen on your server.
"""


def record(server: Server) -> dict[str, Any]:
    """One event of each type, caused on a server that nobody else uses."""
    api, found = Api(server.url, server.key), {}
    with connect(server.database_url or server.data / "taskade.db") as db:
        for name in events.catalogue():
            heads, caused = _heads(db), None
            if name in TRIGGERS:
                scene = Scene(api)
                TRIGGERS[name](scene)
                caused = scene.caused(name)
            elif name in _DISABLE:
                _DISABLE[name](db, api)
            else:
                _purge(db, api, name.partition(".")[0])
            # Of a workspace that is in the trash the API tells nothing.
            found[name] = caused or _first(db, heads, name)
    return found


def _heads(db: Database) -> dict[str, int]:
    return dict(db.read_sync(lambda tx: [(row[0], row[1]) for row in tx.all("SELECT * FROM log_heads")]))


def _first(db: Database, heads: Mapping[str, int], name: str) -> Any:
    """The first event of a type behind these positions."""
    for workspace_id in _heads(db):
        read = partial(log.read_after, workspace_id=workspace_id, seq=heads.get(workspace_id, 0))
        for event in db.read_sync(read):
            if event.type == name:
                return json.loads(events.render(event))
    raise AssertionError(f"there was no event {name}")


def _purge(db: Database, api: Api, kind: str) -> None:
    """What the server does 30 days after a deletion, at once."""
    TRIGGERS[f"{kind}.deleted"](Scene(api))
    later = int(time.time() * 1000) + 60_000
    db.write_sync(partial(edit.purge, actor=Actor(None), resource=REGISTRY[kind], before_ms=later, limit=500))


def _disable_webhook(db: Database, api: Api) -> None:
    """What the server does about an endpoint that is gone."""
    webhook = api.ask("POST", "/webhooks", {"url": "https://example.com/hooks/taskade", "events": ["task.purged"]})
    db.write_sync(partial(webhooks.disable, webhook_id=webhook["id"], reason="gone"))


def _disable_automation(db: Database, api: Api) -> None:
    """What the server does about an automation whose runs fail."""
    actions = [{"do": "stop"}]
    trigger = {"on": "event", "types": ["task.purged"]}
    automation = api.ask("POST", "/automations", {"name": "Tidy up", "trigger": trigger, "actions": actions})
    disable = partial(automations.disable, automation_id=automation["id"], reason="failing", detail="")
    db.write_sync(disable)


_DISABLE = {"webhook.disabled": _disable_webhook, "automation.disabled": _disable_automation}


# ---- the same at every recording -------------------------------------------------------------------------------------


def settled(event: Any) -> Any:
    """An event with ids in the order in which they appear, and times that say only what came first."""
    text = json.dumps(event)
    known: dict[str, str] = {}
    for found in _ID.finditer(text):
        known.setdefault(found[0], f"{found[1]}_01j9zq3v5kfg8wt2m4n6p{len(known):05d}")
    text = _ID.sub(lambda found: known[found[0]], text)
    text = re.sub(r"trigger[-_][0-9a-z]{12}", "ana", text)
    text = re.sub(r"whpk_[A-Za-z0-9+/=]+", str(webhooks.WEBHOOK.fields["public_key"].example), text)
    return _timed(json.loads(text), event["data"]["version"])


def _timed(event: Any, version: int) -> Any:
    event["seq"], event["timestamp"] = 123, NOW
    if event["previous"]:
        # Two changes in one millisecond have the same time, which is then no change of it.
        event["previous"].setdefault("updated_at", EARLIER)
        event["previous"] = {name: event["previous"][name] for name in event["data"] if name in event["previous"]}
    for document, when in ((event["data"], NOW if version > 1 else EARLIER), (event["previous"] or {}, EARLIER)):
        for name, value in document.items():
            if name == "created_at":
                document[name] = EARLIER
            elif name.endswith("_at") and value is not None:
                document[name] = when
            elif name == "position":
                document[name] = "01j9zq3v5kfg8wt2h"
    if version == 1:
        event["timestamp"] = EARLIER
    return event


def page(recorded: Mapping[str, Any]) -> str:
    """The page."""
    parts, group = [_HEAD], ""
    for name, kind in events.catalogue().items():
        if kind.resource.plural != group:
            group = kind.resource.plural
            parts.append(f"## {group.replace('-', ' ').capitalize().replace('Api', 'API')}\n")
        how = IMPOSSIBLE.get(name, "")
        payload = json.dumps(settled(recorded[name]), indent=2, ensure_ascii=False)
        parts.append(f"### {name}\n\n`{name}`: {kind.summary} {how}".rstrip() + f"\n\n```json\n{payload}\n```\n")
    return "\n".join(parts)


def main() -> None:
    """Write the page anew."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder) / "data").start()
        try:
            PAGE.write_text(page(record(server)), encoding="utf-8")
        finally:
            server.stop()


if __name__ == "__main__":
    main()
