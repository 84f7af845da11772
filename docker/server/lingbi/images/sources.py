"""The images on a command line: files, folders and URLs.

A source has one name in rows and on later runs. It is always UTF-8: a file whose name is none is named by its file: URL,
in which every byte of the name can be read back.
"""

import os
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

import httpx
from PIL import Image

from lingbi.api_errors import ImageError
from lingbi.errors import ConfigurationError
from lingbi.images.download import SUCCESSES
from lingbi.images.limits import too_large
from lingbi.images.loader import ImageRules, PixelBudget, decode

SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".pjpeg", ".png", ".webp", ".bmp", ".dib", ".gif"}
# What systems put beside images: macOS's AppleDouble files, and folders of resource forks, thumbnails and deleted files.
SIDE_FILE = "._"
SIDE_FOLDERS = {"__MACOSX", ".AppleDouble", ".thumbnails", ".Trash", ".Trashes", "@eaDir", "#recycle", "$RECYCLE.BIN"}
FILE_URL = "file://"


@dataclass(frozen=True)
class Sources:
    """names: each image once, in order; passed_over: the number of side files with an image's suffix."""

    names: list[str]
    passed_over: int


def find_sources(arguments: list[str]) -> Sources:
    """The images of URLs, files and folders: URLs and files as they are given, a folder's images sorted by path.

    Raises ConfigurationError for a name that does not exist, and if there is no image at all.
    """
    names: dict[str, None] = {}
    passed_over = 0
    for argument in arguments:
        if is_url(argument):
            names[argument] = None
            continue
        images, side_files = _files(path_of(argument) if argument.startswith(FILE_URL) else Path(argument))
        names |= dict.fromkeys(map(name_of, images))
        passed_over += side_files
    if not names:
        raise ConfigurationError(f"no pictures in {', '.join(arguments)}; known are {', '.join(sorted(SUFFIXES))}")
    return Sources(list(names), passed_over)


def is_url(name: str) -> bool:
    """Whether a source is downloaded."""
    return name.startswith(("http://", "https://"))


def name_of(path: Path) -> str:
    """The name of a file's source, whatever the locale: its path, or its file: URL if the path is not UTF-8."""
    try:
        return os.fsencode(path).decode("utf-8")
    except UnicodeDecodeError:
        return path.absolute().as_uri()


def path_of(name: str) -> Path:
    """The file of a source's name: the inverse of name_of, except that a file: URL gives an absolute path."""
    if name.startswith(FILE_URL):
        return Path(os.fsdecode(urllib.parse.unquote_to_bytes(name[len(FILE_URL) :])))
    return Path(os.fsdecode(name.encode("utf-8")))


def _files(path: Path) -> tuple[list[Path], int]:
    """A folder's images and the number of its side files; a file that is given by itself is taken for an image."""
    if not path.is_dir():
        if not path.exists():
            raise ConfigurationError(f"{path} is neither a picture, a folder nor an http(s) URL")
        return [path], 0
    found = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    side_files = {file for file in found if is_side_file(file.relative_to(path))}
    return [file for file in found if file not in side_files], len(side_files)


def is_side_file(path: Path) -> bool:
    """Whether a path within a folder accompanies images without being one that its owner made."""
    return path.name.startswith(SIDE_FILE) or not SIDE_FOLDERS.isdisjoint(path.parts)


def load_source(source: str, rules: ImageRules) -> Image.Image | ImageError | OSError:
    """The image of a source, RGB and upright, or the ImageError or OSError in its place.

    Files are decoded as a request's images are, so the same limits hold.
    """
    try:
        data = _download(source, rules) if is_url(source) else _read(path_of(source), rules.max_bytes)
        return decode(data, PixelBudget(rules.max_pixels))
    except (ImageError, OSError) as error:
        return error


def _read(path: Path, max_bytes: int) -> bytes:
    size = path.stat().st_size
    if size > max_bytes:
        raise too_large(size, max_bytes)
    return path.read_bytes()


def _download(url: str, rules: ImageRules) -> bytes:
    """Download without restrictions on redirects, proxies or private networks: whoever runs the command has that access."""
    data = bytearray()
    try:
        with httpx.stream("GET", url, follow_redirects=True, timeout=rules.fetch.timeout_s) as response:
            if response.status_code not in SUCCESSES:
                raise ImageError(f"the picture's host answered with status {response.status_code}")
            for chunk in response.iter_bytes():
                data += chunk
                if len(data) > rules.max_bytes:
                    raise too_large(len(data), rules.max_bytes)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ImageError(f"the picture cannot be fetched: {type(error).__name__}") from None
    return bytes(data)
