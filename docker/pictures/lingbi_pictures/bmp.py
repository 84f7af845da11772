"""What a BMP makes its decoder do. Pillow reads run lengths in Python."""

COMPRESSION, RUN_LENGTHS = 30, (1, 2)
PIXEL_NS, RUN_BYTE_NS = 2.0, 350.0
WITHOUT_COMPRESSION = 12  # the size of OS/2's head, which has no such field


def seconds(data: bytes, pixels: int) -> float:
    """The estimated seconds that decoding takes."""
    has_field = int.from_bytes(data[14:18], "little") != WITHOUT_COMPRESSION
    is_packed = has_field and int.from_bytes(data[COMPRESSION : COMPRESSION + 4], "little") in RUN_LENGTHS
    return (pixels * PIXEL_NS + (len(data) * RUN_BYTE_NS if is_packed else 0)) * 1e-9
