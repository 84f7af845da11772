"""Pictures: what is refused and why, and that what is taken shows what it should."""

import asyncio
import time

import psutil
import pytest
from PIL import Image

from lingbi.api_errors import ImageError
from lingbi.images.loader import ImageDoor, ImageRules
from lingbi.images.scenes import Scene, Thing, draw
from lingbi.images.sources import load_source
from tests.server.images import bad_images
from tests.server.images.bad_images import file_of, url_of


def load(*urls, **rules) -> list:
    return asyncio.run(ImageDoor(ImageRules(**rules)).load(list(urls)))


def reason_of(*urls, **rules) -> str:
    with pytest.raises(ImageError) as caught:
        load(*urls, **rules)
    sentence = str(caught.value)
    assert 10 < len(sentence) < 300 and "\n" not in sentence and "BytesIO object" not in sentence, sentence
    return caught.value.reason


@pytest.mark.parametrize("name", bad_images.refused())
def test_bad_images_are_refused_quickly_in_a_sentence(name):
    url, reasons = bad_images.refused()[name]
    before, start = psutil.Process().memory_info().rss, time.monotonic()
    assert reason_of(url) in reasons.split("|")
    assert time.monotonic() - start < 5
    assert psutil.Process().memory_info().rss - before < 200 << 20


def test_of_several_pictures_the_one_that_is_refused_is_told_by_its_number():
    good, broken = url_of(file_of(Image.new("RGB", (8, 6)))), url_of(b"none")
    cut = url_of(file_of(Image.effect_noise((64, 64), 50))[:-500])
    for urls, words in (
        ((good, broken, good), "picture 2 of 3: the picture cannot be decoded"),
        ((good, "file:///x"), "picture 2 of 2: a picture's URL must begin with"),
        ((good, good, cut), "picture 3 of 3: the picture cannot be decoded"),
        ((broken,), "the picture cannot be decoded"),
    ):
        with pytest.raises(ImageError) as caught:
            load(*urls)
        assert str(caught.value).startswith(words) and caught.value.reason in ("format", "url", "broken"), caught.value


def test_a_zip_bomb_gives_no_more_than_its_head_says():
    before = psutil.Process().memory_info().rss
    (image,) = load(url_of(bad_images.zip_bomb()))
    assert image.size == (100, 100) and psutil.Process().memory_info().rss - before < 100 << 20


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("RGB", "PNG"), ("RGBA", "PNG"), ("P", "GIF"), ("L", "JPEG"), ("CMYK", "JPEG"), ("1", "PNG"), ("I;16", "PNG")]
    + [("LA", "PNG"), ("P", "PNG"), ("RGB", "WEBP"), ("RGB", "BMP"), ("RGB", "MPO")],
)
def test_images_of_every_mode_become_rgb(mode, kind):
    (image,) = load(url_of(file_of(Image.new(mode, (8, 6)), kind), kind))
    assert (image.mode, image.size) == ("RGB", (8, 6))


def test_one_pixel_is_an_image():
    assert load(url_of(file_of(Image.new("RGB", (1, 1)))))[0].size == (1, 1)


def middle_and_corner(image: Image.Image) -> tuple:
    return image.getpixel((image.width // 2, image.height // 2)), image.getpixel((2, 2))


def test_colours_survive_every_way_of_writing_them():
    scene = draw(bad_images.SCENE)
    for data in (
        file_of(scene.convert("CMYK"), "JPEG", quality=95),
        file_of(scene.quantize(8)),
        file_of(scene.convert("RGBA")),
        file_of(bad_images.on_glass()),
    ):
        (image,) = load(url_of(data))
        (red, green, blue), corner = middle_and_corner(image)
        assert red > 180 and green < 60 and blue < 60 and min(corner) > 240
    (image,) = load(url_of(file_of(bad_images.sixteen_bit())))
    assert middle_and_corner(image) == ((0, 0, 0), (255, 255, 255))
    half = Image.new("I;16", (4, 4), 0x8000)
    assert load(url_of(file_of(half)))[0].getpixel((0, 0)) == (127, 127, 127)


def test_exif_turns_the_image_and_broken_exif_does_not_matter():
    image = Image.new("RGB", (20, 10), "red")
    exif = Image.Exif()
    exif[0x0112] = 6
    assert load(url_of(file_of(image, "JPEG", exif=exif), "jpeg"))[0].size == (10, 20)
    assert load(url_of(file_of(image, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), "jpeg"))[0].size == (20, 10)


def test_the_limits_hold():
    small = url_of(file_of(Image.new("RGB", (100, 100))))
    assert reason_of(*[small] * 17) == "count" and len(load(*[small] * 16)) == 16
    assert reason_of(small, max_bytes=100) == "bytes"
    assert reason_of(small, small, max_pixels=15_000) == "pixels" and load(small, max_pixels=15_000)


def test_100_mb_are_refused_before_they_are_decoded():
    url = "data:image/png;base64," + "A" * 100_000_000
    start = time.process_time()
    assert reason_of(url) == "bytes" and time.process_time() - start < 1


def test_order_is_kept():
    images = [draw(Scene((Thing(colour, "circle"),))) for colour in ("red", "green", "blue")]
    loaded = load(*(url_of(file_of(image)) for image in images))
    assert [image.tobytes() for image in loaded] == [image.tobytes() for image in images]


def test_the_pipeline_refuses_the_same_files_in_the_same_sentences(tmp_path):
    file = tmp_path / "many.jpg"
    file.write_bytes(bad_images.many_scans())
    with pytest.raises(ImageError) as caught:
        load(url_of(bad_images.many_scans()))
    said = load_source(str(file), ImageRules())
    assert str(said) == str(caught.value) and "scans" in str(said)


def test_work_is_shared_by_a_requests_images():
    plain = file_of(Image.new("L", (4000, 3000)), "JPEG", progressive=True)
    last = plain.rindex(b"\xff\xda")
    slow = url_of(plain[:-2] + plain[last:-2] * 80 + plain[-2:], "jpeg")
    assert reason_of(slow, slow, slow) == "work"
