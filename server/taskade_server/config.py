"""Every knob and limit of an installation, in one place; each is a command option and an environment variable.

Why no configuration file: environment variables work the same in a shell, a systemd unit and a container.
"""

import ipaddress
import os
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from taskade_server.kit import defaults, destinations
from taskade_server.kit.destinations import Network
from taskade_server.store.database import is_postgresql

DEFAULT_DATA: Final = "taskade-data"
DEFAULT_RATE: Final = "600/minute"
DEFAULT_ANONYMOUS: Final = 60
DEFAULT_LOGIN: Final = 20
MAX_RATE: Final = 1_000_000_000
TRASH_DAYS: Final = 30
DELIVERY_DAYS: Final = 30
DEV_MODES: Final = ("off", "on", "anywhere")
LOOPBACK: Final = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))


class ConfigError(Exception):
    """A setting is not usable; the message is one clear line."""


@dataclass(frozen=True, slots=True)
class Observing:
    """What is told of the server's work, and to whom. `otlp_endpoint` None: what the OTEL_ variables say."""

    log_format: str = "json"
    log_level: str = "info"
    log_requests: str = "all"
    metrics_token: str | None = None
    traces: bool = False
    otlp_endpoint: str | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of one server.

    Limits are requests a minute, or None for no limit: `rate_limit` for each key, `anonymous_limit` and `login_limit`
    for each address. `max_rate_limit` bounds what a key may be given instead of `rate_limit` (None: no more than that).
    """

    host: str = "127.0.0.1"
    port: int = 8000
    data: Path = Path(DEFAULT_DATA)
    database_url: str | None = None
    replica_url: str | None = None
    rate_limit: int | None = 600
    workers: int = 1
    drain_seconds: float = 0.0
    max_connections: int = defaults.MAX_CONNECTIONS
    background: bool = True
    synchronous: str = "full"
    public_url: str | None = None
    rate_burst: int | None = None
    max_rate_limit: int | None = None
    anonymous_limit: int | None = None
    login_limit: int | None = None
    valkey_url: str | None = None
    trusted_proxies: tuple[Network, ...] = ()
    outbound_allow: tuple[Network, ...] = ()
    dev: str = "off"
    outbound_proxy: str | None = None
    delivery_days: int = DELIVERY_DAYS
    observing: Observing = field(default_factory=Observing)

    @property
    def target(self) -> str | Path:
        """Where the database is: a PostgreSQL URL, or the SQLite file in the data folder."""
        return self.database_url or self.data / "taskade.db"

    @property
    def secret_file(self) -> Path:
        """Where an installation with SQLite keeps its secret."""
        return self.data / "secret.key"

    @property
    def developing(self) -> bool:
        """Whether there are request bins, which take no key."""
        return self.dev != "off"

    @property
    def counts_alone(self) -> bool:
        """Whether there are several processes, and limits that they cannot count together."""
        limits = (self.rate_limit, self.anonymous_limit, self.login_limit)
        return self.workers > 1 and self.valkey_url is None and any(limit is not None for limit in limits)

    @property
    def location(self) -> str:
        """The database in words, without credentials."""
        if self.database_url is None:
            return f"{self.data} (SQLite)"
        _, _, rest = self.database_url.rpartition("@")
        return f"PostgreSQL at {rest.removeprefix('postgresql://')}"


def parse_rate(text: str) -> int | None:
    """`off` or `N/minute` as requests a minute. ConfigError otherwise."""
    if text.strip().lower() == "off":
        return None
    number, _, unit = (part.strip() for part in text.partition("/"))
    sound = number.isdecimal() and len(number) < 12 and 1 <= int(number) <= MAX_RATE
    if not sound or unit not in ("minute", "min", "m"):
        raise ConfigError(f'A rate limit is "off" or a number a minute such as 600/minute, not "{text}".')
    return int(number)


def rates(
    rate_limit: str, max_rate_limit: str | None, anonymous_limit: str | None, login_limit: str | None
) -> dict[str, int | None]:
    """The rates among the settings. What is not said of addresses is the default, or off if keys have no limit."""
    keys = parse_rate(rate_limit)
    most = None if max_rate_limit is None else parse_rate(max_rate_limit)
    if max_rate_limit is not None and most is None:
        raise ConfigError("--max-rate-limit is a number a minute such as 1000/minute.")
    return {
        "rate_limit": keys,
        "max_rate_limit": most,
        "anonymous_limit": parse_rate(anonymous_limit) if anonymous_limit else keys and DEFAULT_ANONYMOUS,
        "login_limit": parse_rate(login_limit) if login_limit else keys and DEFAULT_LOGIN,
    }


def parse_networks(text: str, setting: str = "TASKADE_TRUSTED_PROXIES") -> tuple[Network, ...]:
    """Addresses and networks, separated by commas. ConfigError, which names the setting, for anything else."""
    try:
        return tuple(ipaddress.ip_network(part.strip(), strict=False) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise ConfigError(f"{setting} takes addresses and networks such as 10.0.0.0/8: {error}.") from error


def parse_outbound(text: str) -> tuple[Network, ...]:
    """The networks that requests may be sent to although they are not public. ConfigError for anything else."""
    return parse_networks(text, destinations.SETTING)


def reachable(text: str, dev: str) -> tuple[Network, ...]:
    """The same; in development mode the machine itself is among them, for request bins and receivers under work."""
    return parse_outbound(text) if dev == "off" else (*parse_outbound(text), *LOOPBACK)


def observing(environment: Mapping[str, str], terminal: bool) -> Observing:
    """How the environment wants the server to be observed; on a terminal the log is for people. ConfigError."""

    def choice(name: str, choices: Iterable[str], default: str) -> str:
        value = environment.get(name, "").strip().lower() or default
        if value not in choices:
            raise ConfigError(f'{name} is one of {", ".join(choices)}, not "{value}".')
        return value

    token = environment.get("TASKADE_METRICS_TOKEN", "")
    if token and (len(token) < 16 or not token.isascii() or not token.isprintable() or " " in token):
        raise ConfigError("TASKADE_METRICS_TOKEN needs at least 16 characters, all of them ASCII and no spaces.")
    endpoint = environment.get("TASKADE_OTLP_ENDPOINT", "")
    if endpoint and (urlsplit(endpoint).scheme not in ("http", "https") or not urlsplit(endpoint).hostname):
        raise ConfigError("TASKADE_OTLP_ENDPOINT is the address of a collector such as http://127.0.0.1:4318.")
    wanted = bool(endpoint) or any(environment.get(name) for name in defaults.TRACE_ENDPOINTS)
    return Observing(
        log_format=choice("TASKADE_LOG_FORMAT", defaults.LOG_FORMATS, "text" if terminal else "json"),
        log_level=choice("TASKADE_LOG_LEVEL", defaults.LOG_LEVELS, "info"),
        log_requests=choice("TASKADE_LOG_REQUESTS", defaults.LOG_REQUESTS, "all"),
        metrics_token=token or None,
        traces=wanted and environment.get("OTEL_SDK_DISABLED", "").strip().lower() != "true",
        otlp_endpoint=endpoint or None,
    )


def check(config: Config) -> None:
    """ConfigError when settings do not fit together."""
    if config.synchronous not in ("full", "normal"):
        raise ConfigError(f'TASKADE_SQLITE_SYNCHRONOUS is "full" or "normal", not "{config.synchronous}".')
    if config.delivery_days < 1:
        raise ConfigError("--delivery-days is at least 1.")
    if config.workers < 1:
        raise ConfigError("--workers is at least 1.")
    if config.workers > 1 and config.database_url is None:
        raise ConfigError("Several workers need PostgreSQL: give --database-url, or use one worker with SQLite.")
    if config.database_url is not None and not config.database_url.startswith(("postgresql://", "postgres://")):
        raise ConfigError("--database-url starts with postgresql://; for SQLite give --data DIR instead.")
    if config.replica_url and not (config.database_url and is_postgresql(config.replica_url)):
        raise ConfigError("--replica-url is a postgresql:// URL of a replica of the PostgreSQL in --database-url.")
    if config.max_rate_limit is not None and config.max_rate_limit < (config.rate_limit or 1):
        raise ConfigError("--max-rate-limit is at least the --rate-limit that every key has.")
    if config.developing and config.workers > 1:
        raise ConfigError(
            "Development mode has one worker, which keeps the request bins: leave --workers or --dev out."
        )
    if config.dev == "on" and not destinations.is_loopback(config.host):
        raise ConfigError(
            f"Request bins take no key, so --dev does not listen on {config.host}: use 127.0.0.1, or --dev anywhere if"
            " everybody who can connect may use them."
        )
    if config.outbound_proxy:
        try:
            destinations.split_proxy(config.outbound_proxy)
        except ValueError as error:
            raise ConfigError(f"TASKADE_OUTBOUND_PROXY cannot be used: {error}") from error
    schemes = ("valkey://", "valkeys://", "redis://", "rediss://", "unix://")
    if config.valkey_url is not None and not config.valkey_url.startswith(schemes):
        raise ConfigError("--valkey-url starts with valkey://, valkeys:// (TLS), redis://, rediss:// or unix://.")


def prepare_folder(path: Path) -> None:
    """Make the data folder, readable by its owner only. ConfigError when that is impossible."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for made in missing:
            _sync_folder(made.parent)
    except OSError as error:
        raise ConfigError(f"The data folder {path} cannot be made: {error.strerror}.") from error
    if not path.is_dir():
        raise ConfigError(f"The data folder {path} is a file.")
    if not os.access(path, os.W_OK | os.X_OK):
        raise ConfigError(f"The data folder {path} is not writable; give another one with --data.")


