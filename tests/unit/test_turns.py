"""Turns: nobody has every place, nobody waits behind all of another's queries, and nobody waits for ever."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from taskade_server.store.interface import Overloaded
from taskade_server.store.turns import FairQueue, Turns

from tests.unit.examples import examples


class Stage:
    """Callers who hold a place until they are told to `leave`; `order` says who got one, in order."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.order: list[str] = []
        self.inside: list[str] = []
        self._leave: dict[str, asyncio.Event] = {}

    async def enter(self, name: str) -> asyncio.Task[None]:
        """Send somebody to ask; the letter of the name is the caller."""
        self._leave[name] = asyncio.Event()
        task = asyncio.create_task(self._play(name))
        await settle()
        return task

    async def _play(self, name: str) -> None:
        async with self.turns.turn(name[0] if name[0] != "-" else None):
            self.order.append(name)
            self.inside.append(name)
            await self._leave[name].wait()
            self.inside.remove(name)

    async def leave(self, name: str) -> None:
        self._leave[name].set()
        await settle()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def on_stage(scene: Callable[[Stage], Awaitable[None]], **options: Any) -> None:
    options = {"places": 4, "waiting": 10, "seconds": 60.0} | options

    async def play() -> None:
        stage = Stage(Turns(options.pop("places"), **options))
        await scene(stage)

    asyncio.run(play())


def test_one_caller_leaves_a_place_for_the_others():
    async def scene(stage: Stage) -> None:
        for name in ("a1", "a2", "a3", "a4", "a5"):
            await stage.enter(name)
        assert stage.inside == ["a1", "a2", "a3"] and stage.turns.waiting == 2
        await stage.enter("b1")
        assert stage.inside[-1] == "b1" and stage.turns.running == 4
        await stage.leave("b1")
        assert stage.inside == ["a1", "a2", "a3"], "the place stays free"
        await stage.leave("a2")
        assert stage.inside == ["a1", "a3", "a4"]

    on_stage(scene)


def test_callers_take_turns():
    async def scene(stage: Stage) -> None:
        for name in ("-1", "-2", "a1", "a2", "a3", "b1", "b2", "c1"):
            await stage.enter(name)
        for name in ("-1", "-2", "a1", "b1", "c1", "a2", "b2"):
            await stage.leave(name)
        assert stage.order == ["-1", "-2", "a1", "b1", "c1", "a2", "b2", "a3"]

    on_stage(scene, places=2)


def test_nobody_in_particular_may_have_every_place():
    async def scene(stage: Stage) -> None:
        for number in range(4):
            await stage.enter(f"-{number}")
        assert len(stage.inside) == 4

    on_stage(scene)


def test_a_single_place_is_for_everybody():
    async def scene(stage: Stage) -> None:
        await stage.enter("a1")
        await stage.enter("a2")
        await stage.leave("a1")
        assert stage.inside == ["a2"]

    on_stage(scene, places=1)


def test_who_has_waited_too_long_is_told_to_come_again():
    async def scene(stage: Stage) -> None:
        for name in ("a1", "b1"):
            await stage.enter(name)
        waiting = [await stage.enter(name) for name in ("a2", "c1")]
        for task in waiting:
            with pytest.raises(Overloaded):
                await task
        assert stage.turns.waiting == 0
        await stage.leave("a1")
        await stage.enter("c2")
        assert stage.inside == ["b1", "c2"]

    on_stage(scene, places=2, seconds=0.01)


def test_a_queue_that_is_full():
    async def scene(stage: Stage) -> None:
        for name in ("a1", "a2", "a3"):
            await stage.enter(name)
        refused = await stage.enter("a4")
        assert refused.done(), "at once"
        with pytest.raises(Overloaded):
            await refused

    on_stage(scene, places=1, waiting=2)


