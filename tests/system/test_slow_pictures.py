"""Slow pictures of one key, on a real worker: another key's small pictures and texts do not wait for their decoding."""

import asyncio
import contextlib
import functools
import inspect
import json
import statistics
import subprocess
import sys
import time

import httpx
import pytest
from PIL import Image

from lingbi.launch.supervision import wait_until
from lingbi_pictures.picture import MAX_SECONDS, inspected
from tests.client import CHAT, QUESTION, SCENES, body, fault, http, is_let_in, metric, question
from tests.conftest import running_worker
from tests.keys import add_to_file
from tests.pictures.test_picture import MEGAPIXELS_50, file_of, with_scans
from tests.server.images.bad_images import url_of

SLOW = 24  # requests at once
MORE_S = 1.0  # how much longer the other key's requests may take


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    state_dir = tmp_path_factory.mktemp("slow pictures")
    with running_worker(state_dir) as server:
        attacker = server | {"key": add_to_file(state_dir / "keys", "slow", None)}
        assert wait_until(lambda: is_let_in(attacker), 20)
        yield server, attacker


@pytest.fixture(scope="module")
def slow_url() -> str:
    """The most scans of a large picture that are taken."""
    plain = file_of(Image.new("L", MEGAPIXELS_50), "JPEG", progressive=True)
    found = next(
        data for count in range(90, 0, -1) if inspected(data := with_scans(plain, count)).seconds < MAX_SECONDS
    )
    return url_of(found, "jpeg")


def seconds_of(server: dict, request: dict) -> float:
    with http(server) as client:
        start = time.monotonic()
        response = client.post(CHAT, json=request)
        assert response.status_code == 200, response.text[:300]
        return time.monotonic() - start


def honest_seconds(server: dict, rounds: range) -> dict[str, list[float]]:
    """What small pictures, texts and a look at the worker take, in turns; every picture is another one."""
    took: dict[str, list[float]] = {"picture": [], "text": [], "live": []}
    for number in rounds:
        scene = SCENES[number]
        with http(server) as client:
            start = time.monotonic()
            response = client.post(CHAT, json=question(server, scene))
            took["picture"].append(time.monotonic() - start)
            assert fault(scene, response) is None
        text = body(server, [{"role": "user", "content": f"{QUESTION} {number}"}], max_tokens=4)
        took["text"].append(seconds_of(server, text))
        start = time.monotonic()
        httpx.get(f"{server['url']}/live", trust_env=False, timeout=30)
        took["live"].append(time.monotonic() - start)
    return took


@contextlib.contextmanager
def asking(server: dict, request: dict, count: int):
    """So many requests under way at once, from another process, which are left at the end; yields that process."""
    script = "import asyncio, httpx, json, sys\n" + inspect.getsource(ask_all) + "asyncio.run(ask_all(*sys.argv[1:]))"
    command = [sys.executable, "-c", script, server["url"] + CHAT, server["key"], str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        process.stdin.write(json.dumps(request).encode())
        process.stdin.close()
        try:
            yield process
        finally:
            process.kill()


async def ask_all(url, key, count):
    content, headers = sys.stdin.buffer.read(), {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(timeout=600, trust_env=False) as client:
        asked = (client.post(url, content=content, headers=headers) for _ in range(int(count)))
        for answer in await asyncio.gather(*asked):
            answer.raise_for_status()


def test_another_keys_small_pictures_and_texts_do_not_wait(worker, slow_url):
    honest, attacker = worker
    attack = body(attacker, [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": slow_url}}]}])
    honest_seconds(honest, range(20, 22))  # the first answers take longer
    calm = honest_seconds(honest, range(4))
    with asking(attacker, attack | {"max_tokens": 1}, SLOW) as process:
        under_way = functools.partial(metric, honest, "lingbi_requests_inside")
        assert wait_until(lambda: process.poll() is not None or under_way() >= SLOW / 2, 30)  # the first may have ended
        pressed = honest_seconds(honest, range(4, 10))
        assert process.poll() is None, "the attack ended before it was measured"
    assert wait_until(lambda: under_way() == 0, 30)
    table = {name: tuple(round(statistics.median(took[name]), 3) for took in (calm, pressed)) for name in calm}
    print(f"medians in seconds, in calm and under attack: {table}; the most under attack: {pressed}")
    for name, (before, under_attack) in table.items():
        assert under_attack < before + MORE_S, (name, table)


def test_decoding_is_charged_to_its_key(worker, slow_url):
    honest, attacker = worker
    attack = body(attacker, [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": slow_url}}]}])
    before = key_seconds(honest)
    seconds_of(attacker, attack | {"max_tokens": 1})
    after = key_seconds(honest)
    assert after["slow"] - before.get("slow", 0) > 0.2 and after.get("default") == before.get("default")
    assert '"decode_s"' in honest["log"].read_text()


def key_seconds(server: dict) -> dict[str, float]:
    """The seconds of decoding, by key."""
    lines = httpx.get(f"{server['url']}/metrics", trust_env=False).text.splitlines()
    name = "lingbi_key_picture_decode_seconds_total{"
    return {line.split('key="')[1].split('"')[0]: float(line.split()[-1]) for line in lines if line.startswith(name)}
