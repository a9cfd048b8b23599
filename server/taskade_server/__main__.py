"""The `taskade` command: knows what commands there are, and loads the one that is asked for.

Why by name: a script that lists keys or asks for the version should not wait until a whole server has been loaded. So
nothing of ours is imported here, and the help of `taskade` is written down in the table below (a test compares it).
"""

import sys
from collections import UserDict
from importlib import import_module
from typing import Any, Final

import click

from taskade_server import __version__

COMMANDS: Final = {
    "asyncapi": ("commands.documents:asyncapi_command", "Print the AsyncAPI document."),
    "audit": ("commands.audit:audit_group", "Show, export and verify the audit log."),
    "automations": ("tools.automations:automations_group", "See what automations do, try and start them."),
    "backup": ("commands.maintenance:backup_command", "Write a verified backup to FILE."),
    "check": ("commands.maintenance:check_command", "Look for damage."),
    "demo": ("commands.maintenance:demo_command", "Fill the database with a workspace that looks like real work."),
    "events": ("tools.commands:events_group", "Watch events as they happen."),
    "keys": ("commands.keys:keys", "Create, list and revoke API keys."),
    "listen": ("tools.commands:listen", "Forward a workspace's events to a server on your machine."),
    "new-secret": ("commands.maintenance:new_secret", "Go on without a secret that is lost."),
    "openapi": ("commands.documents:openapi_command", "Print the OpenAPI document."),
    "restore": ("commands.maintenance:restore_command", "Bring a backup back."),
    "selftest": ("commands.selftest:selftest", "Try on this machine that nothing acknowledged is lost."),
    "serve": ("commands.serve:serve", "Serve the API."),
    "trigger": ("tools.commands:trigger", "Make an EVENT happen."),
    "upgrade": ("commands.maintenance:upgrade", "Bring the database to this version's schema."),
    "webhooks": ("tools.commands:webhooks_group", "Try out receivers of webhooks."),
    "worker": ("commands.serve:worker", "Do background work for the servers on the same database."),
}
OF_KEYS_ALONE: Final = ("keys",)
"""Commands that read and write nothing but keys, and start at once for that."""


class Commands(UserDict[str, Any]):
    """The commands by name, each loaded when it is asked for."""

    def __getitem__(self, name: str) -> click.Command:
        module, _, member = super().__getitem__(name)[0].partition(":")
        command: click.Command = getattr(import_module(f"taskade_server.{module}"), member)
        if name not in OF_KEYS_ALONE and "taskade_server.engine.model" in sys.modules:
            # A command that knows of some resources must know of all: events and audit logs tell of any of them.
            import_module("taskade_server.domain.resources")
        return command


class Taskade(click.Group):
    """A group whose help loads none of its commands."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands in the help."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=Taskade,
    commands=Commands(COMMANDS),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="taskade")
def main() -> None:
    """The Taskade API server: workspaces, projects and tasks for programs."""


if __name__ == "__main__":
    main()
