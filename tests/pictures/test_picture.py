"""The one check of pictures: what takes long out of proportion is refused, quickly, and what people have is taken."""

import io
import struct
import time
import zlib

import pytest
from PIL import Image

from lingbi_pictures.bounds import MAX_METADATA_BYTES, MAX_SEGMENTS
from lingbi_pictures.faults import PictureFault
from lingbi_pictures.picture import MAX_SECONDS, Budget, Picture, decoded, inspected, opened

MEGAPIXELS_50 = (8000, 6250)
LOOK_S = 0.5  # of processor time, for a look at any file
RATE = 3  # how many times the estimate decoding may take here: processors differ


def file_of(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def plain(size=(64, 48), mode: str = "RGB") -> Image.Image:
    return Image.new(mode, size)


def photo(size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    """Soft shapes of all colours, as much to decode as a photo of this size."""
    small = [Image.effect_noise((size[0] // 8, size[1] // 8), 90) for _ in range(3)]
    return Image.merge("RGB", small).resize(size, Image.Resampling.BILINEAR).convert(mode)


def with_scans(jpeg: bytes, count: int) -> bytes:
    """A progressive JPEG whose last scan comes so many more times."""
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:-2] + jpeg[last:-2] * count + jpeg[-2:]


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def behind_start(jpeg: bytes, *parts: bytes) -> bytes:
    return jpeg[:2] + b"".join(parts) + jpeg[2:]


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def behind_head(png: bytes, *chunks: bytes) -> bytes:
    return png[:33] + b"".join(chunks) + png[33:]


def overlapping_exif(entries: int) -> bytes:
    """EXIF data whose entries all point to the same bytes: all of them."""
    size = 65_000
    head = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", entries)
    table = b"".join(struct.pack("<HHII", 1000 + tag, 7, size - 100, 8) for tag in range(entries))
    return (head + table).ljust(size, b"\0")


def run_lengths(pixels: int) -> bytes:
    """A BMP of one row of runs of one pixel, which Pillow reads in Python."""
    side = int(pixels**0.5)
    data = b"\x01\x05" * side * side + b"\0\1"
    head = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(data), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 1078 + len(data), 0, 0, 1078) + head + bytes(1024) + data


def slow_files() -> dict:
    """{name: (file, reason)} of files that would keep a thread, or the interpreter's lock, for seconds to hours."""
    progressive = file_of(plain(MEGAPIXELS_50), "JPEG", progressive=True)
    jpeg, png, gif = file_of(plain(), "JPEG"), file_of(plain(), "PNG"), file_of(plain(), "GIF")
    no_jfif = jpeg[:2] + jpeg[4 + int.from_bytes(jpeg[4:6], "big") :]
    profile = chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(1 << 20), 9))
    table = gif.index(b",", 13)
    return {
        "scans of a large JPEG": (with_scans(progressive, 60), "work"),
        "2000 scans": (with_scans(progressive, 2000), "scans"),
        "small scans": (with_scans(file_of(plain(), "JPEG", progressive=True), 200), "scans"),
        "arithmetic coding": (jpeg.replace(b"\xff\xc0", b"\xff\xc9", 1), "coding"),
        "JPEG segments": (behind_start(jpeg, segment(0xFE, b"") * 20_000), "segments"),
        "JPEG fill bytes": (behind_start(jpeg, b"\xff" * 5_000_000), "segments"),
        "EXIF in hundreds of segments": (
            behind_start(jpeg, segment(0xE1, b"Exif\0\0" + bytes(65_000)) * 300),
            "metadata",
        ),
        "EXIF that overlaps": (behind_start(no_jfif, segment(0xE1, overlapping_exif(5000))), "metadata"),
        "pictures that overlap": (
            behind_start(jpeg, segment(0xE2, b"MPF\0" + overlapping_exif(5000)[6:])),
            "metadata",
        ),
        "Photoshop's resources": (
            behind_start(jpeg, segment(0xED, b"Photoshop 3.0\0" + b"8BIM\4\4\0\0\0\0\0\0" * 5000) * 300),
            "metadata",
        ),
        "PNG chunks": (behind_head(png, chunk(b"prVt", b"") * 200_000), "segments"),
        "PNG profiles": (behind_head(png, profile * 1000), "metadata"),
        "PNG of 16 bits with transparency": (_large_head(png, MEGAPIXELS_50, bits=16, colour=6), "work"),
        "GIF comments": (gif[:table] + b"!\xfe\0" * 1_000_000 + gif[table:], "segments"),
        "a GIF's long comment": (gif[:table] + b"!\xfe" + (b"\xff" * 256) * 9000 + b"\0" + gif[table:], "metadata"),
        "GIF rubbish": (gif[:table] + b"\1" * 5_000_000 + gif[table:], "segments"),
        "GIF blocks": (gif[: table + 11] + b"\1\0" * 2_000_000 + b"\0;", "segments"),
        "BMP in runs": (run_lengths(10_000_000), "work"),
        "WebP chunks": (_webp(b"JUNK\0\0\0\0" * 100_000), "segments|broken"),
    }


def _large_head(png: bytes, size: tuple[int, int], bits: int, colour: int) -> bytes:
    head = struct.pack(">IIBBBBB", *size, bits, colour, 0, 0, 0)
    return png[:8] + chunk(b"IHDR", head) + png[33:]


def _webp(chunks: bytes) -> bytes:
    whole = file_of(plain(), "WEBP")
    head = b"VP8X" + struct.pack("<I", 10) + bytes(4) + (63).to_bytes(3, "little") + (47).to_bytes(3, "little")
    body = b"WEBP" + head + chunks + whole[12:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


SLOW = tuple(slow_files())


@pytest.fixture(scope="module")
def slow() -> dict:
    return slow_files()


@pytest.mark.parametrize("name", SLOW)
def test_slow_files_are_refused_by_their_heads(slow, name):
    data, reasons = slow[name]
    start = time.thread_time()
    with pytest.raises(PictureFault) as caught:
        Budget(50_000_000).take(inspected(data))
    assert caught.value.reason in reasons.split("|") and time.thread_time() - start < LOOK_S


@pytest.mark.parametrize(
    ("size", "options"),
    [
        (MEGAPIXELS_50, {"quality": 90}),  # a phone's
        ((4000, 3000), {"quality": 90, "progressive": True}),
        ((6000, 4000), {"quality": 92, "progressive": True, "subsampling": 0}),
        (MEGAPIXELS_50, {"quality": 85, "progressive": True}),
    ],
    ids=["50 megapixels", "12 progressive", "24 progressive", "50 progressive"],
)
def test_photos_are_taken(size, options):
    data = file_of(photo(size), "JPEG", **options)
    assert decoded(data, Budget(50_000_000)).size == size


@pytest.mark.parametrize(
    "data",
    [
        lambda: with_scans(file_of(plain((4000, 3000)), "JPEG", progressive=True), 88),
        lambda: with_scans(file_of(plain((6000, 4000), "L"), "JPEG", progressive=True), 40),
        lambda: file_of(photo((5000, 3000), "CMYK"), "JPEG", progressive=True),
        lambda: file_of(photo((5000, 3000), "RGBA"), "PNG", compress_level=1),
        lambda: file_of(Image.effect_noise((3000, 3000), 90).convert("RGB"), "WEBP", quality=95, method=0),
        lambda: file_of(photo((3000, 3000)), "WEBP", lossless=True, method=0, quality=0),
        lambda: file_of(photo((5000, 4000), "P"), "GIF"),
        lambda: run_lengths(1_000_000),
    ],
    ids=["scans", "grey scans", "CMYK", "transparent PNG", "WebP", "lossless WebP", "GIF", "BMP in runs"],
)
def test_the_worst_that_is_taken_takes_no_longer_than_estimated(data):
    data = data()
    seconds = inspected(data).seconds
    start = time.thread_time()
    with opened(data) as (image, _):
        try:
            image.load()
        except ValueError:
            assert image.format == "BMP"  # Pillow gives up at its end, after all of the work
    assert seconds <= MAX_SECONDS and time.thread_time() - start < RATE * seconds + 0.05


def test_a_budget_is_shared():
    budget, picture = Budget(50_000_000), Picture("JPEG", 1000, 1000, MAX_SECONDS * 0.4)
    budget.take(picture)
    budget.take(picture)
    with pytest.raises(PictureFault) as caught:
        budget.take(picture)
    assert caught.value.reason == "work" and caught.value.facts["most"] == MAX_SECONDS


def test_metadata_as_programs_write_them_are_taken():
    whole, exif = photo((320, 240)), Image.Exif()
    exif[0x010E], exif[0x0112] = "words " * 8000, 6
    data = file_of(whole, "JPEG", exif=exif, comment=b"c" * 60_000, icc_profile=bytes(500_000))
    assert decoded(data, Budget(1 << 20)).size == (240, 320)
    png = file_of(whole, "PNG", exif=exif, icc_profile=bytes(500_000))
    assert decoded(png, Budget(1 << 20)).size == (240, 320)
    assert decoded(file_of(whole, "WEBP", exif=exif), Budget(1 << 20)).size == (240, 320)
    gif = file_of(whole.convert("P"), "GIF", comment=b"c" * (MAX_METADATA_BYTES // 2))
    assert decoded(gif, Budget(1 << 20)).size == (320, 240) and MAX_SEGMENTS > MAX_METADATA_BYTES // 255


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_as_pillow_turns_it(orientation):
    from PIL import ImageOps

    whole, exif = photo((64, 48)), Image.Exif()
    exif[0x0112] = orientation
    data = file_of(whole, "PNG", exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        expected = ImageOps.exif_transpose(image)
    assert decoded(data, Budget(1 << 20)).tobytes() == expected.tobytes()


def test_glass_lies_on_white_paper():
    for opacity, grey in ((0, 255), (255, 0), (128, 127)):
        image = Image.new("RGBA", (9, 9), (0, 0, 0, opacity))
        (red, green, blue) = decoded(file_of(image, "PNG"), Budget(1000)).getpixel((4, 4))
        assert red == green == blue and abs(red - grey) <= 1
