"""What several commands for developers take: the server with its key, and members given as NAME=VALUE."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from taskade_server.kit.strict_json import decode_strict
from taskade_server.tools.client import Failed

Command = TypeVar("Command", bound=Callable[..., Any])


def api_options(command: Command) -> Command:
    """Which server, and with which key."""
    command = click.option(
        "--key", envvar="TASKADE_API_KEY", default="", metavar="KEY", show_envvar=True, help="The API key to use."
    )(command)
    return click.option(
        "--url",
        envvar="TASKADE_URL",
        default="http://127.0.0.1:8000",
        metavar="URL",
        show_default=True,
        show_envvar=True,
        help="The server's address.",
    )(command)


def members(pairs: Sequence[str], option: str, example: str) -> dict[str, Any]:
    """`a.b=1` as {"a": {"b": 1}}: what is JSON is taken as such, anything else as text. Failed for what is neither."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not all(name.split(".")):
            raise Failed(f'{option} takes NAME=VALUE such as {example}, not "{pair}".')
        target = found
        *outer, last = name.split(".")
        for step in outer:
            target = target.setdefault(step, {})
            if not isinstance(target, dict):
                raise Failed(f"{option} gives {step} two values.")
        try:
            target[last] = decode_strict(text.encode())
        except ValueError:
            target[last] = text
    return found
