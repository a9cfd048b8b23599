"""The composition root: it opens the database, makes the first owner, wires the pipeline and serves.

Why the process replaces itself when a commit fails: after a failed fsync nobody knows what is on disk; only opening the
file anew tells, so the safest recovery is the one that every start performs.
"""

import asyncio
import gc
import logging
import os
import signal
import socket
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import uvloop

from taskade_server import serving
from taskade_server.config import REPLY_HOURS, TRASH_DAYS, Config, ConfigError, check, file_secret, prepare_folder
from taskade_server.consumers import notary
from taskade_server.consumers.feed import Feed
from taskade_server.consumers.outbound import Outbound
from taskade_server.consumers.refusals import Refusals
from taskade_server.consumers.runner import Job, Lease, Runner
from taskade_server.consumers.webhooks import Webhooks
from taskade_server.domain import hooks, identity, projects, tasks, workspaces
from taskade_server.engine import edit, log
from taskade_server.engine.access import Principal
from taskade_server.engine.edit import Context
from taskade_server.engine.log import Actor, Change
from taskade_server.engine.model import Resource
from taskade_server.http import asyncapi, connections, metrics, openapi, pages, traces
from taskade_server.http.addresses import Proxies
from taskade_server.http.guard import Guard
from taskade_server.http.limits import Limits, Policy
from taskade_server.http.live import Hub
from taskade_server.http.observe import Observer
from taskade_server.http.pipeline import Pipeline
from taskade_server.http.request_bin import PREFIX, RequestBin
from taskade_server.http.routes import all_routes
from taskade_server.http.wire import Receive, Scope, Send
from taskade_server.kit import ids, time
from taskade_server.store.database import Database, StoreError, Tx, connect
from taskade_server.store.schema import migrate

logger: Final = logging.getLogger("taskade")
METRICS_FOLDER: Final = "_TASKADE_METRICS_FOLDER"
OWNER_EMAIL: Final = "owner@localhost"
FLUSH_SECONDS: Final = 30.0
CLEAN_SECONDS: Final = 3600.0
CLOSE_SECONDS: Final = 10.0
GC_THRESHOLDS: Final = (20_000, 20, 50)


def open_database(config: Config, on_fatal: Callable[[BaseException], None] | None = None) -> tuple[Database, bytes]:
    """The opened and migrated database and the installation's secret. StoreError or ConfigError in one clear line."""
    check(config)
    if config.database_url is None:
        prepare_folder(config.data)
    db = connect(config.target, synchronous=config.synchronous, on_fatal=on_fatal)
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


# ---- first start -----------------------------------------------------------------------------------------------------


def first_start(tx: Tx, secret: bytes) -> str | None:
    """On an empty database: the owner, a workspace and a key. Returns the key's secret, None if there are users."""
    # Servers that start together on PostgreSQL take turns here, so that only the first finds nobody.
    tx.one(f"SELECT value FROM counters WHERE name = 'grants'{tx.for_update}")
    if _has_users(tx):
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


def first_key(db: Database, secret: bytes) -> str | None:
    """`first_start` if there has been none. It only looks at first, so that a server comes up on a full disk."""
    if db.read_sync(_has_users):
        return None
    return db.write_sync(lambda tx: first_start(tx, secret))


