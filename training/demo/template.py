"""Conversations as token ids, made by lmdeploy's own chat template and the model folder's tokenizer."""

from collections.abc import Callable, Sequence
from typing import Any

from lmdeploy.model import MODELS

Encode = Callable[[str], list[int]]
Pair = tuple[str, str | None]  # a question and its answer
Message = dict[str, Any]

IMAGE_TOKEN = "<IMAGE_TOKEN>"
NAME = "internlm-xcomposer2"
TEMPLATE = MODELS.get(NAME)()
STOP, START = "[UNUSED_TOKEN_145]", "[UNUSED_TOKEN_146]"
# stands for the ids of an image's tokens; the value tells which image
FIRST_PICTURE = -1
IGNORED = -100
BOS = 1


def messages_of(turns: Sequence[Pair], n_pictures: int = 1, picture_turn: int = 0) -> list[Message]:
    """Chat messages of question and answer pairs; the last answer may be None. Images come before the question of one turn."""
    messages: list[Message] = []
    for i, (question, answer) in enumerate(turns):
        pictures = " ".join([IMAGE_TOKEN] * n_pictures) if i == picture_turn else ""
        messages.append(dict(role="user", content=pictures + question))
        if answer is not None:
            messages.append(dict(role="assistant", content=answer))
    return messages


def encode_prompt(encode: Encode, messages: list[Message], picture_tokens: int, template: Any = TEMPLATE) -> list[int]:
    """Ids of a prompt as lmdeploy makes them; the tokens of image i are -1 - i."""
    ids: list[int] = []
    for i, text in enumerate(template.messages2prompt(messages).split(IMAGE_TOKEN)):
        if i:
            ids += [FIRST_PICTURE - (i - 1)] * picture_tokens
        ids += encode(text)
    return ids


def encode_conversation(
    encode: Encode,
    turns: Sequence[tuple[str, str]],
    picture_tokens: int,
    picture_turn: int = 0,
    n_pictures: int = 1,
    template: Any = TEMPLATE,
) -> tuple[list[int], list[int], list[int]]:
    """(ids, labels, turn of each token) of a whole conversation, without `<s>`.

    Only answers and their stop symbol are learnt. The turn is that of the answer that a token belongs to, otherwise -1.
    """
    prompt = encode_prompt(encode, messages_of(turns, n_pictures, picture_turn)[:-1], picture_tokens, template)
    ids = prompt + encode(turns[-1][1] + STOP)
    stop, assistant = encode(STOP)[0], encode(f"{START}assistant\n")
    labels, places, turn, i = [IGNORED] * len(ids), [-1] * len(ids), 0, 0
    while i < len(ids):
        i += 1
        if ids[i - len(assistant) : i] == assistant and i >= len(assistant):
            while i < len(ids):
                labels[i], places[i] = ids[i], turn
                i += 1
                if ids[i - 1] == stop:
                    break
            turn += 1
    return ids, labels, places
