"""Connections to endpoints are bounded, with a share for each owner, and what this server lacks counts for nothing."""

import asyncio
import errno
import ipaddress
import os
import random
from collections import Counter
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from taskade_server.consumers.pace import SLICE_STEPS, Pace
from taskade_server.consumers.sender import ATTEMPT_STEPS, EndpointQueue, Sender
from taskade_server.domain.webhooks import Endpoint
from taskade_server.kit import webhook_signatures
from taskade_server.outbound import client, slots
from taskade_server.outbound.client import Outbound
from taskade_server.outbound.connection import Exchange
from taskade_server.outbound.slots import Slots
from taskade_server.store.database import Database, Unavailable
from taskade_server.store.tables import deliveries
from taskade_server.store.tables.deliveries import PENDING, Delivery

LACKING = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL)


@pytest.mark.parametrize(("files", "most"), [(64, 8), (1024, 128), (65_536, 8_192), (1_000_000, 8_192)])
def test_attempts_take_a_part_of_the_files_that_the_process_may_have(files, most):
    assert slots.capacity(files) == most


def test_one_owner_alone_has_half_of_the_slots_and_many_owners_leave_one_for_who_comes_next():
    found = Slots(100)
    assert sum(found.take("one") for _ in range(1000)) == 50
    for owner in range(500):
        before = found.taken
        while found.take(f"owner {owner}"):
            pass
        if before < 99:
            assert found.taken > before, "who has none gets one"
    assert found.taken <= 100


@pytest.mark.parametrize("seed", range(20))
def test_slots_are_never_more_than_there_are_and_all_come_back(seed):
    rng, found, held = random.Random(seed), Slots(30), Counter[str]()
    for _ in range(2000):
        owner = f"owner {rng.randrange(5)}"
        if rng.random() < 0.6:
            held[owner] += found.take(owner)
        elif held[owner]:
            found.give(owner)
            held[owner] -= 1
        assert found.taken == held.total() <= 30
        assert max(held.values(), default=0) <= 15
    for owner, count in held.items():
        for _ in range(count):
            found.give(owner)
    assert found.taken == 0


# ---- what this server lacks ------------------------------------------------------------------------------------------