def _has_users(tx: Tx) -> bool:
    return tx.one("SELECT 1 FROM users LIMIT 1") is not None


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
    """One server process: the pipeline on its database, and what it does beside answering."""

    def __init__(self, config: Config, db: Database, secret: bytes, folder: Path | None = None) -> None:
        self.db = db
        self.secret = secret
        self.replica = connect(config.replica_url, required=False) if config.replica_url else None
        self.traffic = serving.Traffic()
        self.limits = limits_of(config)
        self.observer = observer_of(config, folder)
        self.feed = Feed(db)
        self.refusals = Refusals(db)
        self.outbound = Outbound(config.outbound_allow, proxy=config.outbound_proxy)
        self.hub = Hub(db, self.feed)
        self.traffic.leaving.append(self.hub.end)
        documents = {"/openapi.json": openapi.render(), "/asyncapi.json": asyncapi.render()}
        known = pages.exact(db, documents, lambda: not self.traffic.ending)
        known["/metrics"] = metrics.page(self.observer, db, config.observing.metrics_token)
        self.pipeline = Pipeline(
            db,
            secret,
            limits=self.limits,
            pages=known,
            page_prefixes=pages.prefixes(),
            observer=self.observer,
            public_url=config.public_url,
            proxies=Proxies(config.trusted_proxies),
            replica=self.replica,
            feed=self.feed,
            refusals=self.refusals,
            destinations=self.outbound.rules,
            hub=self.hub,
        )
        self.guard = Guard(self._with_bin(config) if config.developing else self.pipeline)
        self.connections = connections.capacity(config.max_connections)
        self.trimmer = connections.Trimmer(config.port, self.connections, self.guard.clients)
        self.observer.sources += [
            metrics.of_stats(db.stats, "primary"),
            metrics.of_stats(self.stats),
            metrics.of_stats(self.guard.stats),
            metrics.of_stats(self.trimmer.stats),
            metrics.of_stats(self.hub.stats),
            metrics.of_limits(self.limits.refused, self.limits.shared),
        ]
        if self.replica is not None:
            self.observer.sources.append(metrics.of_stats(self.replica.stats, "replica"))
        self.webhooks = Webhooks(db, self.feed, self.outbound, secret, config.delivery_days)
        self.observer.sources.append(metrics.of_attempts(self.webhooks.attempts))
        self._runner = Runner(db, background_jobs(db, self.webhooks, secret)) if config.background else None
        self._flushing: asyncio.Task[None] | None = None
        self._trimming: asyncio.Task[None] | None = None
        self._noting: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin what is done beside answering."""
        # What was loaded by now stays: the collector need not walk through it again, nor look so often.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        if self.replica is not None:
            await self.replica.open()
        self.observer.start()
        self.feed.start()
        self.hub.start()
        self._flushing = asyncio.create_task(_repeat(FLUSH_SECONDS, self.flush_usage))
        self._trimming = asyncio.create_task(self.trimmer.run())
        self._noting = asyncio.create_task(self.refusals.run())
        if self._runner is not None:
            self._runner.start()

    async def stop(self) -> None:
        """End that, write what is pending, close the database."""
        await self.hub.stop()
        await self.feed.stop()
        for task in (self._flushing, self._trimming, self._noting):
            if task is not None:
                task.cancel()
        if self._runner is not None:
            await self._runner.stop()
        await self.outbound.close()
        await self.refusals.finish()
        try:
            await self.flush_usage()
        except StoreError as error:
            logger.warning("The last use of keys was not noted: %s", error)
        if self.replica is not None:
            await self.replica.close()
        await self.db.close()
        self.limits.close()
        await self.observer.stop()

    def stats(self) -> dict[str, float]:
        """What the pipeline has counted."""
        cache = self.pipeline.cache
        return {
            "cache_hits_total": cache.hits,
            "cache_misses_total": cache.misses,
            "cache_bytes": cache.bytes,
            "idempotent_replays_total": self.pipeline.replays,
        }

    async def keys_of(self, path: str) -> list[str]:
        """What signs deliveries of the webhooks whose URL has this path."""
        found = [item for item in await self.db.read(hooks.endpoints) if urlsplit(item.url).path == path]
        return [key for item in found for key in item.signing_keys(self.secret, time.now_ms())]

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

    def _with_bin(self, config: Config) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
        """The pipeline, and a request bin beside it for who develops."""
        request_bin = RequestBin(config.port, self.keys_of, anywhere=config.dev == "anywhere")

        def answer(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            to_bin = scope["path"].startswith(PREFIX)
            return request_bin(scope, receive, send) if to_bin else self.pipeline(scope, receive, send)

        return answer

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """ASGI without lifespan: requests go past the guard to the pipeline."""
        if scope["type"] == "websocket":
            return self.guard.socket(self.pipeline.socket, scope, receive, send)
        return self.traffic.carry(self.guard, scope, receive, send)


def limits_of(config: Config) -> Limits:
    """The limits of this process, counted with the others' where there is a Valkey. ConfigError for its URL."""
    url = config.valkey_url
    if url is not None and config.database_url is None:
        logger.info("SQLite has one process, which counts rate limits exactly by itself: Valkey is not used.")
        url = None
    keys = Policy("default", config.rate_limit, config.rate_burst, config.max_rate_limit)
    try:
        return Limits.of(keys, config.anonymous_limit, config.login_limit, url)
    except ValueError as error:
        raise ConfigError(f"--valkey-url cannot be understood: {error}") from error


# What is removed for good, and what without a trash of its own goes with it. What hangs on another goes before it.
_TRASH: Final[tuple[tuple[Resource, tuple[Resource, ...]], ...]] = (
    (tasks.COMMENT, ()),
    (tasks.TASK, ()),
    (projects.PROJECT, (identity.MEMBER,)),
    (projects.TEMPLATE, ()),
)