def given_secret() -> bytes | None:
    """The secret in TASKADE_SECRET, None without one. ConfigError if it cannot be used."""
    given = os.environ.get("TASKADE_SECRET", "")
    if not given:
        return None
    if len(given) < 32:
        raise ConfigError("TASKADE_SECRET needs at least 32 characters.")
    try:
        return given.encode()
    except UnicodeEncodeError as error:
        raise ConfigError("TASKADE_SECRET is not UTF-8: use other characters.") from error


def file_secret(path: Path) -> bytes:
    """The installation's secret beside an SQLite database, made on first use; it keys API key hashes and cursors.

    It appears whole or not at all, and survives a power loss from then on: without it every API key is lost.
    """
    found = kept_secret(path)
    if found is not None:
        return found
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # another process has just made it
            os.link(draft, path)
        draft.unlink()
        _sync_folder(path.parent)
    except OSError as error:
        raise ConfigError(f"The secret {path} cannot be written: {error.strerror}.") from error
    made = kept_secret(path)
    if made is None:
        raise ConfigError(f"The secret {path} is a link to a file that does not exist: put that file back.")
    return made


def kept_secret(path: Path) -> bytes | None:
    """The secret in a file, None if there is no such file. ConfigError for anything that is not a secret."""
    try:
        if path.exists() and not path.is_file():
            raise ConfigError(f"The secret {path} is not a file: put back the file that was there.")
        secret = path.read_bytes() if path.exists() else None
    except OSError as error:
        raise ConfigError(f"The secret {path} cannot be read: {error.strerror}.") from error
    if secret is not None and len(secret) < 32:
        raise ConfigError(f"The secret {path} is damaged (too short): put back the file that was there, or a backup's.")
    return secret


def _sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on disk, if it may be read at all."""
    with suppress(PermissionError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
