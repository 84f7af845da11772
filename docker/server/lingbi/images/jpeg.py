"""Counts what a JPEG makes its decoder do, by walking its marker segments as ITU T.81 B.1 lays them out.

Bytes inside a segment, and whatever follows the end of the image, are no markers: a phone's motion photo has a film
there, and metadata segments may hold anything.
"""

import re
from collections.abc import Iterator

from lingbi.api_errors import ImageError

SOI = b"\xff\xd8"
SOS, EOI = 0xDA, 0xD9
# Progressive JPEGs may hold any number of passes over the whole image; encoders write about ten.
MAX_SCANS = 100
# Segments have up to 65535 bytes each, so files of the size that is taken need a few hundred.
MAX_SEGMENTS = 10_000
# The markers that end entropy-coded data or begin a segment. Restart markers, stuffed zeros, fill bytes and reserved
# codes have no length and are stepped over, as libjpeg does when it looks for the next marker.
MARKER = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")
LENGTH_BYTES = 2


def check_jpeg(data: bytes) -> None:
    """Refuse a JPEG with more scans or segments than its decoder should go through; other files pass.

    Raises ImageError.
    """
    if not data.startswith(SOI):
        return
    scans = 0
    for segments, marker in enumerate(markers(data), 1):
        scans += marker == SOS
        if scans > MAX_SCANS:
            raise ImageError(f"the JPEG has more than {MAX_SCANS} scans; save it as a baseline JPEG", reason="scans")
        if segments > MAX_SEGMENTS:
            raise ImageError(
                f"the JPEG has more than {MAX_SEGMENTS} segments; save it without metadata", reason="segments"
            )


def markers(data: bytes) -> Iterator[int]:
    """The second byte of each segment's marker, up to the first end of image."""
    position = 0
    while (found := MARKER.search(data, position)) and (marker := data[found.start() + 1]) != EOI:
        yield marker
        length = int.from_bytes(data[found.end() : found.end() + LENGTH_BYTES], "big")
        position = found.end() + max(length, LENGTH_BYTES)
