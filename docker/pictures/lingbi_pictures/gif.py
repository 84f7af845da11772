"""What a GIF makes its decoder do, from its blocks (https://www.w3.org/Graphics/GIF/spec-gif89a.txt)."""

from lingbi_pictures.bounds import MAX_DATA_BLOCKS, MAX_METADATA_BYTES, MAX_SEGMENTS
from lingbi_pictures.faults import PictureFault

HEAD_BYTES, IMAGE_BYTES = 13, 10
HAS_TABLE, TABLE_SIZE = 0x80, 0x07
EXTENSION, IMAGE, TRAILER = 0x21, 0x2C, 0x3B
PIXEL_NS = 8.0


def check(data: bytes) -> None:
    """Refuse more blocks than files have, up to the second picture. Raises PictureFault."""
    position = HEAD_BYTES + _table_bytes(data, 10)
    extensions, held, pictures = 0, 0, 0
    while position < len(data) and data[position] != TRAILER:
        kind, begun, blocks = data[position], position, 0
        pictures += kind == IMAGE
        if pictures > 1:
            return
        if kind == IMAGE:
            position, _ = _after(data, position + IMAGE_BYTES + _table_bytes(data, position + 9) + 1, MAX_DATA_BLOCKS)
            continue
        if kind == EXTENSION:
            position, blocks = _after(data, position + 2, MAX_SEGMENTS)
            held += position - begun
        else:
            position += 1  # Pillow steps over it
        extensions += 1 + blocks
        if extensions > MAX_SEGMENTS:
            raise PictureFault("segments", most=MAX_SEGMENTS)
        if held > MAX_METADATA_BYTES:
            raise PictureFault("metadata", found=held, most=MAX_METADATA_BYTES)


def _table_bytes(data: bytes, place: int) -> int:
    """The size of a colour table, from the flags at a place."""
    flags = data[place] if place < len(data) else 0
    return 3 * 2 ** ((flags & TABLE_SIZE) + 1) if flags & HAS_TABLE else 0


def _after(data: bytes, position: int, most: int) -> tuple[int, int]:
    """The place after a row of blocks, and the blocks passed. Raises PictureFault for more than `most`."""
    blocks = 0
    while position < len(data) and (length := data[position]):
        position, blocks = position + 1 + length, blocks + 1
        if blocks > most:
            raise PictureFault("segments", most=most)
    return position + 1, blocks


def seconds(data: bytes) -> float:
    """The estimated seconds that decoding takes. Raises PictureFault for what is not to be read at all."""
    check(data)
    place = HEAD_BYTES + _table_bytes(data, 10)
    width, height = (int.from_bytes(data[at : at + 2], "little") for at in (6, 8))
    inner = data.find(b",", place)
    sides = [int.from_bytes(data[at : at + 2], "little") for at in (inner + 5, inner + 7)] if inner > 0 else [0, 0]
    return max(width * height, sides[0] * sides[1]) * PIXEL_NS * 1e-9
