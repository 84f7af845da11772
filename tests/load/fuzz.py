"""Hypothesis against the picture and the message path: `python -m tests.load.fuzz --pictures N --messages M`.

Pictures: real files with bytes flipped, cut, doubled and spliced must become RGB or a PictureError,
within seconds. Messages: requests made from the served OpenAPI schema, from JSON at large and from odd
texts, sent to the real application with the demo model on the CPU engine, must never give a 5xx.
"""

import argparse
import asyncio
import faulthandler
import json
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import httpx
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis_jsonschema import from_schema
from PIL import Image

from lingbi.faults import PictureError
from lingbi.openapi import REF, describe
from lingbi.pictures import PixelBudget, decode, decode_data_url
from lingbi.scenes import draw
from lingbi.smoke_checks import turn
from tests.conftest import DEMO
from tests.server import bad_pictures
from tests.server.bad_pictures import SCENE, file_of, url_of

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
    files += [file_of(bad_pictures.sixteen_bit().resize((48, 32)))]
    files += [file_of(small.convert("CMYK"), "JPEG"), file_of(small.quantize(4), transparency=0)]
    files += [bad_pictures.animated(kind) for kind in ("PNG", "GIF", "WEBP")]
    return [*files, file_of(small, "PNG", dpi=(72, 72), exif=exif), bad_pictures.png(8, 8)]


SEEDS = seeds()
MUTATION = st.tuples(
    st.sampled_from(("set", "cut", "double", "drop", "splice", "zero")),
    st.integers(0, 1 << 16),
    st.integers(0, 64),
    st.binary(max_size=8),
    st.integers(0, len(SEEDS) - 1),
)


def mutate(data: bytes, mutation: tuple) -> bytes:
    """A file with one thing done to it."""
    kind, place, size, extra, other = mutation
    place %= len(data) + 1
    if kind == "set":
        return data[:place] + extra + data[place + len(extra) :]
    if kind == "cut":
        return data[:place]
    if kind == "double":
        return data[: place + size] + data[place:]
    if kind == "drop":
        return data[:place] + data[place + size :]
    if kind == "zero":
        return data[:place] + bytes(min(size, len(data) - place)) + data[place + size :]
    return data[:place] + SEEDS[other][place:]


@st.composite
def files(draw_from):
    """A file that was once a picture."""
    data = SEEDS[draw_from(st.integers(0, len(SEEDS) - 1))]
    for mutation in draw_from(st.lists(MUTATION, min_size=1, max_size=4)):
        data = mutate(data, mutation)
    return data


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


def fuzz_pictures(count: int) -> Counter:
    """{outcome: how many}; raises on the first input that does what it must not."""
    outcomes = Counter()

    @bounded(count)
    @given(files())
    def one(data):
        faulthandler.dump_traceback_later(HANG_S, exit=True)
        try:
            picture = decode(decode_data_url(url_of(data), 1 << 20), PixelBudget(PIXELS))
            assert picture.mode == "RGB" and picture.width * picture.height <= PIXELS
            outcomes["decoded"] += 1
        except PictureError as error:
            assert len(str(error)) < 300
            outcomes[error.reason] += 1

    one()
    return outcomes


