"""The images on a command line: files, folders and URLs."""

from pathlib import Path

import httpx
from PIL import Image

from lingbi.api_errors import ImageError
from lingbi.errors import ConfigurationError
from lingbi.images.download import SUCCESSES
from lingbi.images.limits import too_large
from lingbi.images.loader import ImageRules, PixelBudget, decode

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"}


def find_sources(names: list[str]) -> list[str]:
    """Every picture once, in order: URLs and files as named, a folder's pictures by path.

    Raises ConfigurationError for a name that is nothing, and where there is no picture at all.
    """
    found: dict[str, None] = {}
    for name in names:
        found |= dict.fromkeys([name] if is_url(name) else _files(Path(name)))
    if not found:
        raise ConfigurationError(f"no pictures in {', '.join(names)}; known are {', '.join(sorted(SUFFIXES))}")
    return list(found)


def is_url(name: str) -> bool:
    return name.startswith(("http://", "https://"))


def _files(path: Path) -> list[str]:
    if path.is_dir():
        return sorted(str(file) for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    if not path.exists():
        raise ConfigurationError(f"{path} is neither a picture, a folder nor an http(s) URL")
    return [str(path)]


def load_source(source: str, rules: ImageRules) -> Image.Image | ImageError | OSError:
    """The picture of a source, RGB and upright, or the ImageError or OSError in its place.

    Files are decoded as a request's pictures are, so the same limits hold.
    """
    try:
        data = _download(source, rules) if is_url(source) else _read(Path(source), rules.max_bytes)
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
