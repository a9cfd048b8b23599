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
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import uvloop

from taskade_server.config import TRASH_DAYS, Config, ConfigError, check, prepare_folder
from taskade_server.consumers import audit_trees, housekeeping
from taskade_server.consumers.access_log import Refusals
from taskade_server.consumers.automations import Automations
from taskade_server.consumers.feed import Feed
from taskade_server.consumers.runner import Job, Runner
from taskade_server.consumers.webhooks import Webhooks
from taskade_server.domain.automations import Services as AutomationServices
from taskade_server.domain.webhooks import endpoints
from taskade_server.http.admission import connections
from taskade_server.http.admission.credentials import Credentials
from taskade_server.http.admission.guard import Guard
from taskade_server.http.admission.limits import KEYS, Limits, Policy
from taskade_server.http.api.automated import AutomatedOperations
from taskade_server.http.documents import asyncapi, openapi
from taskade_server.http.live.sessions import Hub
from taskade_server.http.observe import metrics, traces
from taskade_server.http.observe.requests import Observer
from taskade_server.http.pages import service as pages
from taskade_server.http.pages.mounts import Mount, Mounts
from taskade_server.http.pages.request_bin import PREFIX, RequestBin
from taskade_server.http.pipeline.pipeline import Pipeline
from taskade_server.http.pipeline.services import Services
from taskade_server.http.routes import all_routes, build
from taskade_server.http.wire.addresses import Proxies
from taskade_server.http.wire.request import Receive, Scope, Send
from taskade_server.installation import first_key, open_database
from taskade_server.kit import time
from taskade_server.kit.background import keep_on
from taskade_server.outbound.client import Outbound
from taskade_server.serving import process as serving
from taskade_server.serving.sockets import Inherited, inherited, listen
from taskade_server.serving.traffic import Traffic
from taskade_server.serving.workers import Workers
from taskade_server.store.database import Database, StoreError, Tx, connect
from taskade_server.store.tables import last_used

logger: Final = logging.getLogger("taskade")
METRICS_FOLDER: Final = "_TASKADE_METRICS_FOLDER"
OWNER_EMAIL: Final = "owner@localhost"
FLUSH_SECONDS: Final = 30.0
CLOSE_SECONDS: Final = 10.0
SWITCH_SECONDS: Final = 0.001
"""How long a thread that computes (a long change, a long read) may keep the interpreter from the event loop, which asks
for it several times for each request. Python's own 5 ms, times some threads, would be felt."""
GC_THRESHOLDS: Final = (20_000, 5, 100)
"""With 20 in the middle a collection looked at 400,000 objects of one large change, 40 ms in which nothing else ran."""

# ---- serving ---------------------------------------------------------------------------------------------------------


