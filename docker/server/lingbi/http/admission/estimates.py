"""The most that a request may take, from its body alone: a quota is asked before its prompt is made."""

from dataclasses import dataclass

from lingbi.accounts.quotas.decision import Asked
from lingbi.http.protocol.messages import Turn
from lingbi.http.protocol.requests import ChatRequest, CompletionRequest, Sampled
from lingbi.http.protocol.responses import ResponseRequest
from lingbi.images.loader import image_urls

TURN_TOKENS = 16  # what a prompt's form puts around a turn, and around an image
DEFAULT_TOKENS = 16  # of a completion


@dataclass(frozen=True)
class Costs:
    """Tokens of the model: a session's, the largest image's, and those that a prompt's form puts around a question."""

    session: int
    image: int
    template: int


def most_of(body: Sampled, costs: Costs) -> Asked:
    """The most tokens and images of a request. An answer ends with its session."""
    if isinstance(body, ResponseRequest):
        body = body.chat
    if isinstance(body, ChatRequest):
        images = len(image_urls(body.turns))
        prompt = costs.template + _most_tokens(body.turns) + images * (costs.image + TURN_TOKENS)
        answer = body.max_completion_tokens or body.max_tokens or costs.session
        return Asked(min(prompt + answer, costs.session), images)
    assert isinstance(body, CompletionRequest)
    answer = body.max_tokens or DEFAULT_TOKENS
    return Asked(sum(min(_bytes(text) + TURN_TOKENS + answer, costs.session) for text in body.prompt))


def _most_tokens(turns: list[Turn]) -> int:
    texts = (text for turn in turns for text in _texts(turn))
    return sum(map(_bytes, texts)) + TURN_TOKENS * len(turns)


def _texts(turn: Turn) -> list[str]:
    if isinstance(turn.content, str):
        return [turn.content]
    return [part.text for part in turn.content if part.type == "text"]


def _bytes(text: str) -> int:
    """The most tokens of a text: none has less than a byte."""
    return len(text) if text.isascii() else len(text.encode(errors="replace"))
