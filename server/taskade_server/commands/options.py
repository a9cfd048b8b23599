"""Options that several commands have, the configuration made of them, and errors printed as one line.

Why every failure is one line and status 1: an operator at three in the morning reads the last line of a log, and a
supervisor reads the status.
"""

import os
import sys
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click

from taskade_server.config import (
    DEFAULT_ANONYMOUS,
    DEFAULT_DATA,
    DEFAULT_LOGIN,
    DEFAULT_RATE,
    DELIVERY_DAYS,
    DEV_MODES,
    MAX_RATE,
    Config,
    ConfigError,
    observing,
)
from taskade_server.kit.destinations import SETTING
from taskade_server.kit.errors import Problem
from taskade_server.store.interface import StoreError

P = ParamSpec("P")
R = TypeVar("R")


def plain_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Turn foreseen failures into one line on stderr and exit status 1."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except Problem as error:
            raise click.ClickException(" ".join(issue.detail for issue in error.errors) or error.detail) from error
        except (StoreError, ConfigError) as error:
            raise click.ClickException(" ".join(str(error).split())) from error

    return run


def database_options(command: Callable[P, R]) -> Callable[P, R]:
    """--data and --database-url."""
    command = click.option(
        "--database-url",
        envvar="TASKADE_DATABASE_URL",
        metavar="URL",
        show_envvar=True,
        help="PostgreSQL instead of SQLite: postgresql://user@host/name.",
    )(command)
    return click.option(
        "--data",
        type=click.Path(path_type=Path),
        default=DEFAULT_DATA,
        envvar="TASKADE_DATA",
        metavar="DIR",
        show_default=True,
        show_envvar=True,
        help="Folder of the SQLite database.",
    )(command)


def outbound_options(command: Callable[P, R]) -> Callable[P, R]:
    """Where requests of the server's own may go, and how long their outcome is kept."""
    command = click.option(
        "--outbound-proxy",
        metavar="URL",
        envvar="TASKADE_OUTBOUND_PROXY",
        show_envvar=True,
        help="An HTTP proxy that webhooks go through, and that vets names: http://host:port.",
    )(command)
    days = click.option(
        "--delivery-days",
        default=DELIVERY_DAYS,
        type=click.IntRange(1),
        envvar="TASKADE_DELIVERY_DAYS",
        show_default=True,
        show_envvar=True,
        help="How long deliveries to webhooks are on record after they are over.",
    )
    return click.option(
        "--outbound-allow",
        default="",
        metavar="NETWORKS",
        envvar=SETTING,
        show_envvar=True,
        help="Addresses that webhooks may go to although they are not public, for example 10.1.2.3/32.",
    )(days(command))


def dev_option(command: Callable[P, R]) -> Callable[P, R]:
    """Development mode; `--dev` alone is `--dev on`."""
    return click.option(
        "--dev",
        type=click.Choice(DEV_MODES),
        is_flag=False,
        flag_value="on",
        default="off",
        envvar="TASKADE_DEV",
        show_envvar=True,
        help="Development mode: request bins at /dev/bin/NAME, and webhooks to this machine.",
    )(command)


_rate = partial(click.option, metavar="off|N/minute", show_envvar=True)
_LIMIT_OPTIONS = (
    _rate(
        "--rate-limit",
        default=DEFAULT_RATE,
        show_default=True,
        envvar="TASKADE_RATE_LIMIT",
        help="Requests a minute for each API key.",
    ),
    click.option(
        "--rate-burst",
        type=click.IntRange(1, MAX_RATE),
        metavar="N",
        show_envvar=True,
        envvar="TASKADE_RATE_BURST",
        help="Requests a key may make at once; by default a minute's.",
    ),
    _rate(
        "--max-rate-limit",
        metavar="N/minute",
        envvar="TASKADE_MAX_RATE_LIMIT",
        help="The highest rate a key may be given of its own; by default the rate limit.",
    ),
    _rate(
        "--anonymous-limit",
        envvar="TASKADE_ANONYMOUS_LIMIT",
        help=f"Requests a minute without a key, for each address; by default {DEFAULT_ANONYMOUS}.",
    ),
    _rate(
        "--login-limit",
        envvar="TASKADE_LOGIN_LIMIT",
        help=f"Wrong keys a minute, for each address; by default {DEFAULT_LOGIN}.",
    ),
    click.option(
        "--valkey-url",
        metavar="URL",
        envvar="TASKADE_VALKEY_URL",
        show_envvar=True,
        help="Valkey or Redis, where several processes count together: valkey://host:6379/0.",
    ),
    click.option(
        "--trusted-proxies",
        default="",
        metavar="NETWORKS",
        envvar="TASKADE_TRUSTED_PROXIES",
        show_envvar=True,
        help="Proxies whose X-Forwarded-For is believed, for example 10.0.0.0/8.",
    ),
)


def limit_options(command: Callable[P, R]) -> Callable[P, R]:
    """Add the options of rate limits: for keys and addresses, and the Valkey where several processes count together."""
    for option in reversed(_LIMIT_OPTIONS):
        command = option(command)
    return command


def configured(data: Path, database_url: str | None, **more: Any) -> Config:
    """The configuration of a command. ConfigError for a database URL that is given and empty."""
    if database_url is not None and not database_url.strip():
        raise ConfigError(
            "--database-url is empty: give the URL of a PostgreSQL database, or leave the option out to use SQLite."
        )
    synchronous = os.environ.get("TASKADE_SQLITE_SYNCHRONOUS", "full").lower()
    return Config(
        data=data,
        database_url=database_url,
        synchronous=synchronous,
        public_url=(os.environ.get("TASKADE_PUBLIC_URL") or "").rstrip("/") or None,
        observing=observing(os.environ, sys.stderr.isatty()),
        **more,
    )


def existing(data: Path, database_url: str | None, **more: Any) -> Config:
    """The configuration of a command that works on a database which is there already."""
    config = configured(data, database_url, **more)
    if config.database_url is None and not Path(config.target).exists():
        raise ConfigError(
            f"There is no database in {data}; start `taskade serve --data {data}` once, or give its folder with --data."
        )
    return config
