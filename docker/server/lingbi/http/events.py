"""Events of a stream, as the HTML Living Standard has them (9.2.5, 9.2.6)."""

from dataclasses import dataclass

from lingbi.engine.progress import PromptProgress


@dataclass(frozen=True)
class Named:
    """An event with a name, besides its data as JSON."""

    name: str
    data: str


@dataclass(frozen=True)
class Comment:
    """A line of a stream that clients pass over (HTML Living Standard, 9.2.6), and that keeps its connection alive."""

    text: str


Event = str | Named | Comment  # a str is the data of an event that has no name


def prompt_comment(progress: PromptProgress) -> Comment:
    """What a stream says while a prompt is computed, which takes seconds on a CPU."""
    return Comment(f"prompt {progress.done_tokens}/{progress.all_tokens}")


def written(event: Event) -> str:
    """An event as its stream has it."""
    if isinstance(event, Comment):
        return f": {event.text}\n\n"
    if isinstance(event, Named):
        return f"event: {event.name}\ndata: {event.data}\n\n"
    return f"data: {event}\n\n"
