"""How much of a prompt an engine has computed before its answer begins."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PromptProgress:
    """Tokens of a prompt computed so far, and all that must be; tokens that a kept session already held do not count."""

    done_tokens: int
    all_tokens: int
