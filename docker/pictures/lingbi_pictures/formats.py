"""The file formats that are taken, told from a file's first bytes, and names for some others."""

import re

# By Pillow's names. A phone's JPEG with a preview, which Pillow calls MPO, begins as any JPEG.
TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif", "BMP": "image/bmp"}
FORMATS = tuple(TYPES)
SIGNATURES = (
    ("PNG", rb"\x89PNG\r\n\x1a\n"),
    ("JPEG", rb"\xff\xd8\xff"),
    ("WEBP", rb"RIFF....WEBPVP8[ LX]"),
    ("GIF", rb"GIF8[79]a"),
    ("BMP", rb"BM"),
)
OTHERS = (
    ("heic", rb"....ftyp(?:hei[cxms]|hev[cxms]|mif1|msf1)"),
    ("avif", rb"....ftypavi[fs]"),
    ("video", rb"....ftyp|\x1aE\xdf\xa3|\x00\x00\x01\xba|FLV|RIFF....AVI "),
    ("jpeg xl", rb"\xff\x0a|\0\0\0\x0cJXL "),
    ("jpeg 2000", rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"),
    ("tiff", rb"II\*\0|MM\0\*|II\+\0|MM\0\+"),
    ("pdf", rb"%PDF-"),
    ("svg", rb"(?is)\s*(?:<\?xml.*)?<svg"),
    ("html", rb"(?is)\s*<(?:!doctype html|html|head)"),
)
HEAD_BYTES = 64


def format_of(data: bytes) -> str | None:
    """The format of a file that is taken, or None."""
    return _first(SIGNATURES, data)


def other_format(data: bytes) -> str | None:
    """The name of a known format that is not taken, or None."""
    return _first(OTHERS, data)


def _first(patterns: tuple[tuple[str, bytes], ...], data: bytes) -> str | None:
    head = data[:HEAD_BYTES]
    return next((name for name, pattern in patterns if re.match(pattern, head, re.DOTALL)), None)
