"""EXIF data: which way is up, and how much their entries hold. Pillow's own reader would copy whatever they point to."""

import re
import struct
from collections.abc import Iterator, Mapping

from lingbi_pictures.bounds import MAX_ENTRIES_BYTES
from lingbi_pictures.faults import PictureFault

HEAD = b"Exif\0\0"
ORIENTATION, SHORT = 0x0112, 3
UPRIGHT = 1
# Bytes of a value of each type (TIFF 6.0, section 2, and 64-bit types); a value of up to 4 bytes stands in its entry.
VALUE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
IN_ENTRY_BYTES = 4
MAX_XMP = 1 << 20
XMP_ORIENTATION = r"tiff:Orientation(?:=\"|>)([1-8])"


def check_entries(tiff: bytes) -> None:
    """Refuse a TIFF directory whose entries hold more together than bytes can mean. Raises PictureFault."""
    sizes = ((VALUE_BYTES.get(kind, 0) * count, place) for _, kind, count, place, _ in entries(tiff))
    held = sum(size for size, place in sizes if size > IN_ENTRY_BYTES and place + size <= len(tiff))
    if held > MAX_ENTRIES_BYTES:
        raise PictureFault("metadata", found=held, most=MAX_ENTRIES_BYTES)


def entries(tiff: bytes) -> Iterator[tuple[int, int, int, int, int]]:
    """The entries of the first directory: tag, type, count, value or its place, and the value as a SHORT."""
    order = "<" if tiff[:2] == b"II" else ">"
    if len(tiff) < 8 or tiff[:2] not in (b"II", b"MM"):
        return
    (start,) = struct.unpack_from(f"{order}I", tiff, 4)
    if start + 2 > len(tiff):
        return
    (count,) = struct.unpack_from(f"{order}H", tiff, start)
    table = tiff[start + 2 : start + 2 + 12 * count]
    for tag, kind, number, value in struct.iter_unpack(f"{order}HHI4s", table[: len(table) // 12 * 12]):
        place, short = struct.unpack(f"{order}I", value)[0], struct.unpack(f"{order}H", value[:2])[0]
        yield tag, kind, number, place, short


def orientation(info: Mapping[str | tuple[int, int], object]) -> int:
    """The orientation, 1 to 8, that the metadata of a Pillow image say; broken ones say nothing.

    info: the image's; its keys are Pillow's.
    """
    tiff = _tiff(info)
    found = [short for tag, kind, _, _, short in entries(tiff) if (tag, kind) == (ORIENTATION, SHORT)]
    if found:
        return found[-1] if found[-1] in range(1, 9) else UPRIGHT
    xmp = info.get("xmp") or info.get("XML:com.adobe.xmp") or ""
    text = xmp.decode("latin-1") if isinstance(xmp, bytes) else str(xmp)
    said = re.search(XMP_ORIENTATION, text[:MAX_XMP])
    return int(said[1]) if said else UPRIGHT


def _tiff(info: Mapping[str | tuple[int, int], object]) -> bytes:
    data = info.get("exif")
    if isinstance(data, bytes):
        return data.removeprefix(HEAD)
    text = info.get("Raw profile type exif")  # hexadecimal after three lines, as ImageMagick writes it into a PNG
    try:
        return bytes.fromhex("".join(str(text or "").split("\n")[3:])).removeprefix(HEAD)
    except ValueError:
        return b""
