"""The walk over a JPEG's segments: real scans are counted, and nothing that only looks like one."""

import random
import struct
import time

import pytest

from lingbi_pictures.bounds import MAX_SEGMENTS
from lingbi_pictures.faults import PictureFault
from lingbi_pictures.jpeg import SOS, seconds, walk
from lingbi_pictures.picture import Budget, decoded
from tests.server.images.bad_images import SCENE, draw, file_of, many_scans

PLAIN = file_of(draw(SCENE), "JPEG")
PROGRESSIVE = file_of(draw(SCENE), "JPEG", progressive=True)
SCANS_OF_PROGRESSIVE = 10


def film(mebibytes: int) -> bytes:
    """An MP4's boxes with noise in them: some 16 pairs of the bytes FF DA in each MiB."""
    noise = random.Random(mebibytes).randbytes(mebibytes << 20)
    return b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + struct.pack(">I", len(noise)) + b"mdat" + noise


def segment(marker: int, data: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    """The file with segments behind its start of image."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def scans(data: bytes) -> int:
    return [segment.marker for segment in walk(data)].count(SOS)


def test_the_scans_of_plain_and_progressive_files_are_counted():
    assert scans(PLAIN) == 1 and scans(PROGRESSIVE) == SCANS_OF_PROGRESSIVE


@pytest.mark.parametrize(
    ("jpeg", "count"),
    [
        (PLAIN + film(8), 1),  # a phone's motion photo
        (PROGRESSIVE + film(8), SCANS_OF_PROGRESSIVE),
        (PLAIN + PROGRESSIVE * 20, 1),  # an MPO, a gain map: more images behind the first
        (with_segments(PLAIN, *[segment(0xEB, b"\xff\xda" * 30_000)] * 130), 1),  # JUMBF, as C2PA writes it
        (with_segments(PLAIN, segment(0xE1, b"Exif\0\0" + PROGRESSIVE * 5)), 1),  # previews in EXIF
        (with_segments(PLAIN, segment(0xFE, b"\xff\xda" * 200)), 1),
        (with_segments(PLAIN, b"\xff" * 300), 1),  # fill bytes in front of a marker, B.1.1.2
        (file_of(draw(SCENE), "JPEG", restart_marker_blocks=1), 1),  # restart markers within a scan
    ],
    ids=["film", "progressive film", "images behind", "JUMBF", "previews", "comment", "fill bytes", "restarts"],
)
def test_what_only_looks_like_a_scan_is_not_counted(jpeg, count):
    seconds(jpeg)
    assert scans(jpeg) == count and decoded(jpeg, Budget(1 << 20)).size == draw(SCENE).size


@pytest.mark.parametrize("between", [b"", b"\xff" * 7, b"rubbish", b"\xff\x00\xff\x02\xff\xff", b"\xff\xd0"], ids=repr)
def test_real_scans_are_bounded_whatever_lies_between_them(between):
    """libjpeg skips what it does not know between two segments: hidden scans would be decoded, so they are counted."""
    data = many_scans()
    last = PROGRESSIVE[PROGRESSIVE.rindex(b"\xff\xda") : -2]
    with pytest.raises(PictureFault) as caught:
        seconds(data[:-2].replace(last, between + last) + data[-2:])
    assert caught.value.reason == "scans"


def test_a_file_of_nothing_but_segments_is_refused_quickly():
    start = time.process_time()
    with pytest.raises(PictureFault) as caught:
        seconds(with_segments(PLAIN, segment(0xFE, b"") * 5_000_000))
    assert caught.value.reason == "segments" and time.process_time() - start < 1
    seconds(with_segments(PLAIN, segment(0xFE, b"") * (MAX_SEGMENTS // 2)))


@pytest.mark.parametrize("end", range(2, 40))
def test_a_truncated_file_ends_the_walk(end):
    assert scans(PLAIN[:end]) == 0


@pytest.mark.parametrize("body", [b"\xff\x00", b"\xff\xd0", b"\xff", b"\xff\x01"], ids=repr)
def test_odd_entropy_coded_data_take_linear_time(body):
    start = time.process_time()
    assert scans(PLAIN[:-2] + body * (20_000_000 // len(body))) == 1
    assert time.process_time() - start < 3
