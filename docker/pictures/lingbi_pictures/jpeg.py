"""What a JPEG makes its decoder do, from its marker segments as ITU T.81 B.1 lays them out.

Bytes inside a segment, and whatever follows the end of the image, are no markers: a phone's motion photo has a film
there, and metadata segments may hold anything.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from lingbi_pictures.bounds import MAX_FILL_BYTES, MAX_METADATA_BYTES, MAX_SCANS, MAX_SEGMENTS
from lingbi_pictures.exif import HEAD as EXIF
from lingbi_pictures.exif import check_entries
from lingbi_pictures.faults import PictureFault

SOS, EOI, APP1, APP2, APP13 = 0xDA, 0xD9, 0xE1, 0xE2, 0xED
BASELINE, EXTENDED, PROGRESSIVE = 0xC0, 0xC1, 0xC2
# Frames that are lossless, hierarchical or arithmetically coded. Browsers show none of these, and of arithmetic coding a
# few bytes can stand for a whole picture of work.
OTHER_FRAMES = {0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
MULTI_PICTURE = b"MPF\0"
# The markers that end entropy-coded data or begin a segment. Restart markers, stuffed zeros, fill bytes and reserved
# codes have no length and are stepped over, as libjpeg does when it looks for the next marker.
MARKER = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")
LENGTH_BYTES = 2
# Nanoseconds, measured with libjpeg-turbo: a pixel and another for each component; a sample in a scan that refines (the
# decoder looks at every coefficient that there is) and in another; a byte of Huffman codes.
PIXEL_NS, REFINED_NS, SCANNED_NS, PROGRESSIVE_BYTE_NS, BYTE_NS = 1.0, 1.0, 0.5, 40.0, 15.0


@dataclass(frozen=True)
class Segment:
    """A marker's second byte, the segment's own bytes, and the bytes from the end of the one before."""

    marker: int
    body: bytes
    gap: int


@dataclass
class Frame:
    """A picture's frame; shares: of the pixels that each component has samples for, by the component's number."""

    kind: int
    pixels: int
    shares: dict[int, float]


def walk(data: bytes) -> Iterator[Segment]:
    """The segments up to the first end of image."""
    position = 2
    while (found := MARKER.search(data, position)) and (marker := data[found.start() + 1]) != EOI:
        start = found.end()
        length = max(int.from_bytes(data[start : start + LENGTH_BYTES], "big"), LENGTH_BYTES)
        yield Segment(marker, data[start + LENGTH_BYTES : start + length], found.start() - position)
        position = start + length


class Metadata:
    """The metadata that Pillow reads while it opens a file: EXIF data, Photoshop's resources, a list of pictures."""

    def __init__(self) -> None:
        self._exif, self._resource_bytes = bytearray(), 0

    def add(self, segment: Segment) -> None:
        """Count a segment, if it is one of these. Raises PictureFault."""
        if segment.marker == APP1 and segment.body.startswith(EXIF):
            self._exif += segment.body[len(EXIF) :]
        if segment.marker == APP13:
            self._resource_bytes += len(segment.body)
        if segment.marker == APP2 and segment.body.startswith(MULTI_PICTURE):
            check_entries(segment.body[len(MULTI_PICTURE) :])
        found = max(len(self._exif), self._resource_bytes)
        if found > MAX_METADATA_BYTES:
            raise PictureFault("metadata", found=found, most=MAX_METADATA_BYTES)

    def check(self) -> None:
        """Judge what is whole only now. Raises PictureFault."""
        check_entries(bytes(self._exif))


def seconds(data: bytes) -> float:
    """The estimated seconds that decoding takes. Raises PictureFault for what is not to be read at all."""
    frame, scans, fill, ns, metadata = None, 0, 0, 0.0, Metadata()
    for number, segment in enumerate(walk(data), 1):
        fill += 0 if scans else segment.gap
        scans += segment.marker == SOS
        if number > MAX_SEGMENTS or fill > MAX_FILL_BYTES:
            raise PictureFault("segments", most=MAX_SEGMENTS)
        if scans > MAX_SCANS:
            raise PictureFault("scans", most=MAX_SCANS)
        metadata.add(segment)
        frame = _frame(segment) or frame
        ns += _scan_ns(segment, frame) if segment.marker == SOS and frame else 0.0
    metadata.check()
    return (ns + (_frame_ns(frame, len(data)) if frame else 0.0)) * 1e-9


def _frame(segment: Segment) -> Frame | None:
    """The frame that a segment begins, if it is one. Raises PictureFault for a frame of another coding."""
    if segment.marker in OTHER_FRAMES:
        raise PictureFault("coding", frame=segment.marker - BASELINE)
    body = segment.body
    if segment.marker not in (BASELINE, EXTENDED, PROGRESSIVE) or len(body) < 6:
        return None
    components = [body[place : place + 2] for place in range(6, 6 + 3 * body[5], 3)]
    sampling = {part[0]: (part[1] >> 4) * (part[1] & 15) for part in components if len(part) == 2}
    widest = max((part[1] >> 4 for part in components if len(part) == 2), default=1)
    highest = max((part[1] & 15 for part in components if len(part) == 2), default=1)
    whole = max(widest * highest, 1)
    pixels = int.from_bytes(body[1:3], "big") * int.from_bytes(body[3:5], "big")
    return Frame(segment.marker, pixels, {name: count / whole for name, count in sampling.items()})


def _scan_ns(segment: Segment, frame: Frame) -> float:
    body = segment.body
    count = body[0] if body else 0
    shares = sum(frame.shares.get(name, 1.0) for name in body[1 : 1 + 2 * count : 2])
    first, approximation = (body[-3], body[-1]) if len(body) >= 3 else (0, 0)
    is_refined = frame.kind == PROGRESSIVE and first > 0 and approximation >> 4 > 0
    return frame.pixels * shares * (REFINED_NS if is_refined else SCANNED_NS)


def _frame_ns(frame: Frame, size: int) -> float:
    byte_ns = PROGRESSIVE_BYTE_NS if frame.kind == PROGRESSIVE else BYTE_NS
    return PIXEL_NS * frame.pixels * (1 + len(frame.shares)) + byte_ns * size
