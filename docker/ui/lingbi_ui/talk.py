"""What happens when a visitor asks, retries, edits, stops: generators whose steps Gradio shows."""

import time
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from lingbi_ui import conversation
from lingbi_ui.api import AnswerFault, Api, Piece
from lingbi_ui.conversation import History, Turn
from lingbi_ui.examples import examples
from lingbi_ui.fence import is_uploaded
from lingbi_ui.images import ImageFault, ImageThreads, check_image, data_url, named
from lingbi_ui.limits import limit_told
from lingbi_ui.models import short_name
from lingbi_ui.settings import Settings
from lingbi_ui.words import language_of, say

SHOW_EVERY_S = 0.05  # each step is sent to the browser, and nobody reads faster than this
OPTIONS = ("temperature", "top_p", "top_k", "repetition_penalty", "max_tokens")
# What a browser sends: Gradio reads an event's annotations, and fails at list[...] and dict[...] on Python 3.10.
Sent = Any
Asked = tuple[
    Any, ...
]  # the numbers in the order of OPTIONS, then the name of the model that was picked, empty for none
Step = tuple[Any, Any]  # what Gradio shows next: (question box, history)


class Talk:
    """The page's events. A history is a list of Gradio's messages; see conversation."""

    def __init__(self, settings: Settings, api: Api):
        self.settings, self.api, self.threads = settings, api, ImageThreads()

    async def ask(self, question: Sent, history: Sent, request: gr.Request, *asked: Sent) -> AsyncIterator[Step]:
        """A new question: yields (question box, history)."""
        language, history = language_asked(request), self._cleaned(history)
        text, files = question["text"].strip(), [Path(file) for file in question["files"]]
        good, complaints = await self._sort(files, history, language, visitor_of(request))
        for complaint in complaints:
            gr.Warning(complaint, title=say(language, "notice"))
        if complaints or not (text or good):
            if not complaints:
                gr.Info(say(language, "empty"), title=say(language, "notice"))
            yield {"text": question["text"], "files": [str(file) for file in good]}, gr.skip()
            return
        async for step in self._ask_new(text or say(language, "describe"), good, history, asked, request):
            yield step

    async def ask_example(
        self, history: Sent, request: gr.Request, choice: gr.SelectData, *asked: Sent
    ) -> AsyncIterator[Step]:
        """A click on an example; its number is all that is trusted of what the browser sends."""
        language, history = language_asked(request), self._cleaned(history)
        known = examples(language)
        if not isinstance(choice.index, int) or not 0 <= choice.index < len(known):
            yield idle_box(), history
            return
        example = known[choice.index]
        async for step in self._ask_new(example["text"], example["files"], history, asked, request):
            yield step

    async def retry(self, history: Sent, request: gr.Request, *asked: Sent) -> AsyncIterator[Step]:
        """The last question again."""
        history = self._cleaned(history)
        async for step in self._ask_again(history, conversation.last_question(history), asked, request):
            yield step

    async def edit(self, history: Sent, request: gr.Request, change: gr.EditData, *asked: Sent) -> AsyncIterator[Step]:
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
        async for step in self._ask_again(history, place, asked, request):
            yield step

    async def _ask_new(
        self, text: str, files: Sequence[Path | str], history: History, asked: Asked, request: gr.Request
    ) -> AsyncIterator[Step]:
        history = [*history, *conversation.user_turns(text, files)]
        yield busy_box(), history
        async for step in self._answer(history, asked, request):
            yield gr.skip(), step
        yield idle_box(), gr.skip()

    async def _ask_again(
        self, history: History, place: int | None, asked: Asked, request: gr.Request
    ) -> AsyncIterator[Step]:
        if place is None:
            yield idle_box(), history
            return
        history = history[: place + 1]
        yield busy_box(keep=True), history
        async for step in self._answer(history, asked, request):
            yield gr.skip(), step
        yield idle_box(keep=True), gr.skip()

    async def _answer(self, history: History, asked: Asked, request: gr.Request) -> AsyncIterator[History]:
        """Histories that grow by the answer, or end with the sentence that says why there is none."""
        text, shown, finish_reason, language = "", 0.0, None, language_asked(request)
        author = ""
        try:
            model = await self.api.choose(asked[-1] if isinstance(asked[-1], str) else "")
            author = short_name(model) if await self.api.offers() else ""
            messages = conversation.api_messages(history, await self._urls(history, visitor_of(request)))
            answer = self.api.answer(model, messages, _options(asked[:-1]), request.username)
            try:
                async for piece in answer:
                    text += piece["text"]
                    finish_reason = piece.get("finish_reason")
                    if not text and (waiting := _waiting(piece, language)):
                        yield [*history, conversation.answer_by(author, f"*{waiting}*")]
                    if text and time.monotonic() - shown > SHOW_EVERY_S:
                        shown = time.monotonic()
                        yield [*history, conversation.answer_by(author, text)]
            finally:
                await (
                    answer.aclose()
                )  # frees the engine as soon as a visitor leaves or stops, not at some garbage collection
            yield [*history, conversation.answer_by(author, text)]
            if finish_reason == "length":
                gr.Info(say(language, "cut"), title=say(language, "notice"))
        except (AnswerFault, ImageFault) as fault:
            told = [conversation.answer_by(author, text)] if text else []
            yield [*history, *told, _fault_turn(fault, language, self.settings.max_pictures)]

    def _cleaned(self, history: History) -> History:
        return conversation.cleaned(history, lambda file: is_uploaded(file, self.settings))

    async def _urls(self, history: History, visitor: str) -> dict[Path, str]:
        """The data URLs of a conversation's images. Raises ImageFault."""
        files = conversation.images_of(history)
        if len(files) > self.settings.max_pictures:
            raise ImageFault("pictures_many")
        return {file: await self.threads.run(visitor, file, partial(data_url, images=len(files))) for file in files}

    async def _sort(
        self, files: list[Path], history: History, language: str, visitor: str
    ) -> tuple[list[Path], list[str]]:
        """(usable files, sentences about the files that are not)."""
        most = self.settings.max_pictures
        complaints, good = list[str](), files[most:]  # more are not taken, so these need no look
        for file in files[:most]:
            try:
                await self.threads.run(visitor, file, partial(check_image, max_mib=self.settings.max_picture_mib))
                good.append(named(file))
            except ImageFault as fault:
                names = {"name": fault.name, "max_picture_mib": self.settings.max_picture_mib}
                complaints.append(say(language, fault.word, **names))
        if len(conversation.images_of(history)) + len(good) > most:
            complaints.append(say(language, "pictures_many", max_pictures=most))
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


