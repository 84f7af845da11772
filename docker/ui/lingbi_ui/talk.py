"""What happens when a visitor asks, retries, edits, stops: generators whose steps Gradio shows."""

import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from lingbi_ui import conversation
from lingbi_ui.api import AnswerFault, Api
from lingbi_ui.conversation import History, Turn
from lingbi_ui.examples import examples
from lingbi_ui.fence import is_uploaded
from lingbi_ui.images import ImageFault, aside, check_image, named
from lingbi_ui.settings import Settings
from lingbi_ui.words import language_of, say

SHOW_EVERY_S = 0.05  # each step is sent to the browser, and nobody reads faster than this
OPTIONS = ("temperature", "top_p", "top_k", "repetition_penalty", "max_tokens")
# What a browser sends: Gradio reads an event's annotations, and fails at list[...] and dict[...] on Python 3.10.
Sent = Any
Numbers = tuple[float | None, ...]  # in the order of OPTIONS
Step = tuple[Any, Any]  # what Gradio shows next: (question box, history)


class Talk:
    """The page's events. A history is a list of Gradio's messages; see conversation."""

    def __init__(self, settings: Settings, api: Api):
        self.settings, self.api = settings, api

    async def ask(
        self, question: Sent, history: Sent, request: gr.Request, *numbers: float | None
    ) -> AsyncIterator[Step]:
        """A new question: yields (question box, history)."""
        language, history = language_asked(request), self._cleaned(history)
        text, files = question["text"].strip(), [Path(file) for file in question["files"]]
        good, complaints = await aside(self._sort, files, history, language)
        for complaint in complaints:
            gr.Warning(complaint, title=say(language, "notice"))
        if complaints or not (text or good):
            if not complaints:
                gr.Info(say(language, "empty"), title=say(language, "notice"))
            yield {"text": question["text"], "files": [str(file) for file in good]}, gr.skip()
            return
        async for step in self._ask_new(text or say(language, "describe"), good, history, numbers, language):
            yield step

    async def ask_example(
        self, history: Sent, request: gr.Request, choice: gr.SelectData, *numbers: float | None
    ) -> AsyncIterator[Step]:
        """A click on an example; its number is all that is trusted of what the browser sends."""
        language, history = language_asked(request), self._cleaned(history)
        known = examples(language)
        if not isinstance(choice.index, int) or not 0 <= choice.index < len(known):
            yield idle_box(), history
            return
        example = known[choice.index]
        async for step in self._ask_new(example["text"], example["files"], history, numbers, language):
            yield step

    async def retry(self, history: Sent, request: gr.Request, *numbers: float | None) -> AsyncIterator[Step]:
        """The last question again."""
        history = self._cleaned(history)
        async for step in self._ask_again(history, conversation.last_question(history), numbers, request):
            yield step

    async def edit(
        self, history: Sent, request: gr.Request, change: gr.EditData, *numbers: float | None
    ) -> AsyncIterator[Step]:
        """A question with new words; everything after it is removed."""
        history, place = self._cleaned(history), change.index[0] if isinstance(change.index, list) else change.index
        text = str(change.value).strip()
        if not text:
            language = language_asked(request)
            gr.Info(say(language, "empty"), title=say(language, "notice"))
            kept = conversation.user_turns(str(change.previous_value), [])
            yield idle_box(), [*history[:place], *kept, *history[place + 1 :]]
            return
        history = [*history[:place], *conversation.user_turns(text, [])]
        async for step in self._ask_again(history, place, numbers, request):
            yield step

    async def _ask_new(
        self, text: str, files: Sequence[Path | str], history: History, numbers: Numbers, language: str
    ) -> AsyncIterator[Step]:
        history = [*history, *conversation.user_turns(text, files)]
        yield busy_box(), history
        async for step in self._answer(history, numbers, language):
            yield gr.skip(), step
        yield idle_box(), gr.skip()

    async def _ask_again(
        self, history: History, place: int | None, numbers: Numbers, request: gr.Request
    ) -> AsyncIterator[Step]:
        if place is None:
            yield idle_box(), history
            return
        history = history[: place + 1]
        yield busy_box(keep=True), history
        async for step in self._answer(history, numbers, language_asked(request)):
            yield gr.skip(), step
        yield idle_box(keep=True), gr.skip()

    async def _answer(self, history: History, numbers: Numbers, language: str) -> AsyncIterator[History]:
        """Histories that grow by the answer, or end with the sentence that says why there is none."""
        text, shown, finish_reason = "", 0.0, None
        try:
            messages = await aside(conversation.api_messages, history)
            answer = self.api.answer(messages, _options(numbers))
            try:
                async for piece in answer:
                    text += piece["text"]
                    finish_reason = piece.get("finish_reason")
                    if not text and "prompt" in piece:
                        reading = say(language, "reading", percent=round(100 * piece["prompt"]))
                        yield [*history, conversation.assistant_turn(f"*{reading}*")]
                    if text and time.monotonic() - shown > SHOW_EVERY_S:
                        shown = time.monotonic()
                        yield [*history, conversation.assistant_turn(text)]
            finally:
                await (
                    answer.aclose()
                )  # frees the engine as soon as a visitor leaves or stops, not at some garbage collection
            yield [*history, conversation.assistant_turn(text)]
            if finish_reason == "length":
                gr.Info(say(language, "cut"), title=say(language, "notice"))
        except (AnswerFault, ImageFault) as fault:
            told = [conversation.assistant_turn(text)] if text else []
            yield [*history, *told, _fault_turn(fault, language)]

    def _cleaned(self, history: History) -> History:
        return conversation.cleaned(history, lambda file: is_uploaded(file, self.settings))

    def _sort(self, files: list[Path], history: History, language: str) -> tuple[list[Path], list[str]]:
        """(usable files, sentences about the files that are not)."""
        good, complaints = [], []
        for file in files:
            try:
                check_image(file, self.settings.max_picture_mib)
                good.append(named(file))
            except ImageFault as fault:
                names = {"name": fault.name, "max_picture_mib": self.settings.max_picture_mib}
                complaints.append(say(language, fault.word, **names))
        if conversation.count_images(history) + len(good) > self.settings.max_pictures:
            complaints.append(say(language, "pictures_many", max_pictures=self.settings.max_pictures))
        return good, complaints


