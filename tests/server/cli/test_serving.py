"""scripts/pipeline through a server that is slow, full or away: it waits while rows come, and not much longer."""

import argparse
import asyncio
import time

import httpx
import pytest

from lingbi.cli import serving
from lingbi.cli.pipeline import parse
from lingbi.cli.serving import Served
from lingbi.errors import LingbiError
from lingbi.images.loader import ImageRules
from lingbi.images.scenes import Scene, Thing, draw

PATIENCE_S = 1.0
ANSWER = {
    "choices": [{"message": {"content": "red"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1},
}


@pytest.fixture(autouse=True)
def little_patience(monkeypatch):
    for name, seconds in (("PATIENCE_S", PATIENCE_S), ("AGAIN_S", 0.05)):
        monkeypatch.setattr(serving, name, seconds)


class OneAtATime:
    """A server that answers one request at a time, and refuses the others. most: then it is away."""

    url, model = "http://full", "demo"

    def __init__(self, answer_s: float, most: int = 1 << 30) -> None:
        self.answer_s, self.most, self.count, self.is_busy = answer_s, most, 0, False

    def async_client(self, **options) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, transport=httpx.MockTransport(self.answer))

    async def answer(self, request: httpx.Request) -> httpx.Response:
        if self.count >= self.most:
            raise httpx.ConnectError("no route to host")
        if self.is_busy:
            return httpx.Response(429, json={"error": {"message": "this key has as many requests as it may"}})
        self.is_busy = True
        await asyncio.sleep(self.answer_s)
        self.is_busy, self.count = False, self.count + 1
        return httpx.Response(200, json=ANSWER)


def rows_of(tmp_path, server: OneAtATime, count: int):
    picture = tmp_path / "a.png"
    draw(Scene((Thing("red", "circle"),))).save(picture)
    options = argparse.Namespace(batch=None, prompt="?", max_tokens=8, form=None)
    return Served(server, options, ImageRules()).rows(iter([str(picture)] * count))


def test_a_picture_that_others_leave_behind_waits_while_rows_come(tmp_path):
    began = time.monotonic()
    rows = list(rows_of(tmp_path, OneAtATime(0.1), 30))
    assert time.monotonic() - began > 2 * PATIENCE_S, "it was no test of patience"
    assert [row.get("text") for row in rows] == ["red"] * 30


def test_a_server_that_goes_away_is_given_up_some_time_after_its_last_row(tmp_path):
    rows, last = [], 0.0
    with pytest.raises(LingbiError, match="has not answered for 1 s .ConnectError.; run the same command again"):
        for row in rows_of(tmp_path, OneAtATime(0.1, most=15), 30):
            rows.append(row)
            last = time.monotonic()
    assert len(rows) == 15 and PATIENCE_S * 0.9 < time.monotonic() - last < 3 * PATIENCE_S


def test_a_server_that_is_away_from_the_beginning_is_given_up(tmp_path):
    with pytest.raises(LingbiError, match="has not answered for 1 s"):
        list(rows_of(tmp_path, OneAtATime(0.1, most=0), 3))


@pytest.mark.parametrize("given", ["0", "-1", "x"])
def test_less_than_one_picture_at_once_is_refused(given, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(["a.png", "--batch", given])
    assert ended.value.code == 2 and "--batch" in capsys.readouterr().err
    assert parse(["a.png", "--batch", "3"]).batch == 3 and parse(["a.png"]).batch is None
