"""The questions of a benchmark: about new images, about text, and chats about one image."""

import base64
import io
import random
from typing import Any

from PIL import Image

PROMPT = "请描述图中内容"
SIZE = (640, 480)
JPEG_QUALITY = 85
COARSE = 24  # side of the noise that is scaled up to an image, which then has the detail and file size of a photograph
# About a hundred tokens with the published tokenizer.
TEXT = (
    # The number comes first, so that no two texts share a prefix.
    "Question {number}. A laboratory runs its own servers for a vision language model. Students ask it about pictures of experiments, "
    "charts and slides, and researchers call it from their programs. Write what should be watched so that everybody "
    "gets an answer in time, what may go wrong on a Friday evening, and who should then be told, in plain words. "
    "Begin with what matters most to a person who waits in front of a screen."
)
FOLLOW_UPS = ("What is in the foreground?", "Which colours are there?", "请再说一遍")
KINDS = ("image", "repeat", "text", "chat")
Turn = str | list[dict[str, Any]]  # a user message: a text, or parts with an image


class Questions:
    """Bodies of chat completions; `seed` makes them and their images unique."""

    def __init__(self, kind: str, model: str, tokens: int, seed: int, fixed_length: bool):
        self.kind, self.random, self.number = kind, random.Random(seed), 0
        self.options: dict[str, Any] = {"model": model, "max_tokens": tokens, "temperature": 0, "stream": True}
        if fixed_length:
            self.options["ignore_eos"] = True
        self.one_image = image_url(self.random)

    def next_talk(self) -> list[Turn]:
        """The user's turns in one conversation: one turn, or several about one image (chat)."""
        self.number += 1
        if self.kind == "text":
            return [TEXT.format(number=self.random.randrange(10**9))]
        url = self.one_image if self.kind == "repeat" else image_url(self.random)
        first: Turn = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": PROMPT}]
        return [first, *FOLLOW_UPS] if self.kind == "chat" else [first]

    def body(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        """A request with these messages."""
        return self.options | {"messages": messages}


def image_url(source: random.Random) -> str:
    """A data URL of a new JPEG."""
    noise = Image.frombytes("RGB", (COARSE, COARSE), source.randbytes(COARSE * COARSE * 3))
    file = io.BytesIO()
    noise.resize(SIZE, Image.Resampling.BICUBIC).save(file, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