def add_photo(photo: str | None, question: Sent) -> tuple[Any, Any]:
    """Add a photo from the camera to the question; yields (question box, camera)."""
    if not photo:
        return gr.skip(), gr.skip()
    return {"text": question["text"], "files": [*question["files"], photo]}, None


def tell_failure(request: gr.Request) -> gr.MultimodalTextbox:
    """An unexpected error: a sentence says so, the box can be used again, and the traceback is in the log."""
    language = language_asked(request)
    gr.Warning(say(language, "failed"), title=say(language, "notice"))
    return idle_box()


def busy_box(keep: bool = False) -> gr.MultimodalTextbox:
    """The question box while an answer is streaming, which can be stopped."""
    return gr.MultimodalTextbox(submit_btn=False, stop_btn=True, **({} if keep else {"value": None}))


def idle_box(keep: bool = True) -> gr.MultimodalTextbox:
    """The question box when no answer is streaming."""
    return gr.MultimodalTextbox(submit_btn=True, stop_btn=False, **({} if keep else {"value": None}))


def language_asked(request: gr.Request) -> str:
    """The language of the browser that asks."""
    return language_of(request.headers.get("accept-language", ""))


def _fault_turn(fault: AnswerFault | ImageFault, language: str) -> Turn:
    """The sentence that replaces an answer."""
    if isinstance(fault, ImageFault):
        code, kind, names = fault.word, conversation.FAILED, {"name": fault.name}
    else:
        code, kind, names = fault.code, conversation.REFUSED if fault.is_refused else conversation.FAILED, {}
    return conversation.assistant_turn(f"⚠️ {say(language, code, **names)}", kind)


def _options(numbers: Numbers) -> dict[str, float]:
    """The sampling options; a longest answer of 0 means no limit."""
    options = dict(zip(OPTIONS, numbers, strict=True))
    return {name: value for name, value in options.items() if value is not None and (name != "max_tokens" or value)}
