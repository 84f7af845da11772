"""Hostile and odd pictures, made when asked for: {name: (data URL, refused for this reason or None)}."""

import base64
import io
import random
import struct
import zlib
from functools import lru_cache

from PIL import Image

from lingbi.images.scenes import Scene, Thing, draw

SCENE = Scene((Thing("red", "circle"),))


def url_of(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64," + base64.b64encode(data).decode()


def file_of(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, *chunks: bytes, data: bytes = b"") -> bytes:
    """A PNG by hand: 8-bit grey, with these chunks and compressed data."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def zeros(mebibytes: int) -> bytes:
    """The zlib stream of so many MiB of zeros: one of them compressed, over and over (RFC 1950, RFC 1951)."""
    packer = zlib.compressobj(9, wbits=-15)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    last = zlib.compressobj(wbits=-15).flush()
    adler = ((mebibytes << 20) % 65521 << 16) + 1
    return b"\x78\xda" + block * mebibytes + last + struct.pack(">I", adler)


def zip_bomb() -> bytes:
    """2 GiB of zeros behind a head that says 100 x 100."""
    return png(100, 100, data=zeros(2048))


def text_bomb() -> bytes:
    """A compressed comment of 512 MiB."""
    good = zlib.compress(bytes(101 * 100))
    return png(100, 100, chunk(b"zTXt", b"Comment\0\0" + zeros(512)), data=good)


def many_scans() -> bytes:
    """A progressive JPEG whose last pass is said over and over."""
    data = file_of(draw(SCENE), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * 2000 + data[-2:]


def animated(kind: str) -> bytes:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue", "green")]
    return file_of(frames[0], kind, save_all=True, append_images=frames[1:])


def sixteen_bit() -> Image.Image:
    """A 16-bit grey picture: black circle on white."""
    grey = draw(Scene((Thing("black", "circle"),))).convert("L")
    return grey.convert("I").point(lambda value: value * 257).convert("I;16")


def on_glass() -> Image.Image:
    """The red circle on nothing: what is transparent is black underneath."""
    whole = draw(SCENE)
    mask = Image.eval(whole.getchannel("G"), lambda value: 0 if value > 200 else 255)
    glass = Image.new("RGBA", whole.size, (0, 0, 0, 0))
    glass.paste(whole, mask=mask)
    return glass


@lru_cache(maxsize=1)
def refused() -> dict:
    """{name: (URL, reason)}."""
    good = file_of(draw(SCENE))
    jpeg = file_of(draw(SCENE), "JPEG")
    return {
        "truncated png": (url_of(good[: len(good) // 2]), "broken"),
        "truncated jpeg": (url_of(jpeg[: len(jpeg) // 2]), "broken"),
        "only a head": (url_of(good[:33]), "broken|format"),
        "text": (url_of(b"not a picture at all"), "format"),
        "empty": ("data:image/png;base64,", "format"),
        "html": (url_of(b"<html><script>alert(1)</script></html>"), "format"),
        "svg": (url_of(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "format"),
        "tiff": (url_of(file_of(draw(SCENE), "TIFF")), "format"),
        "eps": (url_of(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n"), "format"),
        "animated gif": (url_of(animated("GIF")), "frames"),
        "animated png": (url_of(animated("PNG")), "frames"),
        "animated webp": (url_of(animated("WEBP")), "frames"),
        "50 000 x 50 000": (url_of(png(50_000, 50_000, data=zlib.compress(bytes(50_001)))), "pixels|broken"),
        "2^31 x 2^31": (url_of(png(2**31 - 1, 2**31 - 1)), "pixels|broken"),
        "0 x 0": (url_of(png(0, 0)), "broken|pixels|format"),
        "10 000 x 1": (url_of(file_of(Image.new("L", (10_000, 1)))), "aspect"),
        "zip bomb in a comment": (url_of(text_bomb()), "broken"),
        "many scans": (url_of(many_scans()), "scans"),
        "broken base64": ("data:image/png;base64,@@@@", "base64"),
        "base64 of odd length": ("data:image/png;base64,abcde", "base64"),
        "no base64": ("data:image/png,abc", "base64"),
        "file": ("file:///etc/passwd", "url"),
        "path": ("/etc/passwd", "url"),
        "relative path": ("../../etc/passwd", "url"),
        "ftp": ("ftp://example.com/a.png", "url"),
        "gopher": ("gopher://127.0.0.1:6379/_FLUSHALL", "url"),
        "javascript": ("javascript:alert(1)", "url"),
        "nothing": ("", "url"),
        "loopback": ("http://127.0.0.1:22/", "address"),
        "localhost": ("http://localhost/", "address"),
        "metadata": ("http://169.254.169.254/latest/meta-data/", "address"),
        "ipv6 loopback": ("http://[::1]/", "address"),
        "mapped": ("http://[::ffff:127.0.0.1]/", "address"),
        "decimal": ("http://2130706433/", "address"),
        "octal": ("http://0177.0.0.1/", "address|url"),
        "hexadecimal": ("http://0x7f.0.0.1/", "address"),
        "short": ("http://127.1/", "address"),
        "with a user": ("http://example.com@127.0.0.1/", "url"),
        "no such name": ("http://no-such-name.invalid/a.png", "url"),
    }


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that mean nothing."""
    return random.Random(seed).randbytes(size)