class Application:
    """One server process: the pipeline on its database, and what it does beside answering."""

    def __init__(self, config: Config, db: Database, secret: bytes, folder: Path | None = None) -> None:
        self.db = db
        self.secret = secret
        self.replica = connect(config.replica_url, required=False) if config.replica_url else None
        self.traffic = Traffic()
        self.limits = limits_of(config)
        self.observer = observer_of(config, folder)
        self.feed = Feed(db)
        self.refusals = Refusals(db)
        self.outbound = Outbound(config.outbound_allow, proxy=config.outbound_proxy)
        self.hub = Hub(db, self.feed)
        self.traffic.leaving.append(self.hub.end)
        self.credentials = Credentials(db, secret, self.limits)
        services = Services(
            db,
            secret,
            self.limits,
            self.credentials,
            observer=self.observer,
            public_url=config.public_url,
            proxies=Proxies(config.trusted_proxies),
            replica=self.replica,
            feed=self.feed,
            refusals=self.refusals,
            destinations=self.outbound.rules,
            hub=self.hub,
        )
        self.pipeline = Pipeline(services, self._mounts(config))
        self.guard = Guard(self.pipeline)
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
        self.automations = automations_of(db, self.feed, self.outbound, secret)
        self.observer.sources.append(metrics.of_runs(self.automations.ended))
        jobs = background_jobs(db, self.webhooks, self.automations, secret)
        self._runner = Runner(db, jobs) if config.background else None
        self._flushing: asyncio.Task[None] | None = None
        self._trimming: asyncio.Task[None] | None = None
        self._noting: asyncio.Task[None] | None = None

    def _mounts(self, config: Config) -> Mounts:
        """Return the mounts outside /v1: health, documents, metrics and, in development mode, request bins."""
        documents = {"/openapi.json": openapi.render(), "/asyncapi.json": asyncapi.render()}
        mounts = pages.mounts(self.db, documents, lambda: not self.traffic.ending)
        mounts.append(Mount("/metrics", metrics.page(self.observer, self.db, config.observing.metrics_token)))
        if config.developing:
            request_bin = RequestBin(config.port, self.keys_of, anywhere=config.dev == "anywhere")
            mounts.append(Mount(PREFIX, application=request_bin, below=True))
        return Mounts(mounts)

    async def start(self) -> None:
        """Begin what is done beside answering."""
        # What was loaded by now stays: the collector need not walk through it again, nor look so often.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        sys.setswitchinterval(SWITCH_SECONDS)
        if self.replica is not None:
            await self.replica.open()
        self.observer.start()
        self.feed.start()
        self.hub.start()
        self._flushing = asyncio.create_task(_repeat(FLUSH_SECONDS, self.flush_usage))
        self._trimming = asyncio.create_task(keep_on("Closing idle connections", self.trimmer.run))
        self._noting = asyncio.create_task(keep_on("Writing down refusals", self.refusals.run))
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
        cache = self.pipeline.reads.cache
        return {
            "cache_hits_total": cache.hits,
            "cache_misses_total": cache.misses,
            "cache_bytes": cache.bytes,
            "idempotent_replays_total": self.pipeline.writes.replays,
        }

    async def keys_of(self, path: str) -> list[str]:
        """What signs deliveries of the webhooks whose URL has this path."""
        found = [item for item in await self.db.read(endpoints) if urlsplit(item.url).path == path]
        return [key for item in found for key in item.signing_keys(self.secret, time.now_ms())]

    async def flush_usage(self) -> None:
        """Note when keys were last used."""
        used, self.credentials.used = self.credentials.used, set()
        if not used:
            return
        minute = time.now_ms() // 60_000 * 60_000

        def unit(tx: Tx) -> None:
            for key_id in sorted(used):
                last_used.note(tx, key_id, minute)

        await self.db.write(unit)

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
    keys = Policy("default", config.rate_limit, config.rate_burst, config.max_rate_limit, advice=KEYS)
    try:
        return Limits.of(keys, config.anonymous_limit, config.login_limit, url)
    except ValueError as error:
        raise ConfigError(f"--valkey-url cannot be understood: {error}") from error


def automations_of(db: Database, feed: Feed, outbound: Outbound, secret: bytes) -> Automations:
    """What starts and carries out automations in this process."""
    operations = AutomatedOperations(build().operations)
    return Automations(db, feed, AutomationServices(operations, secret, outbound.rules))


def background_jobs(db: Database, webhooks: Webhooks, automations: Automations, secret: bytes) -> list[Job]:
    """What is done for all processes together, each by one of them."""
    return [
        *housekeeping.jobs(db, TRASH_DAYS),
        *webhooks.jobs(),
        *automations.jobs(),
        *audit_trees.jobs(db, secret),
    ]


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
    handed = inherited()
    listener = handed.listener or listen(config.host, config.port)
    config = replace(config, port=listener.getsockname()[1])
    if config.database_url is None:
        prepare_folder(config.data)
        serving.claim(config.data, f"http://{config.host}:{config.port}")
    recovery = _Recovery()
    db, secret = open_database(config, recovery)
    if handed.control is None:
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
        return await Workers(listener, config.workers, config.drain_seconds, common=common).run()


async def _serve_here(
    config: Config,
    db: Database,
    secret: bytes,
    handed: Inherited,
    listener: socket.socket,
    recovery: _Recovery,
) -> serving.Ending:
    # A process of several leaves its numbers where the others find them.
    folder = os.environ.get(METRICS_FOLDER) if handed.control is not None else None
    application = Application(config, db, secret, Path(folder) if folder else None)
    process = serving.Process(
        application,
        application.guard,
        application.traffic,
        handed,
        listener,
        config.drain_seconds,
        application.connections,
    )
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
    webhooks = Webhooks(db, feed, outbound, secret, config.delivery_days)
    runner = Runner(db, background_jobs(db, webhooks, automations_of(db, feed, outbound, secret), secret))
    feed.start()
    runner.start()
    logger.info("Background work begins.")
    await told.wait()
    await feed.stop()
    await runner.stop()
    await outbound.close()
    await db.close()
