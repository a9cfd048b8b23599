"""The commands for developers who build on the API: trigger, listen, events, webhooks.

Why stdout holds data only and everything said goes to stderr: the next program in the pipe must not have to guess.
"""

import re
from itertools import islice
from typing import Any

import click

from taskade_server.engine import events
from taskade_server.kit import json, webhook_signatures
from taskade_server.kit.errors import did_you_mean
from taskade_server.tools import conformance, resending
from taskade_server.tools.client import Address, Api, Failed
from taskade_server.tools.forward import Receiver, Tally, as_record, brief, secret_of, shown
from taskade_server.tools.options import Command, api_options, members
from taskade_server.tools.stream import Listener
from taskade_server.tools.triggers import IMPOSSIBLE, TRIGGERS, Scene

# ---- trigger ---------------------------------------------------------------------------------------------------------


@click.command("trigger")
@click.argument("event", required=False)
@click.option("--list", "wants_list", is_flag=True, help="List the events that can be triggered.")
@click.option("--project", metavar="ID", help="Where tasks and comments are made; a new project by default.")
@click.option(
    "--data",
    multiple=True,
    metavar="NAME=VALUE",
    help="A member of what the event is about, repeatable: priority=urgent, custom_fields.effort=3.",
)
@click.option("--cleanup", is_flag=True, help="Delete again what was made (which is an event, too).")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@api_options
def trigger(
    event: str | None,
    wants_list: bool,
    project: str | None,
    data: tuple[str, ...],
    cleanup: bool,
    as_json: bool,
    url: str,
    key: str,
) -> None:
    """Make an EVENT happen, by the changes that really cause it.

    \b
      taskade trigger task.completed
      taskade trigger task.created --data priority=urgent --data 'labels=["a","b"]'
      taskade trigger comment.created --project proj_... --cleanup
    """
    if wants_list:
        click.echo("\n".join(TRIGGERS))
        return
    if event is None:
        raise click.UsageError("Name an EVENT, or give --list to see which there are.")
    if event in IMPOSSIBLE:
        raise Failed(f"{event} cannot be triggered. {IMPOSSIBLE[event]}")
    if event not in TRIGGERS:
        raise Failed(f'There is no event "{event[:80]}".{did_you_mean(event, TRIGGERS)} --list shows them all.')
    scene, caused = Scene(Api(url, key), members(data, "--data", "priority=high"), project), None
    try:
        TRIGGERS[event](scene)
        caused = scene.caused(event)
    finally:
        deleted = scene.clean_up() if cleanup else []
        if not as_json:
            _tell(scene, caused)
    if as_json:
        click.echo(
            json.encode(
                {
                    "event": event,
                    "event_id": caused["id"] if caused else None,
                    "requests": [
                        {"method": method, "path": path, "commit_seq": seq or None}
                        for method, path, seq in scene.requests
                    ],
                    "made": [{"resource": thing.kind, "id": thing.id, "name": thing.name} for thing in scene.made],
                    "deleted": [thing.id for thing in deleted],
                }
            )
        )


def _tell(scene: Scene, caused: dict[str, Any] | None) -> None:
    for thing in scene.made:
        click.echo(f"made  {thing.id}  {thing.name}")
    for method, path, seq in scene.requests:
        click.echo(f"sent  {method:<6} /v1{path}{f'  -> {seq}' if seq else ''}")
    if caused is not None:
        click.echo(f"event {caused['id']}  {caused['type']}  {caused['seq']}")


# ---- listen ----------------------------------------------------------------------------------------------------------


