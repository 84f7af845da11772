"""A conversation in the page's form and in the API's form.

The page's is a list of Gradio's messages: {"role", "content": [parts], "metadata"}; a part is
{"type": "text", "text"} or {"type": "file", "file": {"path"}}. A failure is a
message whose metadata has an id: FAILED for what may work later, REFUSED for a question that cannot.
Where there are several models, an answer's id is BY with the model's name, and its text begins with that name.
"""

import mimetypes
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Part = dict[str, Any]
Turn = dict[str, Any]
History = list[Turn]
Message = dict[str, Any]  # of the API
USER, ASSISTANT = "user", "assistant"
FAILED, REFUSED, BY = "failed", "refused", "by "
MOST_NAME = 200  # characters of a model's name
BREAK = "\u200b"  # without width; the page shows Markdown, so a question about <table> would be one with a table in it
TAG = re.compile(r"<(?=[A-Za-z/!?])")


def user_turns(text: str, files: Sequence[Path | str]) -> History:
    """A question and its pictures (paths): two turns, because Gradio replaces a whole turn when its text is edited."""
    images = [{"role": USER, "content": [_file_part(Path(file)) for file in files]}] if files else []
    return [*images, {"role": USER, "content": [{"type": "text", "text": TAG.sub(f"<{BREAK}", text)}]}]


def _file_part(file: Path) -> Part:
    kind = mimetypes.guess_type(file.name)[0] or "image/png"
    return {"type": "file", "file": {"path": str(file), "mime_type": kind}, "alt_text": file.name}


def assistant_turn(text: str, fault: str | None = None) -> Turn:
    """An answer, or the sentence that replaces one."""
    turn: Turn = {"role": ASSISTANT, "content": [{"type": "text", "text": text}]}
    return turn | {"metadata": {"id": fault}} if fault else turn


def answer_by(name: str, text: str) -> Turn:
    """An answer that says which model gave it; name: empty where there is only one."""
    return assistant_turn(label_of(name) + text, BY + name) if name else assistant_turn(text)


def label_of(name: str) -> str:
    """What an answer begins with that says who gave it, as Markdown."""
    return f"**`{name}`**\n\n"


def cleaned(history: History, is_uploaded: Callable[[Path], bool]) -> History:
    """The conversation that a browser sent, rebuilt from its text and from the files that it uploaded.

    is_uploaded: whether a path is in the folder of uploads. Nothing else from a browser is trusted.
    """
    found = []
    for turn in history:
        parts = [kept for kept in (_cleaned_part(part, is_uploaded) for part in turn["content"]) if kept]
        kept_id = fault_of(turn) or (author_of(turn) and BY + author_of(turn))
        if parts and turn["role"] in (USER, ASSISTANT):
            found.append({"role": turn["role"], "content": parts} | ({"metadata": {"id": kept_id}} if kept_id else {}))
    return found


def _cleaned_part(part: Part, is_uploaded: Callable[[Path], bool]) -> Part | None:
    if part["type"] == "text":
        return {"type": "text", "text": part["text"]}
    file = Path(part["file"]["path"]) if part["type"] == "file" else None
    return _file_part(file) if file and is_uploaded(file) else None


def text_of(turn: Turn) -> str:
    return "\n".join(part["text"] for part in turn["content"] if part["type"] == "text")


def files_of(turn: Turn) -> list[Path]:
    return [Path(part["file"]["path"]) for part in turn["content"] if part["type"] == "file"]


def fault_of(turn: Turn) -> str | None:
    found = (turn.get("metadata") or {}).get("id")
    return found if found in (FAILED, REFUSED) else None


def author_of(turn: Turn) -> str:
    """The model that an answer says it is by; empty if it says nothing."""
    found = (turn.get("metadata") or {}).get("id")
    if not isinstance(found, str) or not found.startswith(BY) or len(found) > MOST_NAME or "`" in found:
        return ""
    return found.removeprefix(BY)


def question_of(turn: Turn) -> str:
    """A question's own words."""
    return text_of(turn).replace(f"<{BREAK}", "<")


def answer_of(turn: Turn) -> str:
    """An answer's own words."""
    return text_of(turn).removeprefix(label_of(author_of(turn)))


def usable(history: History) -> History:
    """The turns that the model should see: no failures, and no question that was refused."""
    kept: History = []
    for turn in history:
        fault = fault_of(turn)
        if fault == REFUSED:
            while kept and kept[-1]["role"] == USER:
                kept.pop()
        elif not fault:
            kept.append(turn)
    return kept


def images_of(history: History) -> list[Path]:
    """The images that the model should see."""
    return [file for turn in usable(history) for file in files_of(turn)]


def api_messages(history: History, urls: Mapping[Path, str]) -> list[Message]:
    """The API's messages; a visitor's consecutive turns become one. urls: the data URL of each image."""
    messages: list[Message] = []
    for turn in usable(history):
        if turn["role"] == ASSISTANT:
            messages.append({"role": ASSISTANT, "content": answer_of(turn)})
            continue
        parts: list[Part] = [{"type": "image_url", "image_url": {"url": urls[file]}} for file in files_of(turn)]
        if question := question_of(turn):
            parts.append({"type": "text", "text": question})
        if messages and messages[-1]["role"] == USER:
            messages[-1]["content"] += parts
        else:
            messages.append({"role": USER, "content": parts})
    return messages


def last_question(history: History) -> int | None:
    """The index of the last question."""
    places = [place for place, turn in enumerate(history) if turn["role"] == USER]
    return places[-1] if places else None
