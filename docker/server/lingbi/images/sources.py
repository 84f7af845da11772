"""The images on a command line: files, folders and URLs.

A source has one name in rows and on later runs. It is always UTF-8: a file whose name is none is named by its file: URL,
in which every byte of the name can be read back.
"""

import hashlib
import os
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import httpx
from PIL import Image

from lingbi.api_errors import ImageError
from lingbi.errors import ConfigurationError
from lingbi.images.download import SUCCESSES
from lingbi.images.limits import too_large
from lingbi.images.loader import ImageRules, decode
from lingbi_pictures.picture import Budget

SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".pjpeg", ".png", ".webp", ".bmp", ".dib", ".gif"}
# What systems put beside images: macOS's AppleDouble files, and folders of resource forks, thumbnails and deleted files.
SIDE_FILE = "._"
SIDE_FOLDERS = {"__MACOSX", ".AppleDouble", ".thumbnails", ".Trash", ".Trashes", "@eaDir", "#recycle", "$RECYCLE.BIN"}
FILE_URL = "file://"


class Sources:
    """The images of URLs, files and folders: URLs and files as they are given, a folder's images sorted by path.

    Folders are walked when the names are asked for, and no names are kept, only digests: there may be any number of them.
    Raises ConfigurationError for a name that does not exist.
    """

    def __init__(self, arguments: list[str]) -> None:
        self.arguments = arguments
        self.passed_over = 0  # side files with an image's suffix, of the last walk
        self._seen: set[bytes] = set()
        for argument in arguments:
            path = _path_of_argument(argument)
            if path and not path.exists():
                raise ConfigurationError(f"{path} is neither a picture, a folder nor an http(s) URL")

    def names(self) -> Iterator[str]:
        """Each image once, in order."""
        self.passed_over = 0
        self._seen = seen = set()
        for argument in self.arguments:
            path = _path_of_argument(argument)
            for name in self._files(path) if path else [argument]:
                if (mark := _digest(name)) not in seen:
                    seen.add(mark)
                    yield name

    def has(self, name: str) -> bool:
        """Whether the last walk met a name."""
        return _digest(name) in self._seen

    def _files(self, path: Path) -> Iterator[str]:
        """A folder's images; a file that is given by itself is taken for an image."""
        for file in walk(path) if path.is_dir() else [path]:
            if file is not path and is_side_file(file.relative_to(path)):
                self.passed_over += 1
            else:
                yield name_of(file)


def _digest(name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def walk(folder: Path) -> Iterator[Path]:
    """The images of a folder and its folders, sorted by path; of each folder, its entries alone are held."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_dir(follow_symlinks=False):
            yield from walk(folder / entry.name)
        elif os.path.splitext(entry.name)[1].lower() in SUFFIXES and entry.is_file():
            yield folder / entry.name


def _path_of_argument(argument: str) -> Path | None:
    """The file or folder that an argument names; None for a URL."""
    if is_url(argument):
        return None
    return path_of(argument) if argument.startswith(FILE_URL) else Path(argument)


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


def is_side_file(path: Path) -> bool:
    """Whether a path within a folder accompanies images without being one that its owner made."""
    return path.name.startswith(SIDE_FILE) or not SIDE_FOLDERS.isdisjoint(path.parts)


def load_source(source: str, rules: ImageRules) -> Image.Image | ImageError | OSError:
    """The image of a source, RGB and upright, or the ImageError or OSError in its place.

    Files are decoded as a request's images are, so the same limits hold.
    """
    try:
        return decode(read_source(source, rules), Budget(rules.max_pixels))
    except (ImageError, OSError) as error:
        return error


def read_source(source: str, rules: ImageRules) -> bytes:
    """The bytes of a source. Raises ImageError, OSError."""
    return _download(source, rules) if is_url(source) else _read(path_of(source), rules.max_bytes)


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
