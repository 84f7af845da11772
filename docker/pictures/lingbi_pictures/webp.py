"""What a WebP makes its decoder do, from its chunks (RFC 9649)."""

import struct

from lingbi_pictures.bounds import MAX_SEGMENTS
from lingbi_pictures.faults import PictureFault

FIRST_CHUNK, CHUNK_HEAD = 12, 8
LOSSY, LOSSLESS, ALPHA = b"VP8 ", b"VP8L", b"ALPH"
# Nanoseconds of a pixel and a byte; lossless ones count by pixels, whatever predictors and colour transforms they use.
LOSSY_NS, LOSSY_BYTE_NS, LOSSLESS_NS, ALPHA_NS = 12.0, 68.0, 30.0, 15.0


def seconds(data: bytes, pixels: int) -> float:
    """The estimated seconds that decoding takes. Raises PictureFault for more chunks than files have."""
    position, names = FIRST_CHUNK, set[bytes]()
    for _ in range(MAX_SEGMENTS):
        names.add(data[position : position + 4])
        if position + CHUNK_HEAD > len(data) or names & {LOSSY, LOSSLESS}:
            break
        (length,) = struct.unpack_from("<I", data, position + 4)
        position += CHUNK_HEAD + length + length % 2
    else:
        raise PictureFault("segments", most=MAX_SEGMENTS)
    if LOSSLESS in names:
        return LOSSLESS_NS * pixels * 1e-9
    return (pixels * (LOSSY_NS + ALPHA_NS * (ALPHA in names)) + LOSSY_BYTE_NS * len(data)) * 1e-9
