"""Turns chat messages into the engine's input: token ids, and image features with their positions.

The text of a request is always plain text: anything in it that looks like a special token or an image's placeholder is
split before it is tokenised, so that only the prompt's form can write these.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lmdeploy.vl.constants import IMAGE_DUMMY_TOKEN_INDEX

from lingbi.api_errors import EngineFault, TooLong
from lingbi.engine.prompt_forms import PromptForm

if TYPE_CHECKING:
    from torch import Tensor

# Unicode noncharacters: they have no meaning in text, so removing them loses nothing.
IMAGE, BREAK = "\ufdd0", "\ufdd1"
SPECIAL = re.compile(r"\[UNUSED_TOKEN_\d+\]|<\|?/?[A-Za-z_]+\|?>")
CHARACTERS_PER_TOKEN = 20  # no text has tokens this long on average; anything longer is not worth tokenising
COUNTED_CHARACTERS = 512  # tokenised at once while tokens are counted
CUT_TOKENS = 16  # by which a piece of a text may have more tokens than it has within the text


@dataclass(frozen=True)
class Prompt:
    """ids: token ids with placeholders for the images; features: tensors [tokens, hidden]; ranges: [begin, end] of each."""

    ids: list[int]
    features: "list[Tensor]" = field(default_factory=list)
    ranges: list[list[int]] = field(default_factory=list)

    def inputs(self, step: int = 0) -> dict[str, Any]:
        """Arguments of lmdeploy's async_stream_infer for the tokens after `step`."""
        rest = [(number, begin, end) for number, (begin, end) in enumerate(self.ranges) if end > step]
        inputs: dict[str, Any] = {"input_ids": self.ids[step:], "step": step}
        if rest:
            inputs["input_embeddings"] = [self.features[number][max(step - begin, 0) :] for number, begin, _ in rest]
            inputs["input_embedding_ranges"] = [[max(begin - step, 0), end - step] for _, begin, end in rest]
        return inputs

    def until(self, end: int) -> "Prompt":
        """The first `end` tokens of the prompt."""
        ranges = [[first, min(last, end)] for first, last in self.ranges if first < end]
        features = [feature[: last - first] for feature, (first, last) in zip(self.features, ranges, strict=False)]
        return Prompt(self.ids[:end], features, ranges)


def plain(text: str) -> str:
    """The text with every special token in it split."""
    text = text.replace(IMAGE, "").replace(BREAK, "")
    return SPECIAL.sub(lambda match: match[0][:2] + BREAK + match[0][2:], text)


def render(messages: Sequence[Any], form: PromptForm) -> str:
    """The prompt as text, with IMAGE for every image and BREAK where `plain` split the text of a message.

    In both forms a message's images stand before its text.
    """
    return form.write([{"role": m.role, "content": _content(m, form.between_images)} for m in messages])


def _content(message: Any, between_images: str) -> str:
    if isinstance(message.content, str):
        return plain(message.content)
    texts = [plain(part.text) for part in message.content if part.type == "text"]
    images = [IMAGE for part in message.content if part.type == "image_url"]
    return between_images.join(images) + "\n".join(texts)


def characters_of(messages: Sequence[Any]) -> int:
    """The characters of all texts of chat messages."""
    return sum(
        len(message.content)
        if isinstance(message.content, str)
        else sum(len(part.text) for part in message.content if part.type == "text")
        for message in messages
    )


def parts_of(messages: Sequence[Any]) -> int:
    """The number of texts and images in chat messages."""
    return sum(1 if isinstance(message.content, str) else len(message.content) for message in messages)


def check_characters(characters: int, session_len: int) -> None:
    """Refuse text that is far too long, before anything else is done with it. Raises TooLong."""
    limit = session_len * CHARACTERS_PER_TOKEN
    if characters > limit:
        raise TooLong(
            f"This model's maximum context length is {session_len} tokens, which hold fewer than {limit} characters, "
            f"and the prompt has {characters}; shorten it"
        )


def check_tokens(text: str, tokenizer: Any, session_len: int) -> None:
    """Refuse text that has clearly more tokens than a session, before all of it is tokenised. Raises TooLong.

    The tokeniser holds the interpreter's lock until it has read a whole text, for seconds where every character is
    several tokens; so the tokens of short pieces are counted first, until there are too many.
    """
    most = session_len + session_len // 4
    if len(text.encode(errors="replace")) <= most:  # no token has less than a byte
        return
    for begin in range(0, len(text), COUNTED_CHARACTERS):
        most -= len(tokenizer.encode(text[begin : begin + COUNTED_CHARACTERS], add_bos=False)) - CUT_TOKENS
        if most < 0:
            raise TooLong(
                f"This model's maximum context length is {session_len} tokens, prompt and answer together, and the first "
                f"{min(begin + COUNTED_CHARACTERS, len(text))} of the prompt's {len(text)} characters have more; shorten it"
            )


def encode(text: str, tokenizer: Any, starts_after_images: bool) -> list[list[int]]:
    """The ids of each stretch of text between images. The first stretch begins with the start token; with
    starts_after_images the others do too, except empty ones."""
    return [
        _ids(stretch, tokenizer, starts=number == 0 or (starts_after_images and stretch != ""))
        for number, stretch in enumerate(text.split(IMAGE))
    ]


def _ids(stretch: str, tokenizer: Any, starts: bool) -> list[int]:
    pieces = enumerate(stretch.split(BREAK))
    return [token for place, piece in pieces for token in tokenizer.encode(piece, add_bos=starts and place == 0)]


def template_tokens(form: PromptForm, tokenizer: Any) -> int:
    """Prompt tokens that the form puts around one image and a question."""
    text = form.write([{"role": "user", "content": IMAGE}])
    return sum(map(len, encode(text, tokenizer, form.starts_after_images)))


@dataclass(frozen=True)
class Draft:
    """A conversation's tokens, with a gap for each of its images.

    stretches: token ids of each stretch of text; an image goes between every two.
    """

    stretches: list[list[int]]

    def filled(self, features: "list[Tensor]") -> Prompt:
        """The prompt with these features, [tokens, hidden] each, in its gaps. Raises EngineFault as `assemble`."""
        return assemble(self.stretches, features)


def assemble(stretches: list[list[int]], features: "list[Tensor]") -> Prompt:
    """Put one image into each gap between stretches of text. Raises EngineFault if their numbers do not match."""
    if len(features) != len(stretches) - 1:
        raise EngineFault(f"{len(features)} pictures were encoded for {len(stretches) - 1} places")
    ids, ranges = list(stretches[0]), list[list[int]]()
    for feature, stretch in zip(features, stretches[1:], strict=True):
        ranges.append([len(ids), len(ids) + feature.shape[0]])
        ids += [IMAGE_DUMMY_TOKEN_INDEX] * feature.shape[0] + stretch
    return Prompt(ids, features, ranges)


def answer_room(prompt_tokens: int, asked: int | None, session_len: int) -> int:
    """The most tokens that the answer may have: what is asked for, as far as the session has room.

    Raises TooLong, with both numbers, for a prompt that leaves no room; clients know it by its first words.
    """
    if prompt_tokens >= session_len:
        raise TooLong(
            f"This model's maximum context length is {session_len} tokens, prompt and answer together, and the prompt "
            f"has {prompt_tokens}; shorten it or send fewer pictures"
        )
    room = session_len - prompt_tokens
    return room if asked is None else min(asked, room)
