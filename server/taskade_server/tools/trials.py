"""`taskade automations test`, `explain` and `preview`: what an automation would do, and why it did or did not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from taskade_server.kit import json
from taskade_server.kit.strict_json import decode_strict
from taskade_server.tools.client import Api, Failed
from taskade_server.tools.options import api_options, members
from taskade_server.tools.runs import path_of, run_line, steps_shown


def _document(text: str, option: str) -> Any:
    try:
        return decode_strict(text.encode())
    except ValueError as error:
        raise Failed(f"{option} is no JSON: {error}") from error


# ---- showing ---------------------------------------------------------------------------------------------------------


def checks_shown(checks: list[dict[str, Any]]) -> Iterator[str]:
    """What an event had to satisfy; of a condition that does not hold, the comparisons that it is made of."""
    for check in checks:
        yield f"  {'yes' if check['holds'] else 'NO':<3}  {check['check']:<9}  {check['detail']}"
        if check["tree"] is not None and not check["holds"]:
            yield from _tree_shown(check["tree"], 7)


def _tree_shown(tree: dict[str, Any], indent: int) -> Iterator[str]:
    space, word = " " * indent, "yes" if tree["holds"] else "NO"
    for name in ("all", "any"):
        if name in tree:
            yield f"{space}{word:<3}  {name} of"
            for part in tree[name]:
                yield from _tree_shown(part, indent + 5)
            return
    if "not" in tree:
        yield f"{space}{word:<3}  not"
        yield from _tree_shown(tree["not"], indent + 5)
        return
    actual = json.encode(tree.get("actual"))
    yield f"{space}{word:<3}  {tree.get('field', '')} {tree.get('operator', '')}  (it is {actual})"


def trial_shown(trial: dict[str, Any]) -> Iterator[str]:
    """What a run would do: how it would end, its steps and its changes."""
    why = f"  {trial['reason']}: {trial['detail'] or ''}".rstrip(": ") if trial["reason"] else ""
    yield f"would end as {trial['state']}{why}"
    yield from steps_shown(trial["timeline"])
    for change in trial["changes"]:
        yield f"  would cause  {change['type']}  {change['object_id']}"
    if trial["hidden_changes"]:
        yield f"  and {trial['hidden_changes']} changes that this key cannot see"


# ---- the commands ----------------------------------------------------------------------------------------------------


@click.command("test")
@click.argument("automation")
@click.option("--event", metavar="ID", help="Try it with this event: evt_...")
@click.option("--object", "about", metavar="ID", help="Try it as if an event had just told of this object: task_...")
@click.option("--sample", metavar="JSON", help='Try it with a made-up event: {"data": {"name": "A task"}}.')
@click.option("--input", "given", multiple=True, metavar="NAME=VALUE", help="A member of the input, repeatable.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@api_options
def test(
    automation: str,
    event: str | None,
    about: str | None,
    sample: str | None,
    given: tuple[str, ...],
    as_json: bool,
    url: str,
    key: str,
) -> None:
    """Try out what an AUTOMATION would do: the run itself, of which nothing is kept.

    Exit status 1 if it would not start, or not succeed.

    \b
      taskade automations test auto_... --object task_...
      taskade automations test "Escalate" --event evt_... --json | jq .changes
      taskade automations test auto_... --sample '{"data": {"name": "A task", "priority": "high"}}'
    """
    api = Api(url, key)
    body = {"event_id": event, "object_id": about, "sample": None if sample is None else _document(sample, "--sample")}
    body = {name: value for name, value in body.items() if value is not None}
    if given:
        body["input"] = members(given, "--input", "reason=holidays")
    told = api.ask("POST", f"{path_of(api, automation)}/test", body)
    if as_json:
        click.echo(json.encode(told))
    else:
        click.echo("\n".join([*checks_shown(told["checks"]), *trial_shown(told)]))
    if told["state"] != "succeeded":
        raise SystemExit(1)


@click.command("explain")
@click.argument("automation")
@click.argument("event")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@api_options
def explain(automation: str, event: str, as_json: bool, url: str, key: str) -> None:
    """Explain why an EVENT (evt_...) started a run of an AUTOMATION, or why not.

    \b
      taskade automations explain auto_... evt_...
    """
    api = Api(url, key)
    told = api.ask("POST", f"{path_of(api, automation)}/explain", {"event_id": event})
    if as_json:
        click.echo(json.encode(told))
        return
    run = "no run" if told["run"] is None else run_line(told["run"])
    click.echo("\n".join([*checks_shown(told["checks"]), "not decided yet" if told["pending"] else run]))


@click.command("preview")
@click.argument("automation", required=False)
@click.option(
    "--file",
    "path",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="The JSON document of one that does not exist yet.",
)
@click.option("--since", default="-30d", show_default=True, metavar="TIME", help="From when on: -7d, 2026-12-01.")
@click.option("--after", type=click.IntRange(0), metavar="SEQ", help="Go on behind this position of the log.")
@click.option(
    "--trials",
    type=click.IntRange(0, 10),
    default=10,
    show_default=True,
    metavar="N",
    help="Of how many of the first runs to show what they would do.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@api_options
def preview(
    automation: str | None,
    path: Path | None,
    since: str,
    after: int | None,
    trials: int,
    as_json: bool,
    url: str,
    key: str,
) -> None:
    """Try an AUTOMATION, or a FILE with one, on the past: how often it would have run, and what it would do.

    \b
      taskade automations preview "Escalate" --since -90d --trials 0
      taskade automations preview --file recipe.json
    """
    if (automation is None) == (path is None):
        raise click.UsageError("Name an AUTOMATION, or give --file with the document of one.")
    api = Api(url, key)
    body: dict[str, Any] = {"since": since, "trials": trials}
    if after is not None:
        body["after_seq"] = after
    if path is not None:
        body["automation"] = _document(path.read_text(encoding="utf-8"), "--file")
    else:
        body["automation_id"] = path_of(api, automation or "").rpartition("/")[2]
    told = api.ask("POST", "/automations/preview", body)
    click.echo(json.encode(told) if as_json else "\n".join(_preview_shown(told)))


def _preview_shown(told: dict[str, Any]) -> Iterator[str]:
    yield (
        f"{told['count']:,} runs about {told['object_count']:,} objects, by {told['looked']:,} events;"
        f" {told['circles']:,} more would have been a circle"
    )
    for start in told["starts"]:
        yield f"  {start['seq']}  {start['timestamp'][:19].replace('T', ' ')}  {start['type']}  {start['object_id']}"
    for trial in told["trials"]:
        yield ""
        yield f"{trial['event']['type']}  {trial['event']['event_id']}"
        yield from trial_shown(trial)
    if told["disabled_reason"]:
        yield f"Then the server would have disabled it: {told['disabled_reason']}."
    if told["next_after_seq"] is not None:
        yield f"There is more: go on with --after {told['next_after_seq']}"
