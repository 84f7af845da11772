"""From chat messages to what the engine takes: token ids, and picture features with their places.

Text of a request is only ever text: what looks like a special token or a picture's place in it is
taken apart before it is tokenised, so that no one but the prompt's form writes these.
"""

import asyncio
import re
from dataclasses import dataclass, field

from lmdeploy.vl.constants import IMAGE_DUMMY_TOKEN_INDEX

from lingbi.api_errors import EngineFault, TooLong
from lingbi.engine.prompt_forms import PromptForm

# Noncharacters of Unicode: no text means anything by them, so none is lost when they are taken out.
IMAGE, BREAK = "\ufdd0", "\ufdd1"
SPECIAL = re.compile(r"\[UNUSED_TOKEN_\d+\]|<\|?/?[A-Za-z_]+\|?>")
CHARACTERS_PER_TOKEN = 20  # no text has so long tokens; more is not worth tokenising
INLINE_CHARACTERS = 4096  # longer text is tokenised in a thread


@dataclass(frozen=True)
class Prompt:
    """ids: token ids with room for the pictures; features: [tokens, hidden] tensors; ranges: their places."""

    ids: list
    features: list = field(default_factory=list)
    ranges: list = field(default_factory=list)

    def inputs(self, step: int = 0) -> dict:
        """Arguments of lmdeploy's async_stream_infer for what comes after `step` tokens; no picture may lie across."""
        rest = [number for number, (begin, _) in enumerate(self.ranges) if begin >= step]
        inputs = {"input_ids": self.ids[step:], "step": step}
        if rest:
            inputs["input_embeddings"] = [self.features[number] for number in rest]
            inputs["input_embedding_ranges"] = [[place - step for place in self.ranges[number]] for number in rest]
        return inputs


def plain(text: str) -> str:
    """Text in which no special token is left whole."""
    text = text.replace(IMAGE, "").replace(BREAK, "")
    return SPECIAL.sub(lambda match: match[0][:2] + BREAK + match[0][2:], text)


def render(messages, form: PromptForm) -> str:
    """The prompt as text, with IMAGE for every image and BREAK within what is no special token.

    A message's images stand before its text, in both forms.
    """
    return form.write([{"role": m.role, "content": _content(m, form.between_images)} for m in messages])


def _content(message, between_images: str) -> str:
    if isinstance(message.content, str):
        return plain(message.content)
    texts = [plain(part.text) for part in message.content if part.type == "text"]
    images = [IMAGE for part in message.content if part.type == "image_url"]
    return between_images.join(images) + "\n".join(texts)


def check_characters(text: str, session_len: int) -> None:
    """Refuse what is far too long before it is tokenised."""
    limit = session_len * CHARACTERS_PER_TOKEN
    if len(text) > limit:
        raise TooLong(
            f"the prompt has {len(text)} characters, and a session of {session_len} tokens holds fewer than {limit}; "
            "shorten it",
            "messages",
        )


async def tokenise(text: str, tokenizer, starts_after_images: bool) -> list:
    """As encode; long text in a thread."""
    if len(text) <= INLINE_CHARACTERS:
        return encode(text, tokenizer, starts_after_images)
    return await asyncio.get_running_loop().run_in_executor(None, encode, text, tokenizer, starts_after_images)


def encode(text: str, tokenizer, starts_after_images: bool) -> list:
    """[ids of a stretch between images, …]. The first begins with the start token; starts_after_images: so do the
    others, except those without text."""
    return [
        _ids(stretch, tokenizer, starts=number == 0 or (starts_after_images and stretch != ""))
        for number, stretch in enumerate(text.split(IMAGE))
    ]


def _ids(stretch: str, tokenizer, starts: bool) -> list:
    pieces = enumerate(stretch.split(BREAK))
    return [token for place, piece in pieces for token in tokenizer.encode(piece, add_bos=starts and place == 0)]


def template_tokens(form: PromptForm, tokenizer) -> int:
    """Prompt tokens that the form puts around one image and a question."""
    text = form.write([{"role": "user", "content": IMAGE}])
    return sum(map(len, encode(text, tokenizer, form.starts_after_images)))


def assemble(stretches: list, features: list) -> Prompt:
    """Put pictures between stretches of text, as many as there are gaps."""
    if len(features) != len(stretches) - 1:
        raise EngineFault(f"{len(features)} pictures were encoded for {len(stretches) - 1} places")
    ids, ranges = list(stretches[0]), []
    for feature, stretch in zip(features, stretches[1:], strict=True):
        ranges.append([len(ids), len(ids) + feature.shape[0]])
        ids += [IMAGE_DUMMY_TOKEN_INDEX] * feature.shape[0] + stretch
    return Prompt(ids, features, ranges)


def answer_room(prompt_tokens: int, asked: int | None, session_len: int) -> int:
    """Most tokens of the answer. Raises TooLong, with both numbers, when prompt and answer do not fit."""
    if prompt_tokens >= session_len:
        raise TooLong(
            f"the prompt has {prompt_tokens} tokens, and prompt and answer together may have {session_len}; "
            "shorten it or send fewer pictures",
            "messages",
        )
    if asked is not None and prompt_tokens + asked > session_len:
        raise TooLong(
            f"the prompt has {prompt_tokens} tokens and {asked} are asked for, {prompt_tokens + asked} together, and "
            f"at most {session_len} are possible; ask for at most {session_len - prompt_tokens}",
            "max_tokens",
        )
    return asked or session_len - prompt_tokens
