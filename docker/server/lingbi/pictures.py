"""The one door for pictures: from a request's URL to an RGB picture, or to a sentence why not.

Local paths are never opened. The hardening of fetching and decoding belongs here too.
"""

import asyncio
import base64
import binascii
import io

import requests
from PIL import Image, ImageOps

MAX_PICTURE_BYTES = 32 << 20
FETCH_TIMEOUT_S = 10
CHUNK_BYTES = 1 << 16


class PictureError(ValueError):
    """A picture of a request cannot be used; the message is for the client."""


async def load_pictures(messages) -> None:
    """Replace every picture URL in chat messages by the decoded PIL picture, in threads.

    Raises PictureError for the first that cannot be used.
    """
    slots = list(_picture_slots(messages))
    loop = asyncio.get_running_loop()
    pictures = [loop.run_in_executor(None, load_picture, slot["url"]) for slot in slots]
    for slot, picture in zip(slots, await asyncio.gather(*pictures), strict=False):
        slot["url"] = picture


def _picture_slots(messages):
    """The {"url": …} objects of the user's messages, where lmdeploy looks for them."""
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content")
        if message.get("role") != "user" or not isinstance(content, list):
            continue
        for part in content:
            if isinstance(part, dict) and part.get("type") == "image_url":
                slot = part.get("image_url")
                if not isinstance(slot, dict) or not isinstance(slot.get("url"), str):
                    raise PictureError('image_url must be an object with a string "url"')
                yield slot


def load_picture(url: str) -> Image.Image:
    """Fetch or decode one picture (data, http or https URL) as RGB, upright by its EXIF tag."""
    if url.startswith("data:"):
        data = _decode_data_url(url)
    elif url.startswith(("http://", "https://")):
        data = _fetch(url)
    else:
        raise PictureError(f"a picture URL must begin with data:, http:// or https://, not {url[:16]!r}")
    try:
        picture = Image.open(io.BytesIO(data))
        return ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise PictureError(
            f"the picture cannot be decoded: {error}".replace(" <_io.BytesIO object", "")[:200]
        ) from None


def _decode_data_url(url: str) -> bytes:
    header, comma, payload = url.partition(",")
    if not comma or not header.endswith(";base64"):
        raise PictureError("a data URL must read data:image/…;base64,…")
    try:
        return base64.b64decode(payload, validate=True)
    except binascii.Error as error:
        raise PictureError(f"the data URL is not valid base64: {error}") from None


def _fetch(url: str) -> bytes:
    try:
        with requests.get(url, stream=True, timeout=FETCH_TIMEOUT_S) as response:
            response.raise_for_status()
            data = b""
            for chunk in response.iter_content(CHUNK_BYTES):
                data += chunk
                if len(data) > MAX_PICTURE_BYTES:
                    raise PictureError(f"the picture is larger than {MAX_PICTURE_BYTES} bytes")
            return data
    except requests.RequestException as error:
        raise PictureError(f"the picture cannot be fetched: {type(error).__name__}") from None
