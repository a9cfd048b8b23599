"""The composition root: it opens the database, makes the first owner, wires the pipeline and serves.

Why the process replaces itself when a commit fails: after a failed fsync nobody knows what is on disk; only opening the
file anew tells, so the safest recovery is the one that every start performs.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import uvloop
from granian.constants import Interfaces
from granian.http import HTTP1Settings
from granian.server import Server as WorkerServer
from granian.server.embed import Server as EmbeddedServer

from taskade_server.config import TRASH_DAYS, Config, ConfigError, check, file_secret, parse_rate, prepare_folder
from taskade_server.domain import identity, projects, tasks, workspaces
from taskade_server.engine import edit, log
from taskade_server.engine.access import Principal
from taskade_server.engine.edit import Context
from taskade_server.engine.log import Actor, Change
from taskade_server.http import openapi, pages
from taskade_server.http.limits import Limiter
from taskade_server.http.pipeline import Pipeline
from taskade_server.http.wire import Receive, Scope, Send
from taskade_server.kit import ids, time
from taskade_server.store.database import Database, StoreError, Tx, connect
from taskade_server.store.schema import migrate

logger: Final = logging.getLogger("taskade")
OWNER_EMAIL: Final = "owner@localhost"
FLUSH_SECONDS: Final = 30.0
PURGE_SECONDS: Final = 3600.0
HTTP1: Final = HTTP1Settings(header_read_timeout=15_000)


def open_database(config: Config) -> tuple[Database, bytes]:
    """The opened and migrated database and the installation's secret. StoreError or ConfigError in one clear line."""
    check(config)
    if config.database_url is None:
        prepare_folder(config.data)
    db = connect(config.target, synchronous=config.synchronous, on_fatal=_start_anew)
    db.open_sync()
    try:
        migrate(db)
        return db, _secret(config, db)
    except BaseException:
        db.close_sync()
        raise


def _secret(config: Config, db: Database) -> bytes:
    given = os.environ.get("TASKADE_SECRET", "")
    if given:
        if len(given) < 32:
            raise ConfigError("TASKADE_SECRET needs at least 32 characters.")
        return given.encode()
    if config.database_url is None:
        return file_secret(config.data / "secret.key")
    return bytes.fromhex(db.write_sync(lambda tx: log.setting(tx, "secret", os.urandom(32).hex())))


def _start_anew(error: BaseException) -> None:
    logger.critical("A commit failed (%s); starting anew to recover.", error)
    # A moment for the waiting clients to get their 503.
    timer = threading.Timer(0.3, os.execv, (sys.executable, [sys.executable, *sys.orig_argv[1:]]))
    timer.daemon = True
    timer.start()


# ---- first start -----------------------------------------------------------------------------------------------------


def first_start(tx: Tx, secret: bytes) -> str | None:
    """On an empty database: the owner, a workspace and a key. Returns the key's secret, None if there are users."""
    if tx.one("SELECT 1 FROM users LIMIT 1"):
        return None
    user_id, workspace_id = ids.new("user"), ids.new("ws")
    context = Context(Principal(user_id, None, frozenset("*"), {}, workspace_id), Actor(user_id), secret)
    values = edit.fields(identity.USER, {"name": "Owner", "email": OWNER_EMAIL, "handle": "owner"})
    doc = {**values, "id": user_id, "workspace_id": workspace_id}
    log.apply(tx, context.actor, [Change(identity.USER, "created", doc)])
    workspaces.create(tx, context, {"id": workspace_id, "name": "My workspace"})
    projects.add_builtin_templates(tx, context, workspace_id)
    key = edit.fields(identity.API_KEY, {"name": "First key"})
    return identity.new_key(tx, context, user_id, workspace_id, key)[1]


def context_of(tx: Tx, secret: bytes, email: str | None) -> tuple[Context, str]:
    """A user (e-mail or handle; None: the first owner) as a context, and the home workspace. ConfigError if unknown."""
    where, params = ("email = ? OR handle = ?", (email.lower(), email.lower())) if email else ("1 = 1", ())
    row = tx.one(
        f"SELECT id, workspace_id FROM users WHERE ({where}) AND deleted_at IS NULL ORDER BY n LIMIT 1", params
    )
    if row is None:
        raise ConfigError(
            f"There is no user with the e-mail or handle {email}."
            if email
            else "There are no users yet; run `taskade serve` once."
        )
    principal = Principal(row[0], None, frozenset("*"), identity.grants_of(tx, row[0]), row[1])
    return Context(principal, Actor(row[0]), secret), row[1]


