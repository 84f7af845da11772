"""The two forms of a conversation's prompt: as lmdeploy 0.4.1 writes it, and as the published models' own chat() does.

docs/server.md explains how they differ and what is known about each.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from lingbi.model.folder import ModelFolder
from lingbi.model.instruction import instruction_of

Turn = Mapping[str, str]  # role and content
LMDEPLOY, PUBLISHED = "lmdeploy", "published"
BEGIN, END = "[UNUSED_TOKEN_146]", "[UNUSED_TOKEN_145]\n"  # around every turn of the published form


@dataclass(frozen=True)
class PromptForm:
    """How a conversation becomes a prompt.

    write: makes the prompt's text from the turns; between_images: text between two images of a message;
    starts_after_images: whether text after an image begins with the start token, as the whole prompt does.
    """

    name: str
    write: Callable[[Sequence[Turn]], str]
    between_images: str
    starts_after_images: bool


def form_of(name: str, folder: ModelFolder, template: Any) -> PromptForm:
    """The form of this name for a model; template: lmdeploy's chat template for it."""
    return published_form(instruction_of(folder)) if name == PUBLISHED else lmdeploy_form(template)


def lmdeploy_form(template: Any) -> PromptForm:
    """As lmdeploy 0.4.1 does with its chat template: a space between images, and a blank line after every answer."""
    return PromptForm(LMDEPLOY, template.messages2prompt, between_images=" ", starts_after_images=False)


def published_form(instruction: str) -> PromptForm:
    """As the published repositories' chat() does; instruction: the system prompt where a conversation brings none."""
    return PromptForm(PUBLISHED, partial(_published, instruction), between_images="", starts_after_images=True)


def _published(instruction: str, turns: Sequence[Turn]) -> str:
    """The prompt's text; an empty system prompt is left out, as in chat()."""
    if turns[0]["role"] != "system":
        turns = [{"role": "system", "content": instruction}, *turns]
    written = [turn for turn in turns if turn["role"] != "system" or turn["content"]]
    return "".join(f"{BEGIN}{turn['role']}\n{turn['content']}{END}" for turn in written) + f"{BEGIN}assistant\n"