def stream_options(command: Command) -> Command:
    """Which events."""
    options = (
        click.option("--workspace", metavar="ID", help="The workspace; by default the one of the key's user."),
        click.option("--project", metavar="ID", help="Only what happens in this project."),
        click.option(
            "--since",
            type=click.IntRange(0),
            metavar="SEQ",
            help="Begin behind this position of the log; by default with what happens from now on.",
        ),
        click.option("--limit", type=click.IntRange(1), metavar="N", help="End after so many events."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command("listen")
@click.option("--forward-to", metavar="URL", help="Where to send each event, such as localhost:3000/hooks.")
@click.option(
    "--events",
    "patterns",
    default="*",
    show_default=True,
    metavar="PATTERNS",
    help="Which events: task.*,comment.created.",
)
@stream_options
@click.option(
    "--secret",
    envvar="TASKADE_WEBHOOK_SECRET",
    metavar="SECRET",
    show_envvar=True,
    help="What to sign with; by default a secret of its own, always the same for one key.",
)
@click.option("--print-secret", is_flag=True, help="Only print the secret.")
@click.option("--headers", multiple=True, metavar="NAME:VALUE", help="A header to add, repeatable.")
@click.option("--skip-verify", is_flag=True, help="Take any certificate of an https receiver.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document for each event on stdout.")
@api_options
def listen(
    forward_to: str | None,
    patterns: str,
    workspace: str | None,
    project: str | None,
    since: int | None,
    limit: int | None,
    secret: str | None,
    print_secret: bool,
    headers: tuple[str, ...],
    skip_verify: bool,
    as_json: bool,
    url: str,
    key: str,
) -> None:
    """Forward a workspace's events to a server on your machine, signed and formed as a webhook would be.

    No webhook and no public address are needed: the events come over a connection that this command opens, and
    goes on where it was when that is lost. An event that your server does not take is not sent again. Ctrl-C ends it.

    \b
      taskade listen --forward-to localhost:3000/webhooks
      taskade listen --forward-to localhost:3000/webhooks --events 'task.*,comment.created' --json
      taskade listen --print-secret
    """
    api, chosen = Api(url, key), secret or secret_of(key)
    if refusal := webhook_signatures.secret_refusal(chosen):
        raise Failed(f"--secret cannot be used. {refusal}")
    if print_secret:
        click.echo(chosen)
        return
    if forward_to is None:
        raise click.UsageError("Give --forward-to URL; `taskade events tail` only prints what happens.")
    receiver = Receiver(Address(forward_to, "--forward-to"), _headers(headers), skip_verify)

    def ready(workspace_id: str, seq: int) -> None:
        _say(f"Listening to {workspace_id} behind position {seq}, forwarding to {receiver.address.text}")
        _say(f"Signing with {chosen}")

    parameters = {"types": patterns, "workspace_id": workspace, "project_id": project}
    listener, tally = Listener(api, parameters, since, _say, ready), Tally()
    try:
        for happening in islice(listener.events(), limit):
            outcome = tally.forward(happening, receiver, chosen)
            click.echo(json.encode(as_record(happening, outcome)) if as_json else shown(happening, outcome))
    except KeyboardInterrupt:
        _say("")
    finally:
        _say(tally.summary())


def _headers(given: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for text in given:
        name, colon, value = (part.strip() for part in text.partition(":"))
        if not colon or not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name) or not value.isprintable():
            raise Failed(f'--headers takes NAME:VALUE such as "X-Test: 1", not "{text}".')
        found[name] = value
    return found


def _say(text: str) -> None:
    click.echo(text, err=True)


# ---- events ----------------------------------------------------------------------------------------------------------


@click.group("events")
def events_group() -> None:
    """Watch events as they happen, and have one delivered again."""


@events_group.command("tail")
@click.option(
    "--types", "patterns", default="*", show_default=True, metavar="PATTERNS", help="Which: task.*,comment.created."
)
@stream_options
@click.option("--json", "as_json", is_flag=True, help="The whole event as one line of JSON.")
@api_options
def tail(
    patterns: str,
    workspace: str | None,
    project: str | None,
    since: int | None,
    limit: int | None,
    as_json: bool,
    url: str,
    key: str,
) -> None:
    """Print events as they happen, one a line, until Ctrl-C.

    \b
      taskade events tail --types 'task.*'
      taskade events tail --since 0 --json | jq .data.name
    """
    parameters = {"types": patterns, "workspace_id": workspace, "project_id": project}
    listener = Listener(Api(url, key), parameters, since, _say, lambda *_: None)
    try:
        for happening in islice(listener.events(), limit):
            click.echo(happening.text if as_json else brief(happening.event))
    except KeyboardInterrupt:
        _say("")


@events_group.command("resend")
@click.argument("event")
@click.option("--webhook", required=True, metavar="ID", help="The webhook to deliver it to: wh_...")
@click.option(
    "--wait",
    "seconds",
    type=click.FloatRange(0, 300),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the answer; 0 does not.",
)
@click.option("--json", "as_json", is_flag=True, help="The delivery with its attempts as one JSON document.")
@api_options
def resend(event: str, webhook: str, seconds: float, as_json: bool, url: str, key: str) -> None:
    """Deliver an EVENT (evt_..., or dlv_... for its delivery) to a webhook once more, and show the answer.

    Exit status 1 if it was not taken, or if there is no answer yet.

    \b
      taskade events resend evt_... --webhook wh_...
    """
    delivery, done = resending.resend(Api(url, key), webhook, event, seconds)
    if as_json:
        click.echo(json.encode(delivery))
    else:
        click.echo(resending.shown(delivery, done))
    if seconds and not (done and delivery["state"] == "succeeded"):
        raise SystemExit(1)


# ---- webhooks --------------------------------------------------------------------------------------------------------


@click.group("webhooks")
def webhooks_group() -> None:
    """Try out receivers of webhooks."""


@webhooks_group.command("verify")
@click.option("--url", required=True, metavar="URL", help="The receiver to test.")
@click.option(
    "--secret",
    required=True,
    envvar="TASKADE_WEBHOOK_SECRET",
    metavar="SECRET",
    show_envvar=True,
    help="The secret that the receiver knows.",
)
@click.option("--event", "kind", default="task.completed", show_default=True, help="What the deliveries are about.")
@click.option("--plain", is_flag=True, help="The receiver checks X-Taskade-Signature and nothing else.")
@click.option("--skip-verify", is_flag=True, help="Take any certificate.")
@click.option("--yes", is_flag=True, help="Send to a receiver that is not on this machine.")
@click.option("--json", "as_json", is_flag=True, help="The result as one JSON document on stdout.")
def verify(url: str, secret: str, kind: str, plain: bool, skip_verify: bool, yes: bool, as_json: bool) -> None:
    """Test a receiver: whether it takes what it should, and nothing else. Exit status 1 if it does not.

    It sends about twenty deliveries of events that never happened: good ones, repeated, out of order, with two
    signatures, of unknown types and large; and forged, changed, old and unsigned ones. It talks to no server but the
    receiver.

    \b
      taskade webhooks verify --url http://localhost:3000/webhooks --secret whsec_...
    """
    address = Address(url, "--url")
    if not address.loopback and not yes:
        raise Failed(f"{address.host} is not this machine. Add --yes if the receiver is yours to test.")
    if refusal := webhook_signatures.secret_refusal(secret):
        raise Failed(f"--secret cannot be used. {refusal}")
    if kind not in events.catalogue():
        raise Failed(f'There is no event "{kind[:80]}".{did_you_mean(kind, events.catalogue())}')
    findings = []
    for finding in conformance.run(Receiver(address, insecure=skip_verify), conformance.Kit(secret, kind), plain=plain):
        findings.append(finding)
        if not as_json:
            click.echo(conformance.line(finding))
    failed = sum(finding.passed is False for finding in findings)
    if as_json:
        click.echo(json.encode(conformance.document(address.text, findings)))
    else:
        click.echo(f"{len(findings)} deliveries, {failed or 'none'} answered wrongly.")
    if failed:
        raise SystemExit(1)


COMMANDS = (trigger, listen, events_group, webhooks_group)
