"""Files as phones, cameras and programs write them, each with a public report of a server that got it wrong."""

import io
import struct
import zlib

import pytest
from PIL import Image

from lingbi.api_errors import ImageError
from lingbi.images.loader import decode
from lingbi_pictures.picture import Budget
from tests.server.images.bad_images import animated, chunk, file_of

RED, BLUE, WHITE = (220, 20, 20), (20, 40, 220), (255, 255, 255)
SIZE = (24, 16)
ORIENTATION = 0x0112
GREY_16, RGB_16, GREY_ALPHA_16, RGBA_16 = 0, 2, 4, 6  # PNG's colour types


def plain(colour=RED) -> Image.Image:
    return Image.new("RGB", SIZE, colour)


def colour_of(data: bytes) -> tuple:
    """The colour in the middle of a decoded file."""
    image = decode(data, Budget(1 << 20))
    assert image.mode == "RGB"
    return image.getpixel((image.width // 2, image.height // 2))


def is_near(found: tuple, expected: tuple) -> bool:
    return max(abs(a - b) for a, b in zip(found, expected, strict=True)) <= 4


def png_16(colour_type: int, *samples: int, clear: tuple = ()) -> bytes:
    """A PNG of one colour with 16 bits a sample; clear: the colour that tRNS declares transparent."""
    width, height = SIZE
    head = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    row = b"\0" + struct.pack(f">{len(samples)}H", *samples) * width
    transparency = chunk(b"tRNS", struct.pack(f">{len(clear)}H", *clear)) if clear else b""
    data = chunk(b"IDAT", zlib.compress(row * height))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + transparency + data + chunk(b"IEND", b"")


def test_of_a_phones_jpeg_with_several_images_the_first_is_used():
    """https://github.com/scanny/python-pptx/issues/787: an iPhone's .jpeg that Pillow calls MPO."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    data = file_of(plain(), "MPO", save_all=True, append_images=[plain(BLUE)], exif=exif)
    assert Image.open(io.BytesIO(data)).format == "MPO"
    assert is_near(colour_of(data), RED) and decode(data, Budget(1 << 20)).size == SIZE[::-1]


@pytest.mark.parametrize("has_adobe_marker", [True, False])
def test_cmyk_jpegs_have_their_colours(has_adobe_marker):
    """https://github.com/lovell/sharp/issues/1649: inverted, depending on the Adobe marker."""
    data = file_of(plain().convert("CMYK"), "JPEG", quality=100)
    if not has_adobe_marker:
        start = data.index(b"\xff\xee")
        data = data[:start] + data[start + 2 + int.from_bytes(data[start + 2 : start + 4], "big") :]
    assert (b"Adobe" in data) == has_adobe_marker and is_near(colour_of(data), RED)


@pytest.mark.parametrize(
    ("data", "colour"),
    [
        (png_16(GREY_16, 0x8000), (127, 127, 127)),
        (png_16(RGB_16, 0xDCDC, 0x1414, 0x1414), RED),
        (png_16(RGBA_16, 0, 0, 0, 0), WHITE),
        (png_16(GREY_ALPHA_16, 0, 0x8000), (127, 127, 127)),
        (png_16(GREY_16, 0x8000, clear=(0x8000,)), WHITE),
        (png_16(GREY_16, 0x8000, clear=(0x8001,)), (127, 127, 127)),
        (png_16(RGB_16, 0x0101, 0x0202, 0x0303, clear=(0x0101, 0x0202, 0x0303)), WHITE),
    ],
    ids=["grey", "RGB", "RGBA", "grey and alpha", "clear grey", "another clear grey", "clear RGB"],
)
def test_16_bits_are_scaled_and_transparent_ones_are_white(data, colour):
    """https://github.com/unslothai/unsloth/pull/10094: everything above 255 became white."""
    assert is_near(colour_of(data), colour)


@pytest.mark.parametrize("kind", ["palette index", "palette bytes", "GIF", "1 bit", "RGB", "RGBA"])
def test_what_is_transparent_is_white(kind):
    """https://github.com/NVIDIA/DIGITS/issues/85, https://github.com/QwenLM/Qwen3-VL/pull/661: it became black."""
    palette = plain((0, 0, 0)).quantize(4)
    index = palette.getpixel((0, 0))
    data = {
        "palette index": lambda: file_of(palette, "PNG", transparency=index),
        "palette bytes": lambda: file_of(palette, "PNG", transparency=bytes(4)),
        "GIF": lambda: file_of(palette, "GIF", transparency=index),
        "1 bit": lambda: file_of(Image.new("1", SIZE), "PNG", transparency=0),
        "RGB": lambda: file_of(plain((1, 2, 3)), "PNG", transparency=(1, 2, 3)),
        "RGBA": lambda: file_of(Image.new("RGBA", SIZE, (0, 0, 0, 0)), "WEBP", lossless=True),
    }[kind]()
    assert colour_of(data) == WHITE


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    ("orientation", "size", "corner"),
    [(1, SIZE, "left"), (2, SIZE, "right"), (3, SIZE, "right"), (4, SIZE, "left")]
    + [(5, SIZE[::-1], "top"), (6, SIZE[::-1], "top"), (7, SIZE[::-1], "bottom"), (8, SIZE[::-1], "bottom")],
)
def test_every_orientation_of_exif_is_applied(kind, orientation, size, corner):
    """https://github.com/sgl-project/sglang/issues/33464, https://github.com/ollama/ollama/issues/18418."""
    image = plain(BLUE)
    image.paste(RED, (0, 0, SIZE[0] // 2, SIZE[1]))  # the left half as it is stored
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    turned = decode(file_of(image, kind, exif=exif, quality=95), Budget(1 << 20))
    width, height = turned.size
    at = {"left": (3, height // 2), "right": (width - 4, height // 2)} | {
        "top": (width // 2, 3),
        "bottom": (width // 2, height - 4),
    }
    assert turned.size == size and turned.getpixel(at[corner])[0] > 150 > turned.getpixel(at[corner])[2]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_animations_are_refused_and_single_frames_in_their_containers_are_not(kind):
    """https://github.com/aws-samples/dify-aws-tool/issues/133: only the first frame was seen, and nobody was told."""
    with pytest.raises(ImageError, match="animated; send one frame"):
        decode(animated(kind), Budget(1 << 20))
    assert is_near(colour_of(file_of(plain(), kind, save_all=True)), RED)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_broken_colour_profile_does_not_matter(kind):
    """https://github.com/lovell/sharp/issues/1649: odd ICC profiles. Profiles are not applied, as in training."""
    assert is_near(colour_of(file_of(plain(), kind, icc_profile=b"no profile", quality=95)), RED)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_a_truncated_file_is_refused_and_fails_no_other_request(kind):
    """https://github.com/InternLM/lmdeploy/issues/2869: a truncated file ended the encoder for everybody."""
    data = file_of(Image.effect_noise((64, 64), 80).convert("RGB"), kind)
    with pytest.raises(ImageError) as caught:
        decode(data[: len(data) * 3 // 4], Budget(1 << 20))
    assert caught.value.reason == "broken" and "BytesIO" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"\0\0\0\x24ftypheic\0\0\0\0mif1heic" + bytes(99), "a HEIC file, as iPhones take; convert it to JPEG"),
        (b"\0\0\0\x24ftypmif1\0\0\0\0mif1heic" + bytes(99), "a HEIC file, as iPhones take; convert it to JPEG"),
        (b"\0\0\0\x0aftypavif" + bytes(99), "an AVIF file; convert it to JPEG"),
        (b"\0\0\0\x18ftypmp42" + bytes(99), "a video; send one frame as JPEG"),
        (b"\xff\x0a" + bytes(99), "a JPEG XL file; convert it to JPEG"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(99), "a JPEG 2000 file; convert it to JPEG"),
        (file_of(plain(), "TIFF"), "a TIFF or raw file; convert it to PNG"),
        (b"%PDF-1.7\n" + bytes(99), "a PDF document; send its pages as pictures"),
        (b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing; convert it to PNG"),
        (b"\n<!DOCTYPE html>\n<html lang='en'>", "an HTML page, not the picture that it shows"),
    ],
    ids=["HEIC", "HEIF", "AVIF", "MP4", "JXL", "JP2", "TIFF", "PDF", "SVG", "HTML"],
)
def test_other_formats_are_named_with_the_remedy(data, sentence):
    """https://github.com/cogwheel0/conduit/issues/381: "Failed to load image" for an iPhone's photo helps nobody."""
    with pytest.raises(ImageError) as caught:
        decode(data, Budget(1 << 20))
    assert str(caught.value).startswith(f"the picture cannot be decoded: it is {sentence} (PNG, JPEG,")
    assert caught.value.reason == "format"
