"""Chat messages with images, as a client sends them."""

import base64
import io
from typing import Any

from PIL.Image import Image


def user_message(text: str, *urls: str) -> dict[str, Any]:
    """A user's message with text, and images by URL."""
    images = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {"role": "user", "content": [{"type": "text", "text": text}, *images]}


def data_url(image: Image, kind: str = "PNG") -> str:
    """An image as a data URL, encoded as PNG or JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, format=kind)
    return f"data:image/{kind.lower()};base64," + base64.b64encode(buffer.getvalue()).decode()
