"""Whose requests are let in and, where all places are taken, whose waiting one makes room."""

import asyncio
import random

import pytest

from lingbi.accounts.facts import KeyFacts
from lingbi.api_errors import Busy
from lingbi.engine.places import Places
from lingbi.http.admission.requests import MOST_BESIDE, Admission
from lingbi.turns import USUAL_WEIGHT

RUNNING, QUEUED = 4, 8
LIMIT = RUNNING + QUEUED
A, B, C = (KeyFacts(name) for name in "abc")
PAGE = KeyFacts("ui", concurrency=64)


class House:
    """Real admission and real places, with requests that run until they are told to end."""

    def __init__(self) -> None:
        self.admission = Admission(LIMIT)
        self.places = Places(range(RUNNING + 1), RUNNING)
        self.admission.refuse_newest = self.places.refuse_newest
        self.tasks: list[asyncio.Task] = []  # held here, since the loop holds them weakly

    async def ask(self, key: KeyFacts, count: int = 1, reaches_engine: bool = True) -> list[asyncio.Task]:
        """Requests of a key. Raises Busy."""
        tasks = []
        for _ in range(count):
            self.admission.enter(key)
            tasks.append(asyncio.create_task(self._live(key, reaches_engine)))
            self.tasks.append(tasks[-1])
        await self.settle()
        return tasks

    async def _live(self, key: KeyFacts, reaches_engine: bool) -> None:
        asker = self.admission.asker(key)
        try:
            instance = await self.places.wait(asker, True) if reaches_engine else None
            try:
                await asyncio.Event().wait()
            finally:
                if reaches_engine:
                    self.places.give_back(instance, asker)
        finally:
            self.admission.leave(key)

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def end(self, tasks) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.settle()


def in_a_house(story):
    async def told():
        house = House()
        await story(house)

    asyncio.run(told())


def refused(tasks) -> list[int]:
    """The numbers of those that were refused."""
    return [number for number, task in enumerate(tasks) if task.done() and isinstance(task.exception(), Busy)]


def test_alone_a_key_may_have_all_and_no_more():
    async def story(house):
        tasks = await house.ask(A, LIMIT)
        with pytest.raises(Busy, match=f"{LIMIT} requests run or wait.*LINGBI_QUEUE_LIMIT") as caught:
            await house.ask(A)
        assert caught.value.headers["Retry-After"] and caught.value.reason == "queue_full"
        assert not refused(tasks) and house.places.turns.running["a"] == RUNNING
        await house.end(tasks)
        assert not house.admission.inside and not house.admission.weights and len(house.places.free) == RUNNING + 1

    in_a_house(story)


def test_another_key_takes_the_places_of_the_newest_that_wait_up_to_its_share():
    async def story(house):
        first = await house.ask(A, LIMIT)
        second = []
        for number in range(LIMIT // 2):
            second += await house.ask(B)
            assert refused(first) == list(range(LIMIT - 1 - number, LIMIT)) and house.admission.inside == LIMIT
        assert "another key's request" in str(first[-1].exception()) and first[-1].exception().reason == "share"
        with pytest.raises(Busy, match=f"{LIMIT // 2} of them of this key while others ask"):
            await house.ask(B)
        assert house.places.turns.running == {"a": RUNNING, "b": 1}
        await house.end([task for task in [*first, *second] if not task.done()])

    in_a_house(story)


def test_requests_that_have_not_reached_the_engine_are_let_be_and_the_newcomer_comes_in():
    async def story(house):
        first = await house.ask(A, LIMIT, reaches_engine=False)
        await house.ask(B, LIMIT // 2)
        assert not refused(first) and house.admission.inside == LIMIT + LIMIT // 2
        with pytest.raises(Busy):
            await house.ask(B)
        keys = [KeyFacts(f"k{number}") for number in range(100)]
        with pytest.raises(Busy):
            for key in keys:
                await house.ask(key, reaches_engine=False)
        assert house.admission.inside <= MOST_BESIDE * LIMIT
        await house.end(house.tasks)

    in_a_house(story)


def test_the_page_stands_for_many_and_has_more():
    async def story(house):
        first = await house.ask(A, LIMIT)
        second = await house.ask(PAGE, LIMIT * 64 // (64 + 16))
        with pytest.raises(Busy):
            await house.ask(PAGE)
        assert len(refused(first)) == QUEUED and not refused(second)
        assert house.admission.inside == LIMIT + 1  # none of those that run is ended, so one is beyond
        await house.end([task for task in [*first, *second] if not task.done()])

    in_a_house(story)


def test_a_keys_own_limit_holds_whoever_asks():
    async def story(house):
        tasks = await house.ask(KeyFacts("few", concurrency=2), 2)
        with pytest.raises(Busy, match="at most 2 are allowed .*LINGBI_KEY_CONCURRENCY"):
            await house.ask(KeyFacts("few", concurrency=2))
        await house.end(tasks)

    in_a_house(story)


@pytest.mark.parametrize("limited", ["key", "group"])
def test_a_key_over_its_own_or_its_groups_limit_takes_nobodys_place(limited):
    own = {"concurrency": 1} if limited == "key" else {"group": "lab", "group_concurrency": 1}
    few = KeyFacts("few", weight=1, **own)

    async def story(house):
        tasks = await house.ask(few) + await house.ask(A, LIMIT - 1)
        for _ in range(3):
            with pytest.raises(Busy, match="at most 1 are allowed") as caught:
                await house.ask(few)
            await house.settle()
            assert caught.value.reason == f"{limited}_limit" and not refused(tasks)
        await house.end(tasks)

    in_a_house(story)


@pytest.mark.parametrize("seed", range(10))
def test_whatever_keys_do_no_key_below_its_share_is_refused(seed):
    async def story(house):
        rng, tasks = random.Random(seed), []
        keys = [A, B, C, PAGE]
        for _ in range(300):
            key = rng.choice([A, A, A, *keys])
            running = [task for task in tasks if not task.done()]
            if rng.random() < 0.3 and running:
                await house.end([rng.choice(running)])
                continue
            others = {name: weight for name, weight in house.admission.weights.items() if name != key.name}
            asker, has = house.admission.asker(key), house.admission.by_key[key.name]
            share = max(1, LIMIT * asker.weight // (asker.weight + sum(others.values())))
            try:
                tasks += await house.ask(key)
            except Busy:
                assert has >= min(share, key.concurrency or share)
            assert house.admission.inside <= LIMIT + len(keys) and len(house.places.free) >= 0
        await house.end([task for task in tasks if not task.done()])
        assert not house.admission.inside and len(house.places.free) == RUNNING + 1

    in_a_house(story)


def test_a_group_has_its_limit_and_a_key_with_none_at_all_is_let_in_nowhere():
    async def story(house):
        members = [KeyFacts(name, group="lab", group_concurrency=2) for name in "xyz"]
        tasks = await house.ask(members[0]) + await house.ask(members[1])
        with pytest.raises(Busy, match="of the group lab have 2 requests under way, and at most 2"):
            await house.ask(members[2])
        await house.end(tasks[:1])
        await house.ask(members[2])
        with pytest.raises(Busy, match="at most 0 are allowed"):
            await house.ask(KeyFacts("none", concurrency=0))

    in_a_house(story)


def test_a_weight_counts_ordinary_keys_and_without_one_the_limit_is_the_weight():
    asker = Admission(LIMIT).asker
    weights = [asker(KeyFacts("a", weight=2, concurrency=1)), asker(KeyFacts("b", concurrency=3)), asker(A)]
    assert [asker.weight for asker in weights] == [2 * USUAL_WEIGHT, 3, USUAL_WEIGHT]
