"""What went wrong with other servers of vision models, by public reports: each is asked of a running server.

An entry is the report's address with a request; it expects a right answer, or a refusal with its status and words.
"""

import struct
import zlib

import pytest
from PIL import Image, ImageOps

from lingbi.images.scenes import Scene, Thing, draw, find_fault
from lingbi.smoke.checks import data_url
from tests.client import CHAT, QUESTION, body, http
from tests.server.images.bad_images import chunk, file_of, url_of

SCENE = Scene((Thing("green", "triangle"),))
PNG = file_of(draw(SCENE))


def image(url: str, **more) -> dict:
    return {"type": "image_url", "image_url": {"url": url} | more}


def about(*parts: dict) -> list:
    return [{"role": "user", "content": [{"type": "text", "text": QUESTION}, *parts]}]


def rotated() -> bytes:
    """A phone's JPEG: its pixels lie on their side, and its EXIF tag says so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return file_of(draw(SCENE).transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif, quality=95)


def on_glass() -> bytes:
    """The scene on a transparent background whose hidden colour is noise."""
    scene = draw(SCENE).convert("RGBA")
    white = scene.convert("L").point(lambda value: 255 * (value > 250))
    noise = Image.effect_noise(scene.size, 90).convert("RGBA")
    scene.paste(noise, mask=white)
    scene.putalpha(ImageOps.invert(white))
    return file_of(scene)


def of_16_bits() -> bytes:
    """A photograph of a microscope: grey, 16 bits a pixel; here all is one light grey."""
    rows = b"".join(b"\0" + struct.pack(">H", 0xC000) * 64 for _ in range(64))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 16, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def cmyk() -> bytes:
    return file_of(draw(SCENE).convert("CMYK"), "JPEG", quality=95)


def palette() -> bytes:
    return file_of(draw(SCENE).quantize(16), "PNG", transparency=0)


def with_profile() -> bytes:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return file_of(draw(SCENE), "JPEG", icc_profile=profile, quality=95)


RIGHT = {
    "https://github.com/matatonic/openedai-vision/issues/4: no padding": about(image(url_of(PNG).rstrip("="))),
    "https://github.com/lmstudio-ai/lms/issues/243: WebP, and a detail": about(
        image(url_of(file_of(draw(SCENE), "WEBP", lossless=True), "webp"), detail="low")
    ),
    "https://github.com/vllm-project/vllm/pull/18569: transparent": about(image(url_of(on_glass()))),
    "https://github.com/MMMU-Benchmark/MMMU/issues/17: a palette with transparency": about(image(url_of(palette()))),
    "https://github.com/sgl-project/sglang/issues/33464: EXIF orientation": about(image(url_of(rotated(), "jpeg"))),
    "https://github.com/InternLM/lmdeploy/issues/2561: base64 of CMYK": about(image(url_of(cmyk(), "jpeg"))),
    "https://github.com/utensils/mold/issues/1431: an ICC profile": about(image(url_of(with_profile(), "jpeg"))),
    "https://github.com/abetlen/llama-cpp-python/issues/1168: the image before the text": [
        {"role": "user", "content": [image(url_of(PNG)), {"type": "text", "text": QUESTION}]}
    ],
    "https://github.com/vllm-project/vllm/issues/28123: a wrong type in the data URL": about(
        image(url_of(PNG, "jpeg"))
    ),
}


@pytest.mark.parametrize("messages", [pytest.param(value, id=name) for name, value in RIGHT.items()])
def test_it_is_answered_rightly(demo_server, messages):
    with http(demo_server) as client:
        response = client.post(CHAT, json=body(demo_server, messages))
    assert response.status_code == 200, response.text
    assert find_fault("things", SCENE, response.json()["choices"][0]["message"]["content"]) is None, response.text


ODD = {
    "https://github.com/vllm-project/vllm/pull/9141: one pixel high": about(
        image(url_of(file_of(Image.new("RGB", (60, 1), "red"))))
    ),
    "https://github.com/python-pillow/Pillow/issues/3011: 16 bits": about(image(url_of(of_16_bits()))),
}
REFUSED = {
    "https://github.com/vllm-project/vllm/pull/38253: a truncated JPEG": (
        about(image(url_of(file_of(draw(SCENE), "JPEG")[:-800], "jpeg"))),
        {},
        "cannot be decoded",
    ),
    "https://github.com/sgl-project/sglang/pull/28588: 144 megapixels": (
        about(image(url_of(file_of(Image.new("1", (12000, 12000)))))),
        {},
        "50000000",
    ),
    "https://github.com/raullenchai/Rapid-MLX/pull/753: image_url is no object": (
        about({"type": "image_url", "image_url": data_url(SCENE)}),
        {},
        "image_url",
    ),
    "https://github.com/vllm-project/vllm/pull/4529: a seed of 65 bits": (about(), {"seed": 2**64}, "seed"),
    "https://github.com/lobehub/lobehub/issues/9113: a PDF as a picture": (
        about(image(url_of(b"%PDF-1.7\n" + bytes(200), "png"))),
        {},
        "it is a PDF document",
    ),
    "https://github.com/lobehub/lobehub/issues/9113: an SVG as a picture": (
        about(image(url_of(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "svg+xml"))),
        {},
        "it is an SVG drawing",
    ),
    "https://github.com/InternLM/lmdeploy/issues/1701: an empty address": (about(image("")), {}, "picture"),
}
RAW = {
    "https://github.com/Aider-AI/aider/issues/3693: half a surrogate pair": (
        b'{"model": "MODEL", "max_tokens": 4, "messages": [{"role": "user", "content": "a\\ud83d b"}]}',
        (200, 400),
    ),
    "https://github.com/vllm-project/vllm/pull/57018: a seed of 63 bits": (
        b'{"model": "MODEL", "max_tokens": 4, "seed": 9223372036854775807, "messages": [{"role": "user", "content": "a"}]}',
        (200, 400),
    ),
    "NaN": (
        b'{"model": "MODEL", "max_tokens": 4, "temperature": NaN, "messages": [{"role": "user", "content": "a"}]}',
        (400,),
    ),
    "deep": (b'{"model": "MODEL", "messages": ' + b"[" * 100000 + b"]" * 100000 + b"}", (400,)),
}


@pytest.mark.parametrize("messages", [pytest.param(value, id=name) for name, value in ODD.items()])
def test_it_is_answered(demo_server, messages):
    with http(demo_server) as client:
        response = client.post(CHAT, json=body(demo_server, messages))
    assert response.status_code == 200 and response.json()["choices"][0]["message"]["content"], response.text


@pytest.mark.parametrize("case", [pytest.param(value, id=name) for name, value in REFUSED.items()])
def test_it_is_refused_with_the_reason(demo_server, case):
    messages, more, words = case
    with http(demo_server) as client:
        response = client.post(CHAT, json=body(demo_server, messages, **more))
    assert response.status_code == 400 and words in response.json()["error"]["message"], response.text


@pytest.mark.parametrize("case", [pytest.param(value, id=name) for name, value in RAW.items()])
def test_it_never_is_a_fault_of_the_server(demo_server, case):
    data, statuses = case
    data = data.replace(b"MODEL", demo_server["model"].encode())
    with http(demo_server) as client:
        response = client.post(CHAT, content=data)
    assert response.status_code in statuses, response.text
