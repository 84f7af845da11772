"""Uploads of one key beside each other: together they take no more room than the key has, and each no more than is said of it."""

import asyncio

import pytest

from lingbi.batch import files
from lingbi.settings import Settings
from tests.server.http.batch.test_cut_uploads import END, HEAD, piece, upload

COUNT = 8


@pytest.fixture
def settings(tmp_path):
    return Settings(state_dir=tmp_path, max_file_mib=1, files_mib=2)


@pytest.mark.parametrize("is_declared", [True, False], ids=["declared", "in pieces"])
def test_uploads_beside_each_other_take_no_more_than_one_key_may(service, store, is_declared):
    content = b"x" * 900_000
    statuses = beside_each_other(service, store, content, len(HEAD + content + END) if is_declared else None)
    assert statuses == [200] * 2 + [413] * (COUNT - 2)
    assert len(list(store.storage.path.iterdir())) == 2
    with store.database.read() as connection:
        assert files.held_bytes(connection, "one") == 2 * len(content)


@pytest.mark.parametrize("header", [b"content-length", b"x-lingbi-most-bytes"])
def test_small_uploads_beside_each_other_take_no_more_room_than_is_said_of_them(service, store, header):
    content = b"x" * 200_000
    statuses = beside_each_other(service, store, content, len(HEAD + content + END), header)
    assert statuses == [200] * COUNT


def beside_each_other(
    service, store, content: bytes, declared: int | None, header: bytes = b"content-length"
) -> list[int]:
    """The statuses of COUNT uploads. Of each half has come when the next one begins; 2 MiB are allowed."""
    service.store, half = store, len(content) // 2
    body = [HEAD + content[:half], content[half:] + END]

    async def all_at_once() -> list[int]:
        goes_on = asyncio.Event()

        async def one() -> int:
            pieces = [piece(body[0]), piece(body[1], is_last=True)]

            async def receive():
                if len(pieces) == 1:
                    await goes_on.wait()
                return pieces.pop(0)

            return (await upload(service, receive, declared, header))[0]

        uploads = [asyncio.create_task(one()) for _ in range(COUNT)]
        await asyncio.wait(uploads, timeout=2)
        assert sum(path.stat().st_size for path in store.storage.path.iterdir()) <= 2 << 20
        goes_on.set()
        return await asyncio.gather(*uploads)

    return sorted(asyncio.run(all_at_once()))
