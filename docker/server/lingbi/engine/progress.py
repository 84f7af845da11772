"""How far an answer is: what the engine has made, and what is passed on of it."""

import asyncio
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class PromptProgress:
    """Tokens of a prompt computed so far, and all that must be; tokens that a kept session already held do not count."""

    done_tokens: int
    all_tokens: int

    def after(self, tokens: int) -> "PromptProgress":
        """The progress of a prompt of which so many tokens were computed before."""
        return PromptProgress(self.done_tokens + tokens, self.all_tokens + tokens)


@dataclass
class Step:
    """The next part of an answer: its new text and tokens, and the finish reason if it ended.

    prompt: the progress of the prompt, in steps before the first token.
    """

    text: str
    token_ids: list[int]
    logprobs: list[dict[int, float]] | None = None
    finish_reason: str | None = None
    prompt: PromptProgress | None = None


@dataclass
class Progress:
    """The newest output of the engine; each output holds the whole answer so far, so older ones are dropped.

    prompt: the progress of the prompt, until it has been passed on.
    """

    output: Any = None
    prompt: PromptProgress | None = None
    error: Exception | None = None
    is_done: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)
