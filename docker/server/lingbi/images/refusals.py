"""The sentences in which the API refuses pictures."""

import contextlib
from collections.abc import Iterator

from lingbi.api_errors import ImageError
from lingbi_pictures.faults import PictureFault
from lingbi_pictures.formats import FORMATS

NAMES = {
    "heic": "a HEIC file, as iPhones take; convert it to JPEG",
    "avif": "an AVIF file; convert it to JPEG",
    "video": "a video; send one frame as JPEG",
    "jpeg xl": "a JPEG XL file; convert it to JPEG",
    "jpeg 2000": "a JPEG 2000 file; convert it to JPEG",
    "tiff": "a TIFF or raw file; convert it to PNG",
    "pdf": "a PDF document; send its pages as pictures",
    "svg": "an SVG drawing; convert it to PNG",
    "html": "an HTML page, not the picture that it shows",
}
SENTENCES = {
    "broken": "the picture cannot be decoded: {why}",
    "empty": "the picture is {width} x {height} pixels",
    "pixels": "the picture is {width} x {height} pixels, and a request may have {most} in all ({left} are left)",
    "aspect": "the picture is {width} x {height} pixels, and its sides may differ at most {most} times",
    "frames": "the picture is animated; send one frame",
    "scans": "the JPEG has more than {most} scans; save it as a baseline JPEG",
    "segments": "the picture's file has more than {most} segments; save it without metadata",
    "metadata": "the picture's metadata are larger than any program writes them ({found}, and at most {most} are read); "
    "save it without metadata",
    "coding": "the JPEG is coded in a way that browsers do not show (SOF{frame}); save it as a baseline JPEG",
    "work": "decoding this {format} of {width} x {height} pixels would take about {seconds:.1f} s, and a request may take "
    "{most:g} s in all ({left:.1f} s are left); save it as a baseline JPEG, or make it smaller",
}


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Turns a PictureFault into the API's ImageError."""
    try:
        yield
    except PictureFault as fault:
        reason = "pixels" if fault.reason == "empty" else fault.reason
        raise ImageError(sentence(fault), reason=reason) from None


def sentence(fault: PictureFault) -> str:
    """Why a picture is refused, and what to do."""
    if fault.reason == "format":
        return f"the picture cannot be decoded: it is {what_it_is(fault.facts.get('other'))}"
    return SENTENCES[fault.reason].format(**fault.facts)


def what_it_is(other: object) -> str:
    """What a file of none of the formats is; other: the package's name of a known one."""
    takes = ", ".join(FORMATS)
    return f"{NAMES[other]} ({takes} are taken)" if isinstance(other, str) else f"no {takes} file"