def housekeeping(db: Database) -> list[Job]:
    """What is removed from time to time."""

    async def empty_trash(lease: Lease) -> None:
        """Remove for good what has been in the trash for 30 days, a few hundred rows at a time."""
        before = time.now_ms() - TRASH_DAYS * time.DAY_MS
        purge = partial(edit.purge, actor=Actor(None), before_ms=before, limit=500)
        for resource, below in _TRASH:
            await _until_done(db, lease, partial(purge, resource=resource, below=below), 500)

    async def forget_replies(lease: Lease) -> None:
        """Remove the answers that no repetition of a request can ask for any more."""
        before = time.now_ms() - REPLY_HOURS * 3_600_000
        await _until_done(db, lease, partial(log.forget_replies, before_ms=before, limit=1000), 1000)

    return [Job("trash", CLEAN_SECONDS, empty_trash), Job("replies", CLEAN_SECONDS, forget_replies)]


def background_jobs(db: Database, webhooks: Webhooks, secret: bytes) -> list[Job]:
    """What is done for all processes together, each by one of them."""
    return [*housekeeping(db), *webhooks.jobs(), *notary.jobs(db, secret)]


async def _until_done(db: Database, lease: Lease, remove: Callable[[Tx], int], limit: int) -> None:
    """Remove rows, `limit` in each unit of work, until there are no more."""

    def unit(tx: Tx) -> int:
        lease.hold(tx)
        return remove(tx)

    while await db.write(unit, heavy=True) >= limit:
        pass


def observer_of(config: Config, folder: Path | None) -> Observer:
    """What notes each request, as configured. `folder` is where several processes share their numbers."""
    wanted = config.observing
    paths = {route.operation_id: f"/v1{route.path}" for route in all_routes()}
    return Observer(
        log_format=wanted.log_format,
        log_level=wanted.log_level,
        log_requests=wanted.log_requests,
        spans=traces.Spans(wanted.otlp_endpoint, paths) if wanted.traces else None,
        folder=metrics.Folder(folder) if folder is not None else None,
    )


async def _repeat(seconds: float, step: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await step()
        except Exception:
            logger.exception("Housekeeping failed; it is tried again in %.0f s.", seconds)


def serve(config: Config, greet: Callable[[Config, str | None], None]) -> int:
    """Serve until SIGINT or SIGTERM; the exit status. `greet` is told the first key, if one was made."""
    check(config)
    handed = serving.inherited()
    listener = handed.listener or serving.listen(config.host, config.port)
    config = replace(config, port=listener.getsockname()[1])
    recovery = _Recovery()
    db, secret = open_database(config, recovery)
    if handed.line is None:
        greet(config, first_key(db, secret))
        if config.workers > 1:
            db.close_sync()
            return asyncio.run(_serve_workers(config, listener, common=handed.listener is not None))
    ending = uvloop.run(_serve_here(config, db, secret, handed, listener, recovery))
    if ending is serving.Ending.RELOAD:
        serving.become_anew(listener)
    return 0


class _Recovery:
    """What happens when a commit fails: the process, if it is serving by now, gives way to a new one."""

    process: serving.Process | None = None

    def __call__(self, error: BaseException) -> None:
        logger.critical("A commit failed (%s); starting anew to recover.", error)
        if self.process is not None:
            self.process.replace()


async def _serve_workers(config: Config, listener: socket.socket, *, common: bool) -> int:
    with tempfile.TemporaryDirectory(prefix="taskade-") as folder:
        os.environ[METRICS_FOLDER] = folder
        return await serving.Workers(listener, config.workers, config.drain_seconds, common=common).run()


async def _serve_here(
    config: Config,
    db: Database,
    secret: bytes,
    handed: serving.Inherited,
    listener: socket.socket,
    recovery: _Recovery,
) -> serving.Ending:
    # A process of several leaves its numbers where the others find them.
    folder = os.environ.get(METRICS_FOLDER) if handed.line is not None else None
    application = Application(config, db, secret, Path(folder) if folder else None)
    process = serving.Process(
        application, application.guard, application.traffic, handed, listener, config.drain_seconds,
        application.connections,
    )  # fmt: skip
    recovery.process = process
    await application.start()
    try:
        await process.serve()
    finally:
        stopping = asyncio.create_task(application.stop())
        await asyncio.wait({stopping}, timeout=CLOSE_SECONDS)
    if process.cut_off or not stopping.done():
        serving.leave(process.ending, listener)
    await stopping
    return process.ending


# ---- background work -------------------------------------------------------------------------------------------------


def work(config: Config) -> None:
    """Do background work until SIGINT or SIGTERM."""
    db, secret = open_database(config)
    uvloop.run(_work_here(config, db, secret))


async def _work_here(config: Config, db: Database, secret: bytes) -> None:
    told = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    feed, outbound = Feed(db), Outbound(config.outbound_allow, proxy=config.outbound_proxy)
    runner = Runner(db, background_jobs(db, Webhooks(db, feed, outbound, secret, config.delivery_days), secret))
    feed.start()
    runner.start()
    logger.info("Background work begins.")
    await told.wait()
    await feed.stop()
    await runner.stop()
    await outbound.close()
    await db.close()
