"""Pictures that a command names: files, folders of them, and URLs."""

import base64
from pathlib import Path

from lingbi.errors import ConfigurationError
from lingbi.pictures import PictureError, load_picture

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


def find_sources(names: list) -> list:
    """Every picture once, in order: URLs and files as named, a folder's pictures by path.

    Raises ConfigurationError for a name that is nothing, and where there is no picture at all.
    """
    found = {}
    for name in names:
        found |= dict.fromkeys([name] if is_url(name) else _files(Path(name)))
    if not found:
        raise ConfigurationError(f"no pictures in {', '.join(names)}; known are {', '.join(sorted(SUFFIXES))}")
    return list(found)


def is_url(name: str) -> bool:
    return name.startswith(("http://", "https://"))


def _files(path: Path) -> list:
    if path.is_dir():
        return sorted(str(file) for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    if not path.exists():
        raise ConfigurationError(f"{path} is neither a picture, a folder nor an http(s) URL")
    return [str(path)]


def load_source(source: str):
    """The picture of a source, RGB and upright, or the PictureError or OSError in its place.

    Files go through the same door as a request's pictures, so the same limits hold.
    """
    try:
        if is_url(source):
            return load_picture(source)
        data = base64.b64encode(Path(source).read_bytes()).decode()
        return load_picture(f"data:image/*;base64,{data}")
    except (PictureError, OSError) as error:
        return error
