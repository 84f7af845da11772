"""Pictures that people bring: whether the model can use them, and how they travel to it."""

import base64
from pathlib import Path

from PIL import Image, UnidentifiedImageError

FORMATS = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif", "BMP": "image/bmp"}
MAX_PIXELS = 50_000_000
MIB = 1 << 20
HEAD_BYTES = 32
HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
VIDEO_HEADS = (b"\x1aE\xdf\xa3", b"\x00\x00\x01\xba", b"FLV")


class PictureFault(Exception):
    """A picture that cannot be used; `word` names the sentence that says why."""

    def __init__(self, word: str):
        super().__init__(word)
        self.word = word


def check_picture(file: Path, max_mib: int) -> None:
    """Raise PictureFault unless the file is a picture that the server will take."""
    if file.stat().st_size > max_mib * MIB:
        raise PictureFault("picture_large")
    try:
        with Image.open(file, formats=tuple(FORMATS)) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise PictureFault("picture_pixels")
            if getattr(picture, "n_frames", 1) > 1:
                raise PictureFault("picture_animated")
            picture.load()
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError):
        raise PictureFault(_kind_of(file)) from None


def _kind_of(file: Path) -> str:
    """What a file is that is no picture of ours."""
    with file.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
    if head[4:8] == b"ftyp":
        return "picture_heic" if head[8:12] in HEIC_BRANDS else "picture_video"
    if head.startswith(VIDEO_HEADS) or (head[:4] == b"RIFF" and head[8:12] == b"AVI "):
        return "picture_video"
    return "picture_unreadable"


def data_url(file: Path) -> str:
    """The file as a data URL."""
    with Image.open(file, formats=tuple(FORMATS)) as picture:
        kind = FORMATS[picture.format]
    return f"data:{kind};base64," + base64.b64encode(file.read_bytes()).decode()
