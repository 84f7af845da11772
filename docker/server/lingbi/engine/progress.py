"""How far an engine is with a prompt, before its answer begins."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PromptProgress:
    """Tokens of a prompt that are computed, of all that had to be: those that a kept session held do not count."""

    done_tokens: int
    all_tokens: int