def lacking(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize("number", LACKING, ids=errno.errorcode.get)
def test_what_this_server_lacks_is_no_failure_of_the_endpoint(number, monkeypatch):
    async def connected(host: str, port: int) -> Any:
        raise lacking(number)

    monkeypatch.setattr(client, "connected", connected)

    async def scene() -> Exchange:
        client = Outbound([ipaddress.ip_network("127.0.0.0/8")])
        return await client.post("http://127.0.0.1:8123/", body=b"", headers={})

    found = asyncio.run(scene())
    assert (found.error, found.lacking) == ("internal_error", True)
    assert "lacks" in (found.detail or "")


@pytest.mark.parametrize("number", [errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH], ids=errno.errorcode.get)
def test_what_the_network_says_is(number, monkeypatch):
    async def connected(host: str, port: int) -> Any:
        raise lacking(number)

    monkeypatch.setattr(client, "connected", connected)

    async def scene() -> Exchange:
        client = Outbound([ipaddress.ip_network("127.0.0.0/8")])
        return await client.post("http://127.0.0.1:8123/", body=b"", headers={})

    found = asyncio.run(scene())
    assert (found.error, found.lacking) == ("connect_failed", False)


# ---- sending ---------------------------------------------------------------------------------------------------------


def endpoint(name: str, workspace: str) -> Endpoint:
    return Endpoint(name, workspace, "http://example.com/", {}, None, 100, False, "user_1", 1, "")


def waiting(hook: str, workspace: str, seq: int) -> Delivery:
    return Delivery(
        f"dlv_{hook}_{seq}",
        hook,
        workspace,
        seq,
        f"evt_{hook}_{seq}",
        deliveries.TEST,
        f"task_{seq}",
        None,
        PENDING,
        0,
        0,
        1,
        1,
        None,
        None,
        None,
        None,
    )


class Out:
    """Endpoints that accept and never answer, or what is told to happen instead."""

    def __init__(self, most: int, answer: Exchange | Exception | None = None) -> None:
        self.slots = Slots(most)
        self.open = 0
        self.most_open = 0
        self.answer = answer

    async def post(self, url: str, **_: Any) -> Exchange:
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is not None:
            return self.answer
        await asyncio.Event().wait()
        raise AssertionError


@pytest.fixture
def signing(monkeypatch):
    keys = [webhook_signatures.new_secret()]
    monkeypatch.setattr(Endpoint, "signing_keys", lambda self, secret, at: keys)


def sender_of(db: Database, out: Any) -> Sender:
    lease: Any = SimpleNamespace(left=60.0, held=True, leaving=asyncio.Event(), hold=lambda tx: None)
    return Sender(db, out, b"", lease, asyncio.Event(), (0, 1), Counter(), Pace())


def queues_of(db: Database, number: int, workspace: str) -> list[EndpointQueue]:
    made = []
    for index in range(number):
        name = f"wh_{workspace}_{index}"
        due = [waiting(name, workspace, seq) for seq in range(100)]
        db.write_sync(partial(deliveries.add, fresh=due))
        queue = EndpointQueue(endpoint(name, workspace))
        queue.waiting.extend(due)
        queue.known |= {one.id for one in due}
        made.append(queue)
    return made


def forget(tx: Any) -> None:
    for table in ("deliveries", "attempts", "webhook_states"):
        tx.run(f"DELETE FROM {table}")


def test_slow_endpoints_of_one_workspace_leave_slots_for_others(db, signing):
    """Twenty webhooks with a hundred attempts at a time each are two thousand connections; here are forty."""
    db.write_sync(forget)
    greedy, modest = queues_of(db, 20, "ws_greedy"), queues_of(db, 1, "ws_modest")

    async def scene() -> Out:
        out = Out(40)
        sender = sender_of(db, out)
        for queue in [*greedy, *modest]:
            sender._begin(queue)
        while out.open < out.slots.taken:
            await asyncio.sleep(0)
        assert sum(queue.under_way for queue in greedy) == 20
        assert modest[0].under_way >= 1, "the others are told"
        assert len(greedy[-1].waiting) == 100 and greedy[-1].failures == 0, "to wait is no failure"
        sender._ended = True
        for task in sender._attempts:
            task.cancel()
        await asyncio.gather(*sender._attempts, return_exceptions=True)
        assert out.slots.taken == 0
        return out

    assert asyncio.run(scene()).most_open <= 40


@pytest.mark.parametrize(
    "answer",
    [Exchange(error="internal_error", lacking=True), Unavailable("unable to open database file")],
    ids=["no file for a connection", "no file for the database"],
)
def test_a_delivery_that_this_server_could_not_send_is_sent_soon_and_counts_for_nothing(db, signing, answer):
    db.write_sync(forget)
    (queue,) = queues_of(db, 1, "ws_1")

    async def scene() -> None:
        sender = sender_of(db, Out(40, answer))
        sender._begin(queue)
        await asyncio.gather(*sender._attempts)
        await sender._record()
        assert sender._counts["internal_error"] > 0
        assert queue.failures == 0
        now = asyncio.get_running_loop().time()
        assert queue.room(now) == 0 and queue.room(now + 5) > 0

    asyncio.run(scene())
    found = db.read_sync(lambda tx: deliveries.newest(tx, queue.endpoint.id, "ws_1", deliveries.Filter(), None, 100))
    assert {(one.state, one.attempts) for one in found} == {(PENDING, 0)}
    assert db.read_sync(lambda tx: tx.one("SELECT COUNT(*) FROM attempts")) == (0,)
    state = db.read_sync(lambda tx: deliveries.state_of(tx, queue.endpoint.id, "ws_1"))
    assert (state.failing_since, state.last_failure_at) == (None, None)


def test_a_thousand_attempts_that_may_begin_at_once_let_requests_be_answered_in_between(db, signing):
    """Each takes half a millisecond of the event loop, twice; it looks for requests once in each round."""
    db.write_sync(forget)
    queues = queues_of(db, 10, "ws_busy")
    rounds: list[int] = []

    async def scene() -> None:
        loop = asyncio.get_running_loop()
        out = Out(4_000)
        sender = sender_of(db, out)
        for queue in queues:
            sender._begin(queue)
        begun = 0

        def look() -> None:
            nonlocal begun
            rounds.append(out.open - begun)
            begun = out.open
            loop.call_soon(look)

        loop.call_soon(look)
        while out.open < 1_000:
            await asyncio.sleep(0)
        sender._ended = True
        for task in sender._attempts:
            task.cancel()
        await asyncio.gather(*sender._attempts, return_exceptions=True)

    asyncio.run(scene())
    assert max(rounds) <= SLICE_STEPS // ATTEMPT_STEPS + 1
