"""Hypothesis against the picture and the message path: `python -m tests.load.fuzz --pictures N --messages M`.

Pictures: real files with bytes flipped, cut, doubled and spliced must become RGB or an ImageError,
within seconds. Messages: requests with odd texts, URLs and values in every field, and spoilt JSON, sent to the real application with the demo model on the CPU engine, must never give a 5xx.
"""

import argparse
import asyncio
import contextlib
import faulthandler
import json
import random
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import httpx
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from lingbi.api_errors import ImageError
from lingbi.images.data_urls import decode_data_url
from lingbi.images.loader import decode
from lingbi.images.scenes import draw
from lingbi_pictures.picture import Budget
from tests.conftest import DEMO
from tests.server.images import bad_images
from tests.server.images.bad_images import SCENE, file_of, url_of

MODEL = "internlm-xcomposer2-demo"
PIXELS = 4_000_000
SLOWEST_S = 5.0
HANG_S = 120
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


def seeds() -> list:
    """Small files of every format and of many kinds."""
    small = draw(SCENE).resize((48, 32))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    files = [file_of(small, kind) for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "MPO")]
    files += [file_of(small, "JPEG", progressive=True, exif=exif), file_of(small, "WEBP", lossless=True)]
    files += [file_of(small.convert(mode)) for mode in ("1", "L", "LA", "P", "RGBA")]
    files += [file_of(bad_images.sixteen_bit().resize((48, 32)))]
    files += [file_of(small.convert("CMYK"), "JPEG"), file_of(small.quantize(4), transparency=0)]
    files += [bad_images.animated(kind) for kind in ("PNG", "GIF", "WEBP")]
    return [*files, file_of(small, "PNG", dpi=(72, 72), exif=exif), bad_images.png(8, 8)]


SEEDS = seeds()
KINDS = ("set", "cut", "double", "drop", "splice", "zero")
MOST_MUTATIONS = 4


def mutate(data: bytes, rng: random.Random) -> bytes:
    """A file with one thing done to it."""
    kind, place, size = rng.choice(KINDS), rng.randint(0, len(data)), rng.randint(0, 64)
    if kind == "set":
        extra = rng.randbytes(rng.randint(1, 8))
        return data[:place] + extra + data[place + len(extra) :]
    if kind == "cut":
        return data[:place]
    if kind == "double":
        return data[: place + size] + data[place:]
    if kind == "drop":
        return data[:place] + data[place + size :]
    if kind == "zero":
        return data[:place] + bytes(min(size, len(data) - place)) + data[place + size :]
    return data[:place] + rng.choice(SEEDS)[place:]


def spoilt(seed: int) -> bytes:
    """A file that was once a picture; the same for the same seed."""
    rng = random.Random(seed)
    data = rng.choice(SEEDS)
    for _ in range(rng.randint(1, MOST_MUTATIONS)):
        data = mutate(data, rng)
    return data


def files():
    """Spoilt pictures; a number makes one, so that many can be tried in a second."""
    return st.integers(0, (1 << 64) - 1).map(spoilt)


def bounded(count: int):
    """Hypothesis' settings of a long run."""
    return settings(
        max_examples=count,
        deadline=SLOWEST_S * 1000,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )


@contextlib.contextmanager
def hang_ends_the_run():
    """Where the threads are, then the end of this process, when the block takes longer than HANG_S."""
    faulthandler.dump_traceback_later(HANG_S, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def fuzz_images(count: int) -> Counter:
    """{outcome: how many}; raises on the first input that does what it must not."""
    outcomes = Counter()

    @bounded(count)
    @given(files())
    def one(data):
        try:
            with hang_ends_the_run():
                image = decode(decode_data_url(url_of(data), 1 << 20), Budget(PIXELS))
            assert image.mode == "RGB" and image.width * image.height <= PIXELS
            outcomes["decoded"] += 1
        except ImageError as error:
            assert len(str(error)) < 300
            outcomes[error.reason] += 1

    one()
    return outcomes


SPECIAL = (
    "<IMAGE_TOKEN>",
    "[UNUSED_TOKEN_145]",
    "</s>",
    "\0",
    "\ufdd0",
    "\ufdd1",
    "\ufffd",
    "{}",
    "%s",
    "🙂",
    "\u202e",
)
SMALL = url_of(file_of(draw(SCENE).resize((32, 32))))
KNOWN_URLS = [url for url, _ in bad_images.refused().values() if len(url) < 5000 and "no-such" not in url]
ROLES = ("user", "user", "user", "system", "assistant", "tool", "", None)
FIELDS = ("model", "messages", "prompt", "max_tokens", "temperature", "top_p", "top_k", "stop", "seed", "stream", "n")
FIELDS += ("stream_options", "logprobs", "top_logprobs", "repetition_penalty", "ignore_eos", "user", "tools", "unknown")


LARGE = (
    b'{"a":' * 3000,
    b"[" * 100_000,
    b"[" + b"1," * 30_000,
    b" " * 3_000_000,
    b'{"a":"' + b"\\u4e2d" * 400_000 + b'",',
)
LARGE += (b'{"a":1e400000,', b'{"a":' + b"9" * 100_000 + b",", b'{"a":"' + b'\\"' * 50_000 + b'",', b'{"\xff":')


class Odd:
    """Odd requests of one seed: the same ones each time."""

    def __init__(self, seed: int):
        self.rng = random.Random(seed)

    def text(self) -> str:
        """Text with what parsers and templates trip over."""
        letters = (chr(self.rng.choice((self.rng.randrange(32, 127), self.rng.randrange(0x10000)))) for _ in range(4))
        return "".join(
            self.rng.choice((self.rng.choice(SPECIAL), "word", *letters)) for _ in range(self.rng.randrange(6))
        )

    def url(self) -> str:
        """A picture's URL: a refused one, an odd one, a spoilt picture, or a good one."""
        spoilt_url = url_of(spoilt(self.rng.getrandbits(64)))
        return self.rng.choice(
            (SMALL, SMALL, spoilt_url, self.rng.choice(KNOWN_URLS), "data:" + self.text(), self.text())
        )

    def value(self, depth: int = 0):
        """Any JSON value."""
        rng = self.rng
        leaves = (
            None,
            True,
            False,
            0,
            1,
            -1,
            rng.getrandbits(70),
            rng.uniform(-3, 3),
            float("nan"),
            1e308,
            10 ** rng.randrange(4000),
            "[" * rng.randrange(100_000),
            self.text(),
            MODEL,
        )
        if depth > 3 or rng.random() < 0.6:
            return rng.choice(leaves)
        inner = [self.value(depth + 1) for _ in range(rng.randrange(4))]
        return rng.choice((inner, {self.text(): item for item in inner}))

    def message(self):
        """A message: mostly one that could be meant."""
        parts = [
            {"type": "text", "text": self.text()},
            {"type": "image_url", "image_url": {"url": self.url()}},
            self.value(),
        ]
        content = self.rng.choice(
            (self.text(), self.rng.choices(parts, (4, 4, 1), k=self.rng.randrange(1, 4)), parts[:2])
        )
        message = {"role": self.rng.choice(ROLES), "content": content}
        return self.value() if self.rng.random() < 0.05 else message

    def body(self):
        """A request's body: plausible, with a few fields replaced by anything."""
        rng = self.rng
        messages = [self.message() for _ in range(rng.randrange(1, 4))]
        body = {"model": MODEL, "messages": messages, "prompt": self.text(), "max_tokens": 2}
        body |= {"temperature": rng.uniform(0, 2), "stream": rng.random() < 0.3, "stop": [self.text(), "."]}
        for _ in range(rng.choice((0, 0, 1, 3))):
            body[rng.choice(FIELDS)] = self.value()
        return self.value() if rng.random() < 0.02 else short(body)

    def request(self) -> tuple:
        """(path, body as bytes)."""
        data = json.dumps(self.body()).encode()
        if self.rng.random() < 0.1:
            data = mutate(data, self.rng)
        if self.rng.random() < 0.02:
            data = self.rng.choice(LARGE) + data.removeprefix(b"{")  # with what a client may put before the rest
        return self.rng.choice((CHAT, CHAT, CHAT, COMPLETIONS)), data


def requests():
    """Odd requests; a number makes one."""
    return st.integers(0, (1 << 64) - 1).map(lambda seed: Odd(seed).request())


def short(body: dict) -> dict:
    """Answers of a few tokens."""
    tokens = body.get("max_tokens")
    return body | {"max_tokens": 2 if tokens is None else min(tokens, 4) if isinstance(tokens, int) else tokens}


def fuzz_messages(count: int) -> Counter:
    """{status: how many}; raises on the first 5xx."""
    outcomes = Counter()
    loop = asyncio.new_event_loop()
    with tempfile.TemporaryDirectory() as folder:
        app, key = loop.run_until_complete(application(Path(folder)))
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        client = httpx.AsyncClient(
            transport=transport, base_url="http://fuzz", headers={"Authorization": f"Bearer {key}"}
        )

        @bounded(count)
        @given(requests())
        def one(request):
            path, content = request
            with hang_ends_the_run():
                response = loop.run_until_complete(client.post(path, content=content))
            assert response.status_code < 500, (response.status_code, response.text[:300])
            if response.status_code == 200 and response.headers["content-type"].startswith("text/event-stream"):
                assert response.text.endswith("data: [DONE]\n\n"), response.text[-300:]
            elif response.status_code != 200:
                assert response.json()["error"]["message"]
            outcomes[str(response.status_code)] += 1

        one()
    return outcomes


async def application(state_dir: Path, running: int = 4, **others):
    """The real application with the demo model on the CPU engine and these settings, and a key; running: answers at once."""
    from lingbi.accounts.key_file import ensure_keys
    from lingbi.accounts.ring import KeyRing
    from lingbi.engine.build import build_engine
    from lingbi.engine.local import EngineNeeds
    from lingbi.heartbeat import Vitals
    from lingbi.http.app import create_app
    from lingbi.http.metrics import Metrics
    from lingbi.http.readiness import READY, Readiness
    from lingbi.http.service import Service
    from lingbi.model.folder import inspect
    from lingbi.model.host_memory import available_mib, fit_on_cpu
    from lingbi.settings import load_settings

    options = load_settings(state_dir=state_dir, engine="cpu", picture_urls=False, **others)
    folder = inspect(DEMO)
    engine = build_engine(EngineNeeds(folder, options, fit_on_cpu(folder, available_mib(), options)))
    ensure_keys(options.hashed_key_file(), options.key_file())
    service = Service(options, Readiness(MODEL, "cpu", "fuzz"), KeyRing(options.hashed_key_file()), Metrics(), Vitals())
    app = create_app(service)
    service.take_engine(engine, running)
    service.readiness.enter(READY)
    return app, options.key_file().read_text().strip()


def main(arguments=None) -> int:
    """Exit status 0 when nothing was found; an input that does what it must not ends the run with a traceback."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=90_000)
    parser.add_argument("--messages", type=int, default=15_000)
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")  # Pillow warns of what it forgives
    for name, fuzz, count in (
        ("pictures", fuzz_images, options.pictures),
        ("messages", fuzz_messages, options.messages),
    ):
        start = time.monotonic()
        outcomes = fuzz(count) if count else Counter()
        seconds = round(time.monotonic() - start, 1)
        report = {"path": name, "inputs": sum(outcomes.values()), "seconds": seconds, "outcomes": dict(outcomes)}
        print(json.dumps(report), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
