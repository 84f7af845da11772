"""Undoes the compression that some image hosts apply although they are asked for none."""

import zlib

from lingbi.api_errors import ImageError
from lingbi.images.limits import too_large

# The window sizes that make zlib read a gzip member, or zlib's own format, which HTTP calls deflate (RFC 9110, 8.4.1).
WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}


def is_coded(coding: str) -> bool:
    """Whether a Content-Encoding says anything but that the body is sent as it is."""
    return coding.strip().lower() not in ("", "identity")


def decoded(data: bytes, coding: str, max_bytes: int) -> bytes:
    """A body without its Content-Encoding. No more than max_bytes are produced. Raises ImageError."""
    window = WINDOWS.get(coding.strip().lower())
    if window is None:
        raise ImageError(
            f"the picture's host compressed it ({coding[:50]!r}), and only gzip and deflate are undone; "
            "send the picture as a data: URL",
            reason="fetch",
        )
    decoder = zlib.decompressobj(window)
    try:
        plain = decoder.decompress(data, max_bytes + 1)
    except zlib.error:
        raise ImageError(f"the picture's host says that it is {coding!r}, and it is not", reason="fetch") from None
    if len(plain) > max_bytes:
        raise too_large(len(plain), max_bytes)
    if not decoder.eof:
        raise ImageError(f"the picture's host sent only a part of its {coding!r} data", reason="fetch")
    return plain
