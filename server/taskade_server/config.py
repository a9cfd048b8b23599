"""Every knob and limit of an installation, in one place; each is a command option and an environment variable.

Why no configuration file: environment variables work the same in a shell, a systemd unit and a container.
"""

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

DEFAULT_DATA: Final = "taskade-data"
DEFAULT_RATE: Final = "100/minute"
TRASH_DAYS: Final = 30


class ConfigError(Exception):
    """A setting is not usable; the message is one clear line."""


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of one server. `rate_limit` is requests a minute for each key, or None for no limit."""

    host: str = "127.0.0.1"
    port: int = 8000
    data: Path = Path(DEFAULT_DATA)
    database_url: str | None = None
    rate_limit: int | None = 100
    workers: int = 1
    synchronous: str = "full"
    public_url: str | None = None

    @property
    def target(self) -> str | Path:
        """Where the database is: a PostgreSQL URL, or the SQLite file in the data folder."""
        return self.database_url or self.data / "taskade.db"

    @property
    def place(self) -> str:
        """The database in words, without credentials."""
        if self.database_url is None:
            return f"{self.data} (SQLite)"
        _, _, rest = self.database_url.rpartition("@")
        return f"PostgreSQL at {rest.removeprefix('postgresql://')}"


def parse_rate(text: str) -> int | None:
    """`off` or `N/minute` as requests a minute. ConfigError otherwise."""
    if text.strip().lower() == "off":
        return None
    number, _, unit = text.partition("/")
    if not number.strip().isdigit() or int(number) < 1 or unit.strip() not in ("minute", "min", "m"):
        raise ConfigError(f'The rate limit is "off" or a number a minute such as 100/minute, not "{text}".')
    return int(number)


def check(config: Config) -> None:
    """ConfigError when settings do not fit together."""
    if config.synchronous not in ("full", "normal"):
        raise ConfigError(f'TASKADE_SQLITE_SYNCHRONOUS is "full" or "normal", not "{config.synchronous}".')
    if config.workers < 1:
        raise ConfigError("--workers is at least 1.")
    if config.workers > 1 and config.database_url is None:
        raise ConfigError("Several workers need PostgreSQL: give --database-url, or use one worker with SQLite.")
    if config.database_url is not None and not config.database_url.startswith(("postgresql://", "postgres://")):
        raise ConfigError("--database-url starts with postgresql://; for SQLite give --data DIR instead.")


def prepare_folder(path: Path) -> None:
    """Make the data folder, readable by its owner only. ConfigError when that is impossible."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"The data folder {path} cannot be made: {error.strerror}.") from error
    if not path.is_dir():
        raise ConfigError(f"The data folder {path} is a file.")
    if not os.access(path, os.W_OK | os.X_OK):
        raise ConfigError(f"The data folder {path} is not writable; give another one with --data.")


def file_secret(path: Path) -> bytes:
    """The installation's secret beside an SQLite database, made on first use; it keys API key hashes and cursors."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        try:
            secret = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"The secret {path} cannot be read: {error.strerror}.") from error
        if len(secret) < 32:
            raise ConfigError(f"The secret {path} is damaged (too short); restore it from a backup.") from None
        return secret
    except OSError as error:
        raise ConfigError(f"The secret {path} cannot be written: {error.strerror}.") from error
    secret = secrets.token_bytes(32)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secret)
        file.flush()
        os.fsync(file.fileno())
    return secret
