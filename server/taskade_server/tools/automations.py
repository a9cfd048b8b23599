"""`taskade automations`: which there are, what their runs did, and starting one by hand.

Why runs are found by asking again and again: they have no events, or each would lead to the next.
"""

import time
from typing import Any, Final

import click

from taskade_server.kit import json
from taskade_server.tools.client import Api
from taskade_server.tools.options import api_options, members
from taskade_server.tools.runs import find_run, pages, path_of, rule_line, run_line, timeline
from taskade_server.tools.trials import explain, preview, test

LOOK_SECONDS: Final = 0.2
FOLLOW_SECONDS: Final = 1.0
FOLLOWED: Final = 200
"""How many of the newest runs are looked at again while they are followed."""


@click.group("automations")
def automations_group() -> None:
    """See what automations do, try and start them.

    AUTOMATION is an id (auto_...) or a name. Times are UTC.
    """


for _command in (test, explain, preview):
    automations_group.add_command(_command)


@automations_group.command("list")
@click.option("--project", metavar="ID", help="Only those of this project.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document for each on stdout.")
@api_options
def list_automations(project: str | None, as_json: bool, url: str, key: str) -> None:
    """List the automations: id, state, trigger and name.

    \b
      taskade automations list
      taskade automations list --project proj_... --json | jq -r .name
    """
    for page in pages(Api(url, key), "/automations", project_id=project, limit=1000):
        for automation in page:
            click.echo(json.encode(automation) if as_json else rule_line(automation))


@automations_group.command("runs")
@click.argument("automation")
@click.option("--state", metavar="STATES", help="Only runs in these states: failed,waiting.")
@click.option("--object", "objects", metavar="IDS", help="Only runs about these objects: task_...")
@click.option("--event", "happened", metavar="IDS", help="Only runs that these events started: evt_...")
@click.option("--after", metavar="TIME", help="Created at or after this time: 2026-12-01T09:00:00Z.")
@click.option("--before", metavar="TIME", help="Created before this time.")
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=20, show_default=True, metavar="N", help="How many at most."
)
@click.option("--follow", is_flag=True, help="Go on with runs whose state changes, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document for each on stdout.")
@api_options
def list_runs(
    automation: str,
    state: str | None,
    objects: str | None,
    happened: str | None,
    after: str | None,
    before: str | None,
    limit: int,
    follow: bool,
    as_json: bool,
    url: str,
    key: str,
) -> None:
    """List the newest runs of an AUTOMATION, the newest one last.

    With --follow a run is printed again whenever its state changes, as long as it is among the newest 200.

    \b
      taskade automations runs auto_...
      taskade automations runs "Escalate" --state failed,skipped
      taskade automations runs auto_... --object task_... --json | jq .reason
      taskade automations runs auto_... --follow
    """
    api = Api(url, key)
    path = f"{path_of(api, automation)}/runs"
    parameters = {"state": state, "object_id": objects, "event_id": happened, "after": after, "before": before}
    newest: list[dict[str, Any]] = api.ask("GET", path, limit=max(limit, FOLLOWED) if follow else limit, **parameters)
    begin = newest[-1]["created_at"] if len(newest) >= FOLLOWED else ""
    known = {run["id"]: run["state"] for run in newest[limit:]}
    try:
        while True:
            for run in reversed(newest):
                if known.get(run["id"]) != run["state"] and run["created_at"] >= begin:
                    click.echo(json.encode(run) if as_json else run_line(run))
                known[run["id"]] = run["state"]
            if not follow:
                return
            time.sleep(FOLLOW_SECONDS)
            newest = api.ask("GET", path, limit=FOLLOWED, **parameters)
    except KeyboardInterrupt:
        click.echo("", err=True)


@automations_group.command("show")
@click.argument("run")
@click.option("--automation", metavar="AUTOMATION", help="Whose run it is; without it all are asked.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@api_options
def show_run(run: str, automation: str | None, as_json: bool, url: str, key: str) -> None:
    """Show a RUN (run_...) with its timeline: each action, how it ended, how long it took and what it did.

    \b
      taskade automations show run_...
      taskade automations show run_... --json | jq '.timeline[] | select(.error)'
    """
    found = find_run(Api(url, key), run, automation)
    click.echo(json.encode(found) if as_json else timeline(found))


@automations_group.command("start")
@click.argument("automation")
@click.option("--about", "objects", multiple=True, metavar="ID", help="Start a run about this object, repeatable.")
@click.option(
    "--input", "given", multiple=True, metavar="NAME=VALUE", help="A member of the input, repeatable: reason=holidays."
)
@click.option(
    "--wait",
    "seconds",
    type=click.FloatRange(0, 600),
    default=0.0,
    show_default=True,
    metavar="SECONDS",
    help="Wait so long for the runs to end.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document for each run on stdout.")
@api_options
def start(
    automation: str, objects: tuple[str, ...], given: tuple[str, ...], seconds: float, as_json: bool, url: str, key: str
) -> None:
    """Start an AUTOMATION with the trigger `manual`.

    With --wait the exit status is 1 if a run has not succeeded by then.

    \b
      taskade automations start auto_...
      taskade automations start "Postpone" --about task_... --input until=2030-01-31 --wait 10
    """
    api = Api(url, key)
    path = f"{path_of(api, automation)}/runs"
    body = {"object_ids": list(objects), "input": members(given, "--input", "reason=holidays")}
    started: list[dict[str, Any]] = api.ask("POST", path, body)
    until = time.monotonic() + seconds
    while any(run["finished_at"] is None for run in started) and time.monotonic() < until:
        time.sleep(LOOK_SECONDS)
        started = [_again(api, path, run) for run in started]
    for run in started:
        click.echo(json.encode(run) if as_json else run_line(run))
    if seconds and any(run["state"] != "succeeded" for run in started):
        raise SystemExit(1)


def _again(api: Api, path: str, run: dict[str, Any]) -> dict[str, Any]:
    """A run as it is now; one that is over stays as it was."""
    if run["finished_at"] is not None:
        return run
    found: dict[str, Any] = api.ask("GET", f"{path}/{run['id']}")
    return {name: value for name, value in found.items() if name != "timeline"}
