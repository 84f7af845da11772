"""Pictures of the background are fetched beside those of people who wait, and never in place of them."""

import asyncio

import pytest

from lingbi.images import loader
from lingbi.images.loader import ImageDoor, ImageRules
from lingbi.turns import Asker

OWNERS = [Asker("one").in_background.name, Asker("two").in_background.name]


@pytest.fixture
def fetched(monkeypatch):
    """The URLs that are being fetched; none ever comes."""
    urls = []

    async def hang(url, rules):
        urls.append(url)
        await asyncio.Event().wait()

    monkeypatch.setattr(loader, "fetch", hang)
    return urls


def ask(door: ImageDoor, key: str, url: str) -> asyncio.Task:
    async def load():
        async with door.decoded([url], key):
            pass

    return asyncio.create_task(load())


@pytest.mark.parametrize("owners", [1, 2])
@pytest.mark.parametrize("key", ["one", "somebody else"])
def test_whoever_waits_for_an_answer_does_not_wait_for_the_pictures_of_batches(fetched, owners, key):
    async def fetch_beside() -> tuple[int, bool]:
        door = ImageDoor(ImageRules())
        tasks = [ask(door, OWNERS[number % owners], "http://batch.example") for number in range(132)]
        await asyncio.sleep(0.1)
        background = len(fetched)
        tasks += [ask(door, key, "http://person.example") for _ in range(loader.FETCHING_OF_ONE)]
        await asyncio.sleep(0.1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return background, fetched.count("http://person.example") == loader.FETCHING_OF_ONE

    assert asyncio.run(fetch_beside()) == (loader.FETCHING_IN_BACKGROUND, True)