def test_who_gives_up_leaves_no_trace():
    async def scene(stage: Stage) -> None:
        await stage.enter("a1")
        gone = [await stage.enter(name) for name in ("b1", "b2")]
        await stage.enter("c1")
        gone[0].cancel()
        await settle()
        stage._leave["a1"].set()
        while "a1" in stage.inside:
            await asyncio.sleep(0)
        gone[1].cancel()  # his turn has come, but he does not know it yet
        await asyncio.gather(*gone, return_exceptions=True)
        await settle()
        assert stage.inside == ["c1"] and stage.turns.waiting == 0 and stage.turns.running == 1

    on_stage(scene, places=1)


def test_waiting_until_all_is_over():
    async def scene(stage: Stage) -> None:
        await stage.turns.over()
        await stage.enter("a1")
        await stage.enter("b1")
        over = [asyncio.create_task(stage.turns.over()) for _ in range(3)]
        await stage.leave("a1")
        assert stage.inside == ["b1"] and not over[0].done()
        over[1].cancel()
        await settle()
        await stage.leave("b1")
        assert over[0].done() and over[1].cancelled() and over[2].done()
        assert stage.turns.running == 0

    on_stage(scene, places=1)


@examples(100)
@given(st.lists(st.tuples(st.sampled_from("abc-"), st.integers(0, 3)), min_size=1, max_size=40), st.integers(1, 4))
def test_whatever_happens_no_place_is_lost(visits, places):
    async def scene(stage: Stage) -> None:
        async def visit(caller: str, turns: int) -> None:
            async with stage.turns.turn(None if caller == "-" else caller):
                for _ in range(turns):
                    await asyncio.sleep(0)
                assert stage.turns.running <= places

        tasks = [asyncio.create_task(visit(*one)) for one in visits]
        for task in tasks[::3]:
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (stage.turns.running, stage.turns.waiting, stage.turns._free) == (0, 0, places)

    on_stage(scene, places=places, waiting=100)


# ---- queues ----------------------------------------------------------------------------------------------------------


def test_callers_are_served_in_turn_each_in_the_order_of_its_own():
    queue: FairQueue[str] = FairQueue(20)
    for name in ("a1", "a2", "a3", "b1", "c1", "b2"):
        queue.append(name[0], name)
    taken = [queue.pop(), queue.pop()]
    queue.put_back("b", taken[1])
    assert [*taken[:1], *(queue.pop() for _ in range(len(queue)))] == ["a1", "b1", "c1", "a2", "b2", "a3"]
    assert len(queue) == 0 and list(queue) == []
    with pytest.raises(IndexError):
        queue.pop()


def test_one_caller_leaves_room_in_the_queue_for_the_others():
    queue: FairQueue[int] = FairQueue(4)
    queue.append("a", 1)
    assert not queue.full("a")
    queue.append("a", 2)
    assert queue.full("a") and not queue.full("b") and not queue.full(None)
    queue.append(None, 3)
    queue.append(None, 4)
    assert queue.full("b") and queue.full(None)


@examples(100)
@given(st.lists(st.one_of(st.sampled_from("abc"), st.none()), max_size=40))
def test_nothing_is_lost_in_a_queue_and_nobody_is_passed_over_twice(asked):
    """A letter joins, None takes one out."""
    queue: FairQueue[tuple[str, int]] = FairQueue(1000)
    waiting: dict[str, list[int]] = {}
    passed: dict[str, set[str]] = {}
    for number, caller in enumerate(asked):
        if caller is not None:
            queue.append(caller, (caller, number))
            waiting.setdefault(caller, []).append(number)
        elif waiting:
            served, first = queue.pop()
            assert waiting[served].pop(0) == first
            for other in waiting.keys() - {served}:
                assert served not in passed.setdefault(other, set()), "twice before somebody who waits"
                passed[other].add(served)
            passed.pop(served, None)
            if not waiting[served]:
                del waiting[served]
        assert len(queue) == sum(map(len, waiting.values())) == len(list(queue))
