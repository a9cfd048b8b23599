"""The commands for whoever builds on the API: trigger.

Why stdout holds data only and everything said goes to stderr: the next program in the pipe must not have to guess.
"""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import click

from taskade_server.kit import json
from taskade_server.kit.errors import did_you_mean
from taskade_server.tools.client import Api, Failed
from taskade_server.tools.triggers import IMPOSSIBLE, TRIGGERS, Scene

P = ParamSpec("P")
R = TypeVar("R")


def api_options(command: Callable[P, R]) -> Callable[P, R]:
    """Which server, and with which key."""
    command = click.option("--key", envvar="TASKADE_API_KEY", default="", metavar="KEY", show_envvar=True,
                           help="The API key to use.")(command)  # fmt: skip
    return click.option("--url", envvar="TASKADE_URL", default="http://127.0.0.1:8000", metavar="URL",
                        show_default=True, show_envvar=True, help="The server's address.")(command)  # fmt: skip


# ---- trigger ---------------------------------------------------------------------------------------------------------


@click.command("trigger")
@click.argument("event", required=False)
@click.option("--list", "wants_list", is_flag=True, help="List the events that can be triggered.")
@click.option("--project", metavar="ID", help="Where tasks and comments are made; a new project by default.")
@click.option("--data", multiple=True, metavar="NAME=VALUE",
              help="A member of what the event is about, repeatable: priority=urgent, custom_fields.effort=3.",
              )  # fmt: skip
@click.option("--cleanup", is_flag=True, help="Delete again what was made (which is an event, too).")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@api_options
def trigger(
    event: str | None, wants_list: bool, project: str | None, data: tuple[str, ...], cleanup: bool, as_json: bool,
    url: str, key: str,
) -> None:  # fmt: skip
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
    scene = Scene(Api(url, key), _members(data), project)
    try:
        TRIGGERS[event](scene)
    finally:
        deleted = scene.clean_up() if cleanup else []
        if not as_json:
            _tell(scene)
    if as_json:
        click.echo(json.encode({
            "event": event,
            "requests": [{"method": method, "path": path, "commit_seq": seq or None}
                         for method, path, seq in scene.requests],
            "made": [{"resource": thing.kind, "id": thing.id, "name": thing.name} for thing in scene.made],
            "deleted": [thing.id for thing in deleted],
        }))  # fmt: skip


def _members(pairs: tuple[str, ...]) -> dict[str, Any]:
    """`a.b=1` as {"a": {"b": 1}}: what is JSON is taken as such, anything else as text."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not all(name.split(".")):
            raise Failed(f'--data takes NAME=VALUE such as priority=high, not "{pair}".')
        place = found
        *outer, last = name.split(".")
        for step in outer:
            place = place.setdefault(step, {})
            if not isinstance(place, dict):
                raise Failed(f"--data gives {step} two values.")
        try:
            place[last] = json.decode_strict(text.encode())
        except ValueError:
            place[last] = text
    return found


def _tell(scene: Scene) -> None:
    for thing in scene.made:
        click.echo(f"made  {thing.id}  {thing.name}")
    for method, path, seq in scene.requests:
        click.echo(f"sent  {method:<6} /v1{path}{f'  -> {seq}' if seq else ''}")


COMMANDS = (trigger,)