def visitor_of(request: gr.Request) -> str:
    """Whose images are worked on in turn: the address that the gateway reports."""
    return request.client.host if request.client else ""


def language_asked(request: gr.Request) -> str:
    """The language of the browser that asks."""
    return language_of(request.headers.get("accept-language", ""))


def _fault_turn(fault: AnswerFault | ImageFault, language: str, max_pictures: int) -> Turn:
    """The sentence that replaces an answer."""
    if isinstance(fault, ImageFault):
        code, kind, names = fault.word, conversation.FAILED, {"name": fault.name, "max_pictures": str(max_pictures)}
    else:
        code, kind, names = fault.code, conversation.REFUSED if fault.is_refused else conversation.FAILED, {}
    limit = limit_told(fault.quota, language, time.time()) if isinstance(fault, AnswerFault) and fault.quota else ""
    return conversation.assistant_turn(f"⚠️ {say(language, code, **names)}{limit}", kind)


def _waiting(piece: Piece, language: str) -> str:
    """What an answer that has not begun waits for; empty where it waits for nothing that is told."""
    if "prompt" in piece:
        return say(language, "reading", percent=round(100 * piece["prompt"]))
    if "waking" not in piece:
        return ""
    share = piece["waking"]
    return say(language, "waking_next") if share is None else say(language, "waking", percent=round(100 * share))


def _options(numbers: tuple[Any, ...]) -> dict[str, float]:
    """The sampling options; a longest answer of 0 means no limit."""
    options = dict(zip(OPTIONS, numbers, strict=True))
    return {name: value for name, value in options.items() if value is not None and (name != "max_tokens" or value)}