def odd_text():
    """Text with what parsers and templates trip over."""
    special = (
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
    return st.lists(st.text(max_size=12) | st.sampled_from(special), max_size=6).map("".join)


def odd_urls():
    """Picture URLs: refused ones, odd ones, and now and then a picture."""
    known = [url for url, _ in bad_pictures.refused().values() if len(url) < 5000 and "no-such" not in url]
    broken = files().map(url_of)
    text = odd_text().map(lambda text: "data:" + text) | odd_text()
    small = url_of(file_of(draw(SCENE).resize((32, 32))))
    return st.sampled_from(known) | broken | text | st.just(small)


def bodies():
    """Request bodies as bytes, with their path."""
    schemas = {"components": {"schemas": describe(MODEL)["components"]["schemas"]}}
    of_schema = st.one_of(*(from_schema({"$ref": REF.format(model=name)} | schemas) for name in ("ChatRequest",)))
    asked = st.builds(turn, odd_text(), odd_urls()) | st.builds(
        lambda text: {"role": "user", "content": text}, odd_text()
    )
    leaves = st.none() | st.booleans() | st.integers() | st.floats() | odd_text()
    anything = st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(odd_text(), inner, max_size=3)
    )
    fields = {
        "model": st.just(MODEL) | anything,
        "messages": st.lists(asked | anything, max_size=4) | anything,
        "max_tokens": st.just(2) | anything,
        "temperature": st.floats(0, 2) | anything,
        "stop": odd_text() | st.lists(odd_text(), max_size=3) | anything,
        "seed": st.integers() | anything,
        "stream": st.booleans() | anything,
    }
    required = {"model": st.just(MODEL), "messages": st.lists(asked, min_size=1, max_size=3), "max_tokens": st.just(2)}
    plausible = st.fixed_dictionaries(
        required, optional={name: fields[name] for name in ("temperature", "stop", "seed", "stream")}
    )
    wild = st.fixed_dictionaries({}, optional=fields | {"prompt": anything, "logprobs": anything, "n": anything})
    made = (plausible | plausible | wild | of_schema | anything).map(short).map(dump)
    return st.tuples(st.sampled_from((CHAT, CHAT, CHAT, COMPLETIONS)), made | st.binary(max_size=60))


def short(body):
    """Answers of a few tokens."""
    if isinstance(body, dict) and body.get("max_tokens") is None:
        return body | {"max_tokens": 2}
    if isinstance(body, dict) and type(body["max_tokens"]) is int:
        return body | {"max_tokens": min(body["max_tokens"], 4)}
    return body


def dump(body) -> bytes:
    return json.dumps(body).encode()


def fuzz_messages(count: int) -> Counter:
    """{status: how many}; raises on the first 5xx."""
    outcomes = Counter()
    loop = asyncio.new_event_loop()
    with tempfile.TemporaryDirectory() as folder:
        app, key = loop.run_until_complete(_application(Path(folder)))
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        client = httpx.AsyncClient(
            transport=transport, base_url="http://fuzz", headers={"Authorization": f"Bearer {key}"}
        )

        @bounded(count)
        @given(bodies())
        def one(request):
            faulthandler.dump_traceback_later(HANG_S, exit=True)
            path, content = request
            response = loop.run_until_complete(client.post(path, content=content))
            assert response.status_code < 500, (response.status_code, response.text[:300])
            if response.status_code == 200 and response.headers["content-type"].startswith("text/event-stream"):
                assert response.text.endswith("data: [DONE]\n\n"), response.text[-300:]
            elif response.status_code != 200:
                assert response.json()["error"]["message"]
            outcomes[str(response.status_code)] += 1

        one()
    return outcomes


async def _application(state_dir: Path):
    """The real application with the demo model on the CPU engine, and a key."""
    from lingbi.api import create_app
    from lingbi.keys import KeyRing, ensure_keys
    from lingbi.metrics import Metrics
    from lingbi.model_folder import inspect
    from lingbi.readiness import READY, Readiness
    from lingbi.service import Service
    from lingbi.settings import load_settings
    from lingbi.vitals import Vitals
    from lingbi.worker import build_engine

    options = load_settings(state_dir=state_dir, engine="cpu", picture_urls=False)
    engine = build_engine(inspect(DEMO), options)
    ensure_keys(options.hashed_key_file(), options.key_file())
    service = Service(options, Readiness(MODEL, "cpu", "fuzz"), KeyRing(options.hashed_key_file()), Metrics(), Vitals())
    app = create_app(service)
    service.take_engine(engine, 4)
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
        ("pictures", fuzz_pictures, options.pictures),
        ("messages", fuzz_messages, options.messages),
    ):
        start = time.monotonic()
        outcomes = fuzz(count) if count else Counter()
        seconds = round(time.monotonic() - start, 1)
        report = {"path": name, "inputs": sum(outcomes.values()), "seconds": seconds, "outcomes": dict(outcomes)}
        print(json.dumps(report), flush=True)
    faulthandler.cancel_dump_traceback_later()
    return 0


if __name__ == "__main__":
    sys.exit(main())
