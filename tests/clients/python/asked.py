"""What a client is asked, from standard input, and what it tells of the answers, to standard output; both JSON."""

import json
import sys

asked = json.load(sys.stdin)
ANSWER_TOKENS = 32
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a place",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": []},
    },
}


def image_turn() -> dict:
    """The question about the image, as a message of chat completions."""
    parts = [
        {"type": "text", "text": asked["question"]},
        {"type": "image_url", "image_url": {"url": asked["image"]}},
    ]
    return {"role": "user", "content": parts}


def tell(**answers) -> None:
    print(json.dumps(answers, ensure_ascii=False))
