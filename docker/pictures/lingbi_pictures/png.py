"""What a PNG makes its decoder do, from its head and its chunks (https://www.w3.org/TR/png-3/)."""

import struct

from lingbi_pictures.bounds import MAX_SEGMENTS
from lingbi_pictures.faults import PictureFault

SIGNATURE_BYTES, HEAD_BYTES, AROUND_BYTES = 8, 29, 12
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
PROFILE, END = b"iCCP", b"IEND"
# Nanoseconds: a byte that is unpacked and filtered (Paeth's takes longest), a pixel that is put in its place by Adam7.
BYTE_NS, INTERLACED_NS = 7.0, 4.0


def seconds(data: bytes) -> float:
    """The estimated seconds that decoding takes. Raises PictureFault for what is not to be read at all."""
    _check_chunks(data)
    if len(data) < HEAD_BYTES:
        return 0.0
    width, height, bits, colour, interlace = struct.unpack_from(">IIBBxxB", data, 16)
    raw: float = width * height * CHANNELS.get(colour, 4) * bits / 8 + height
    moved = width * height if interlace else 0
    return float(BYTE_NS * raw + INTERLACED_NS * moved) * 1e-9


def _check_chunks(data: bytes) -> None:
    """Refuse more chunks than files have, and more colour profiles than one, of which Pillow unpacks each."""
    position, count, profiles = SIGNATURE_BYTES, 0, 0
    while position + AROUND_BYTES <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        name = data[position + 4 : position + 8]
        count, profiles = count + 1, profiles + (name == PROFILE)
        if count > MAX_SEGMENTS:
            raise PictureFault("segments", most=MAX_SEGMENTS)
        if profiles > 1:
            raise PictureFault("metadata", found=profiles, most=1)
        if name == END:
            return
        position += AROUND_BYTES + length