# ---- serving ---------------------------------------------------------------------------------------------------------


class Application:
    """One server process: the pipeline on its database, and the housekeeping beside it."""

    def __init__(self, config: Config, db: Database, secret: bytes) -> None:
        self.db = db
        limiter = Limiter(config.rate_limit) if config.rate_limit is not None else None
        document = openapi.render()
        self.pipeline = Pipeline(db, secret, limiter, config.public_url, pages.exact(db, document), pages.prefixes())
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin housekeeping."""
        self._tasks = [
            asyncio.create_task(_repeat(FLUSH_SECONDS, self.flush_usage)),
            asyncio.create_task(_repeat(PURGE_SECONDS, self.purge)),
        ]

    async def stop(self) -> None:
        """End housekeeping, write what is pending, close the database."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            await self.flush_usage()
        except StoreError as error:
            logger.warning("The last use of keys was not noted: %s", error)
        await self.db.close()

    async def flush_usage(self) -> None:
        """Note when keys were last used."""
        used, self.pipeline.credentials.used = self.pipeline.credentials.used, set()
        if not used:
            return
        minute = time.now_ms() // 60_000 * 60_000

        def unit(tx: Tx) -> None:
            for key_id in sorted(used):
                log.touch(tx, key_id, minute)

        await self.db.write(unit)

    async def purge(self) -> None:
        """Remove for good what has been in the trash for 30 days, a few hundred rows at a time."""
        before = time.now_ms() - TRASH_DAYS * time.DAY_MS
        for resource in (tasks.COMMENT, tasks.TASK, projects.PROJECT, projects.TEMPLATE):
            removed = 500
            while removed == 500:
                removed = await self.db.write(
                    partial(edit.purge, actor=Actor(None), resource=resource, before_ms=before)
                )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: requests go to the pipeline, the lifespan is ours."""
        if scope["type"] == "http":
            await self.pipeline(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            step = self.start if message["type"] == "lifespan.startup" else self.stop
            await step()
            await send({"type": f"{message['type']}.complete"})
            if step == self.stop:
                return


async def _repeat(seconds: float, step: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await step()
        except Exception:
            logger.exception("Housekeeping failed; it is tried again in %.0f s.", seconds)


def serve(config: Config, db: Database, secret: bytes, ready: Callable[[], None]) -> None:
    """Serve until SIGINT or SIGTERM."""
    ready()
    if config.workers > 1:
        db.close_sync()
        _serve_workers(config)
    else:
        uvloop.run(_serve_here(config, Application(config, db, secret)))


async def _serve_here(config: Config, application: Application) -> None:
    server = EmbeddedServer(
        application,
        config.host,
        config.port,
        interface=Interfaces.ASGI,
        http1_settings=HTTP1,
        websockets=False,
        log_enabled=False,
        backlog=1024,
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, server.stop)
    await server.serve()


def _serve_workers(config: Config) -> None:
    os.environ |= {
        "TASKADE_DATABASE_URL": config.database_url or "",
        "TASKADE_RATE_LIMIT": "off" if config.rate_limit is None else f"{config.rate_limit}/minute",
    }
    WorkerServer(
        "taskade_server.app:worker", config.host, config.port, interface=Interfaces.ASGI, workers=config.workers,
        factory=True,
        http1_settings=HTTP1, websockets=False, log_enabled=False, respawn_failed_workers=True,
    ).serve()  # fmt: skip


def worker() -> Any:
    """The application of one worker process, configured by the environment it inherits."""
    config = Config(database_url=os.environ["TASKADE_DATABASE_URL"],
                    rate_limit=parse_rate(os.environ["TASKADE_RATE_LIMIT"]),
                    public_url=(os.environ.get("TASKADE_PUBLIC_URL") or "").rstrip("/") or None)  # fmt: skip
    db, secret = open_database(config)
    return Application(config, db, secret)


def free_port(host: str, port: int) -> int:
    """The port to listen on (a free one for 0). ConfigError when it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"{host}:{port} cannot be used: {error.strerror}. Choose another one with --port."
            ) from error
        return int(probe.getsockname()[1])
