"""The file formats that are taken, and a name for what clients send in their place."""

import re

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
HEAD_BYTES = 64
# What the head of a file looks like, and what to call the file.
OTHERS = (
    (rb"....ftyp(?:hei[cxms]|hev[cxms]|mif1|msf1)", "a HEIC file, as iPhones take; convert it to JPEG"),
    (rb"....ftypavi[fs]", "an AVIF file; convert it to JPEG"),
    (rb"....ftyp", "a video; send one frame as JPEG"),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "a JPEG XL file; convert it to JPEG"),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000 file; convert it to JPEG"),
    (rb"II\*\0|MM\0\*|II\+\0|MM\0\+", "a TIFF or raw file; convert it to PNG"),
    (rb"%PDF-", "a PDF document; send its pages as pictures"),
    (rb"(?is)\s*(?:<\?xml.*)?<svg", "an SVG drawing; convert it to PNG"),
    (rb"(?is)\s*<(?:!doctype html|html|head)", "an HTML page, not the picture that it shows"),
)


def what_it_is(data: bytes) -> str:
    """The end of the sentence "the picture cannot be decoded: it is …" for a file of none of these formats."""
    head = data[:HEAD_BYTES]
    named = next((name for pattern, name in OTHERS if re.match(pattern, head, re.DOTALL)), None)
    return f"{named} ({', '.join(FORMATS)} are taken)" if named else f"no {', '.join(FORMATS)} file"
