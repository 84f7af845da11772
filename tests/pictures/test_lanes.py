"""Keys take turns, whoever is cancelled gives its place back, and slow work is apart."""

import asyncio
import os
import threading

import pytest

from lingbi_pictures.lanes import LEAST_PRIORITY, SLOW_NICE, Lane, Room


async def holding(turns: Room, key: str, served: list[str]) -> None:
    async with turns.place(key):
        served.append(key)
        await asyncio.sleep(0)


def test_keys_take_turns_and_a_keys_own_come_in_order():
    async def all_served() -> list[str]:
        turns, served = Room(1), []
        await asyncio.gather(*(holding(turns, key, served) for key in "aaaaabbc"))
        return served

    assert asyncio.run(all_served()) == list("aabcabaa")


def test_one_key_leaves_places_to_others():
    async def waits() -> tuple[bool, bool]:
        turns = Room(4, most_of_one=2)
        for _ in range(2):
            await turns.enter("a")
        third, other = asyncio.create_task(turns.enter("a")), asyncio.create_task(turns.enter("b"))
        await asyncio.sleep(0.01)
        state = third.done(), other.done()
        turns.leave("a")
        await asyncio.wait_for(third, 10)
        return state

    assert asyncio.run(waits()) == (False, True)


def test_who_is_cancelled_takes_no_place():
    async def free_at_the_end() -> None:
        turns = Room(1)
        await turns.enter("a")
        gone, next_one = asyncio.create_task(turns.enter("a")), asyncio.create_task(turns.enter("b"))
        await asyncio.sleep(0.01)
        gone.cancel()
        turns.leave("a")
        await asyncio.wait_for(next_one, 10)
        late = asyncio.create_task(turns.enter("a"))
        await asyncio.sleep(0.01)
        turns.leave("b")  # the place is given to `late`, which is cancelled before it runs
        late.cancel()
        with pytest.raises(asyncio.CancelledError):
            await late
        await asyncio.wait_for(turns.enter("c"), 10)

    asyncio.run(free_at_the_end())


def test_a_thread_is_free_only_when_its_work_has_ended():
    async def second_waits() -> list[str]:
        lane, may_end, said = Lane("test", 1), threading.Event(), list[str]()

        def slow() -> None:
            may_end.wait(30)
            said.append("first")

        first = asyncio.create_task(lane.run("a", slow))
        await asyncio.sleep(0.05)
        first.cancel()
        second = asyncio.create_task(lane.run("b", lambda: said.append("second")))
        await asyncio.sleep(0.05)
        may_end.set()
        await asyncio.wait_for(second, 30)
        return said

    assert asyncio.run(second_waits()) == ["first", "second"]


def test_slow_threads_are_nicer_than_the_loop():
    async def priorities() -> tuple[int, int]:
        own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        lane = Lane("test", 1, SLOW_NICE)
        return own, await lane.run("a", lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    own, slow = asyncio.run(priorities())
    assert slow == min(own + SLOW_NICE, LEAST_PRIORITY)


def test_work_that_fails_gives_its_thread_back():
    async def twice() -> int:
        lane = Lane("test", 1)
        with pytest.raises(ZeroDivisionError):
            await lane.run("a", lambda: 1 // 0)
        return await lane.run("a", lambda: 7)

    assert asyncio.run(twice()) == 7
