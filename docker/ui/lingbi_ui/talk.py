"""What happens when a visitor asks, retries, edits, stops: generators that Gradio shows step by step."""

import time
from pathlib import Path

import gradio as gr

from lingbi_ui import conversation
from lingbi_ui.api import AnswerFault, Api
from lingbi_ui.pictures import PictureFault, check_picture
from lingbi_ui.settings import Settings
from lingbi_ui.words import language_of, say

SHOW_EVERY_S = 0.05  # each step is sent to the browser; faster than this nobody reads
OPTIONS = ("temperature", "top_p", "top_k", "repetition_penalty", "max_tokens")


class Talk:
    """The page's events. A history is a list of Gradio's messages; see conversation."""

    def __init__(self, settings: Settings, api: Api):
        self.settings, self.api = settings, api

    async def ask(self, question: dict, history: list, request: gr.Request, *numbers):
        """A new question: yields (question box, history)."""
        language = _language(request)
        text, files = question["text"].strip(), [Path(file) for file in question["files"]]
        good, complaints = self._sort(files, history, language)
        for complaint in complaints:
            gr.Warning(complaint, title=say(language, "notice"))
        if complaints or not (text or good):
            if not complaints:
                gr.Info(say(language, "empty"), title=say(language, "notice"))
            yield {"text": question["text"], "files": [str(file) for file in good]}, gr.skip()
            return
        history = [*history, *conversation.user_turns(text or say(language, "describe"), good)]
        yield busy_box(), history
        async for step in self._answer(history, numbers, language):
            yield gr.skip(), step
        yield idle_box(), gr.skip()

    async def ask_example(self, history: list, request: gr.Request, example: gr.SelectData, *numbers):
        """A click on an example."""
        files = [file["path"] if isinstance(file, dict) else file for file in example.value.get("files", [])]
        question = {"text": example.value["text"], "files": files}
        async for step in self.ask(question, history, request, *numbers):
            yield step

    async def retry(self, history: list, request: gr.Request, *numbers):
        """The last question again."""
        async for step in self._ask_again(history, conversation.last_question(history), numbers, request):
            yield step

    async def edit(self, history: list, request: gr.Request, change: gr.EditData, *numbers):
        """A question with other words: what came after it goes."""
        place = change.index[0] if isinstance(change.index, tuple | list) else change.index
        history = [*history[:place], *conversation.user_turns(str(change.value).strip(), [])]
        async for step in self._ask_again(history, place, numbers, request):
            yield step

    async def _ask_again(self, history: list, place: int | None, numbers: tuple, request: gr.Request):
        if place is None:
            yield idle_box(), history
            return
        history = history[: place + 1]
        yield busy_box(keep=True), history
        async for step in self._answer(history, numbers, _language(request)):
            yield gr.skip(), step
        yield idle_box(keep=True), gr.skip()

    async def _answer(self, history: list, numbers: tuple, language: str):
        """Histories that grow by the answer, or end with the sentence that says why there is none."""
        text, shown, finish_reason = "", 0.0, None
        try:
            answer = self.api.answer(conversation.api_messages(history), _options(numbers))
            try:
                async for piece in answer:
                    text += piece["text"]
                    finish_reason = piece.get("finish_reason")
                    if text and time.monotonic() - shown > SHOW_EVERY_S:
                        shown = time.monotonic()
                        yield [*history, conversation.assistant_turn(text)]
            finally:
                await answer.aclose()  # a visitor who left or stopped frees the engine now, not at some collection
            yield [*history, conversation.assistant_turn(text)]
            if finish_reason == "length":
                gr.Info(say(language, "cut"), title=say(language, "notice"))
        except AnswerFault as fault:
            sentence = say(language, fault.code, message=fault.message)
            kind = conversation.REFUSED if fault.is_refused else conversation.FAILED
            told = [conversation.assistant_turn(text)] if text else []
            yield [*history, *told, conversation.assistant_turn(f"⚠️ {sentence}", kind)]

    def _sort(self, files: list, history: list, language: str) -> tuple:
        """(usable files, sentences about the others)."""
        good, complaints = [], []
        for file in files:
            try:
                check_picture(file, self.settings.max_picture_mib)
                good.append(file)
            except PictureFault as fault:
                names = {"name": file.name, "max_picture_mib": self.settings.max_picture_mib}
                complaints.append(say(language, fault.word, **names))
        if conversation.count_pictures(history) + len(good) > self.settings.max_pictures:
            complaints.append(say(language, "pictures_many", max_pictures=self.settings.max_pictures))
        return good, complaints


def add_photo(photo: str | None, question: dict):
    """A photo that the camera took joins the question; yields (question box, camera)."""
    if not photo:
        return gr.skip(), gr.skip()
    return {"text": question["text"], "files": [*question["files"], photo]}, None


def busy_box(keep: bool = False):
    """The question box while an answer comes: it can be stopped."""
    return gr.MultimodalTextbox(submit_btn=False, stop_btn=True, **({} if keep else {"value": None}))


def idle_box(keep: bool = True):
    """The question box when nothing comes."""
    return gr.MultimodalTextbox(submit_btn=True, stop_btn=False, **({} if keep else {"value": None}))


def _language(request: gr.Request) -> str:
    return language_of(request.headers.get("accept-language", ""))


def _options(numbers: tuple) -> dict:
    """The sampling options; a longest answer of 0 is none."""
    options = dict(zip(OPTIONS, numbers, strict=True))
    return {name: value for name, value in options.items() if value is not None and (name != "max_tokens" or value)}
