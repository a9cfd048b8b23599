"""The commands that run until a signal stops them: serve and worker."""

import logging
import sys
from pathlib import Path
from shlex import quote
from typing import Any

import click

from taskade_server import __version__, app
from taskade_server.commands.options import (
    configured,
    database_options,
    dev_option,
    existing,
    limit_options,
    outbound_options,
    plain_errors,
)
from taskade_server.config import Config, parse_networks, rates, reachable
from taskade_server.installation import OWNER_EMAIL
from taskade_server.kit import logs
from taskade_server.kit.defaults import MAX_CONNECTIONS


@click.command()
@click.option(
    "--host",
    default="127.0.0.1",
    envvar="TASKADE_HOST",
    show_default=True,
    show_envvar=True,
    help="Address to listen on.",
)
@click.option(
    "--port",
    default=8000,
    type=click.IntRange(0, 65535),
    envvar="TASKADE_PORT",
    show_default=True,
    show_envvar=True,
    help="Port to listen on; 0 takes a free one.",
)
@database_options
@limit_options
@outbound_options
@dev_option
@click.option(
    "--workers",
    default=1,
    type=int,
    envvar="TASKADE_WORKERS",
    show_default=True,
    show_envvar=True,
    help="Server processes (more than one needs PostgreSQL).",
)
@click.option(
    "--replica-url",
    envvar="TASKADE_REPLICA_URL",
    metavar="URL",
    show_envvar=True,
    help="A streaming replica, for reads that say with min_seq what they must see.",
)
@click.option(
    "--drain-seconds",
    default=0.0,
    type=click.FloatRange(0, 3600),
    envvar="TASKADE_DRAIN_SECONDS",
    show_default=True,
    show_envvar=True,
    help="How long to go on serving, with /ready at 503, after a signal to stop.",
)
@click.option(
    "--max-connections",
    default=MAX_CONNECTIONS,
    type=click.IntRange(1),
    envvar="TASKADE_MAX_CONNECTIONS",
    show_default=True,
    show_envvar=True,
    help="Open connections of one process.",
)
@click.option(
    "--background/--no-background",
    default=True,
    envvar="TASKADE_BACKGROUND",
    show_default=True,
    show_envvar=True,
    help="Do background work in the server, or leave it to `taskade worker`.",
)
@plain_errors
def serve(
    data: Path,
    database_url: str | None,
    rate_limit: str,
    max_rate_limit: str | None,
    anonymous_limit: str | None,
    login_limit: str | None,
    valkey_url: str | None,
    trusted_proxies: str,
    outbound_allow: str,
    dev: str,
    **more: Any,
) -> None:
    """Serve the API. On an empty database, make an owner, a workspace and a key, and print a first request."""
    limits = rates(rate_limit, max_rate_limit, anonymous_limit, login_limit)
    config = configured(
        data,
        database_url,
        **limits,
        valkey_url=valkey_url or None,
        trusted_proxies=parse_networks(trusted_proxies),
        outbound_allow=reachable(outbound_allow, dev),
        dev=dev,
        **more,
    )
    logs.configure(config.observing.log_format, config.observing.log_level)
    sys.exit(app.serve(config, _greet))


@click.command()
@database_options
@outbound_options
@dev_option
@plain_errors
def worker(
    data: Path, database_url: str | None, outbound_allow: str, outbound_proxy: str | None, dev: str, delivery_days: int
) -> None:
    """Do background work for the servers on the same database; start as many as you like."""
    outbound = {"outbound_allow": reachable(outbound_allow, dev), "outbound_proxy": outbound_proxy or None}
    config = existing(data, database_url, **outbound, delivery_days=delivery_days)
    logs.configure(config.observing.log_format, config.observing.log_level)
    app.work(config)


def _greet(config: Config, key: str | None) -> None:
    shown = f"[{config.host}]" if ":" in config.host else config.host
    url = f"http://{shown}:{config.port}"
    limit = "off" if config.rate_limit is None else f"{config.rate_limit} requests a minute for each key"
    limit += " (change it with --rate-limit or TASKADE_RATE_LIMIT)"
    if config.counts_alone:
        logging.getLogger("taskade").warning(
            "Each of the %d processes counts rate limits for itself, so that a key gets up to %d times its rate."
            " Give --valkey-url to count them together.",
            config.workers,
            config.workers,
        )
    lines = [
        f"Taskade API server {__version__}",
        f"  listening   {url}",
        f"  database    {config.location}",
        f"  rate limit  {limit}",
    ]
    if config.developing:
        lines.append(f"  development request bins at {url}/dev/bin/NAME; webhooks may go to this machine")
    if key is not None:
        lines += [
            "",
            f'First start: made the owner {OWNER_EMAIL}, the workspace "My workspace" and an API key.',
            "The key is shown only this once:",
            "",
            f"  {key}",
            "",
            "Try it in another terminal; the response is [], because there is no project yet:",
            "",
            f'  curl -H "Authorization: Bearer {key}" {url}/v1/projects',
            "",
            "For the examples of README.md and docs/, set these there:",
            "",
            f"  {_exports(config, key, url)}",
            "",
        ]
    click.echo("\n".join(lines))
    sys.stdout.flush()


def _exports(config: Config, key: str, url: str) -> str:
    """The line that sets what the examples use, and where the commands find the database from any folder.

    A PostgreSQL URL may hold a password, which has no place on a screen.
    """
    data = "" if config.database_url else f" TASKADE_DATA={quote(str(config.data.absolute()))}"
    return f"export BASE={url} KEY={key}{data}"
