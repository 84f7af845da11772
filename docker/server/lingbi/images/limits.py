"""The refusal that every way of bringing an image shares."""

from lingbi.api_errors import ImageError


def too_large(size: int, limit: int) -> ImageError:
    """The refusal of an image with too many bytes."""
    return ImageError(f"the picture has {size} bytes or more, and at most {limit} are taken", reason="bytes")
