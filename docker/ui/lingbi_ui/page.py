"""The page: its layout and its event handlers."""

import json
from pathlib import Path

import gradio as gr

from lingbi_ui.examples import examples
from lingbi_ui.images import MIB
from lingbi_ui.models import models_list
from lingbi_ui.settings import Settings
from lingbi_ui.talk import Talk, add_photo, idle_box, language_asked, tell_failure
from lingbi_ui.words import WORDS, in_both, translations

FOLDER = Path(__file__).parent
FONTS = ("system-ui", "-apple-system", "Segoe UI", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "sans-serif")
MONOSPACED = ("ui-monospace", "SFMono-Regular", "Consolas", "Noto Sans Mono CJK SC", "monospace")
PHOTOS_AT_ONCE = 8
I18N = gr.I18n(**translations())


def build(settings: Settings, talk: Talk) -> gr.Blocks:
    """The page as Gradio's Blocks."""
    with gr.Blocks(title="lingbi · 灵笔", fill_height=True, analytics_enabled=False) as page:
        gr.HTML(header(has_logins=settings.login_file is not None), elem_id="header", container=False, padding=False)
        chat = _chat()
        box = _question_box()
        with gr.Sidebar(open=False, position="right", width=340, elem_id="side"):
            new = gr.Button(I18N("new"), elem_id="new")
            download = gr.Button(I18N("download"), elem_id="download")
            asked = [*_options(), gr.Textbox(visible=False)]  # page.js gives the name of the model that was picked
            with gr.Accordion(I18N("camera"), open=False, elem_id="camera"):
                camera = gr.Image(
                    sources=["webcam"],
                    type="filepath",
                    image_mode=None,  # any other, and Gradio decodes the photo and writes another
                    show_label=False,
                    buttons=[],
                    elem_id="webcam",
                    height=260,
                )
            with gr.Accordion(I18N("models"), open=False, elem_id="models"):
                gr.HTML(models_list(), container=False, padding=False)
        _wire(talk, settings, chat, box, asked, new, download, camera)
        page.load(_examples, None, chat, show_progress="hidden", api_visibility="private")
    return page


def _wire(
    talk: Talk,
    settings: Settings,
    chat: gr.Chatbot,
    box: gr.MultimodalTextbox,
    asked: list[gr.Component],
    new: gr.Button,
    download: gr.Button,
    camera: gr.Image,
) -> None:
    shown = {
        "outputs": [box, chat],
        "show_progress": "hidden",
        "concurrency_limit": settings.answers_at_once,
        "concurrency_id": "answers",
        "trigger_mode": "once",
        "api_visibility": "private",
    }
    # Without the queue only what takes nothing from a browser; guard/gate.py sees to that.
    quiet = {"show_progress": "hidden", "queue": False, "api_visibility": "private"}
    photo = {"show_progress": "hidden", "concurrency_limit": PHOTOS_AT_ONCE, "api_visibility": "private"}
    asking = [
        event(work, inputs, js=with_picked(len(inputs)), **shown)
        for event, work, inputs in (
            (box.submit, talk.ask, [box, chat, *asked]),
            (chat.example_select, talk.ask_example, [chat, *asked]),
            (chat.retry, talk.retry, [chat, *asked]),
            (chat.edit, talk.edit, [chat, *asked]),
        )
    ]
    for event in asking:
        event.failure(tell_failure, None, box, **quiet)
    box.stop(idle_box, None, box, cancels=asking, **quiet)
    new.click(lambda: (idle_box(), []), None, [box, chat], cancels=asking, **quiet)
    chat.clear(idle_box, None, box, cancels=asking, **quiet)
    camera.input(add_photo, [camera, box], [box, camera], **photo)
    download.click(None, [chat], None, js="(turns) => window.lingbi.download(turns)", api_visibility="private")


def with_picked(inputs: int) -> str:
    """A function for the browser that puts the picked model's name into the last of so many inputs; outputs come after them."""
    return f"(...sent) => [...sent.slice(0, {inputs - 1}), window.lingbi.picked()]"


def _chat() -> gr.Chatbot:
    return gr.Chatbot(
        elem_id="chat",
        label=I18N("conversation"),
        show_label=False,
        container=False,
        scale=1,
        height=None,
        layout="bubble",
        editable="user",
        buttons=["copy"],
        feedback_options=None,
        allow_tags=False,
        group_consecutive_messages=False,  # Gradio cannot edit a group that holds an image
        latex_delimiters=[
            {"left": "$$", "right": "$$", "display": True},
            {"left": "\\[", "right": "\\]", "display": True},
            {"left": "\\(", "right": "\\)", "display": False},
        ],
        placeholder=both("welcome", "h2") + both("welcome_more", "p"),
    )


def _question_box() -> gr.MultimodalTextbox:
    return gr.MultimodalTextbox(
        elem_id="question",
        label=I18N("question"),
        placeholder=I18N("question"),
        show_label=False,
        sources=["upload"],
        file_count="multiple",  # no file_types: by them Gradio judges a file's name, and says so in English only
        max_lines=8,
        autofocus=True,
    )


def _options() -> list[gr.Component]:
    """Sampling controls, in the order of talk.OPTIONS, with the API's own ranges and defaults."""
    with gr.Accordion(I18N("options"), open=True, elem_id="options"):
        return [
            gr.Slider(0, 2, 0.7, step=0.05, label=I18N("temperature"), info=I18N("temperature_info")),
            gr.Slider(0, 1, 1.0, step=0.01, label=I18N("top_p"), info=I18N("top_p_info")),
            gr.Slider(0, 1024, 40, step=1, label=I18N("top_k"), info=I18N("top_k_info")),
            gr.Number(
                1.0,
                label=I18N("repetition_penalty"),
                info=I18N("repetition_penalty_info"),
                minimum=0.01,
                maximum=100,
                step=0.05,
            ),
            gr.Number(
                0, label=I18N("max_tokens"), info=I18N("max_tokens_info"), minimum=0, maximum=1 << 20, precision=0
            ),
        ]


def _examples(request: gr.Request) -> gr.Chatbot:
    """The examples in the visitor's language."""
    found = examples(language_asked(request))
    return gr.Chatbot(examples=[example | {"icon": example["files"][0]} for example in found])


def both(word: str, tag: str) -> str:
    """A sentence in both languages; the style sheet shows the visitor's."""
    return in_both(*WORDS[word], tag)


def header(has_logins: bool) -> str:
    """The line at the top: the name, the ways to batches and to one's own use, the choice of a model where there are several, the model and
    its state (page.js fills it)."""
    own_use = f'<a id="own-use" href="usage">{both("own_use", "span")}</a>' if has_logins else ""
    batches = f'<a id="own-batches" href="batches">{both("batches", "span")}</a>'
    return (
        f'<h1>lingbi<span lang="zh-CN"> · 灵笔</span></h1><div id="ways">{batches}{own_use}</div>'
        f'<div id="picker" hidden><label for="pick">{both("page_model", "span")}</label>'
        '<select id="pick" aria-describedby="facts"></select><span id="facts"></span></div>'
        '<div id="state" role="status" data-phase="starting"><span id="model"></span>'
        f'<span id="dot"></span><span id="phase">{both("state_starting", "span")}</span></div>'
    )


def theme() -> gr.themes.Base:
    """Gradio's soft theme in one blue, with fonts that every system has and colours with enough contrast."""
    soft = gr.themes.Soft(
        primary_hue="indigo", neutral_hue="slate", font=list(FONTS), font_mono=list(MONOSPACED), radius_size="lg"
    )
    readable = {"block_info_text_color": "*neutral_600", "body_text_color_subdued": "*neutral_600"}
    readable |= {f"{name}_dark": "*neutral_300" for name in readable}
    plain = {"block_title_text_color": "*body_text_color", "block_title_background_fill": "transparent"}
    plain |= {f"{name}_dark": value for name, value in plain.items()}
    return soft.set(**readable, **plain, block_title_padding="0", body_background_fill="*neutral_50")


def head(settings: Settings) -> str:
    """The page's head: its script, and the texts and data that the script uses."""
    largest = str(settings.max_picture_mib)
    words = {
        name: [text.replace("{max_picture_mib}", largest) for text in pair]
        for name, pair in WORDS.items()
        if name.startswith(("state_", "page_")) or name in ("enlarge", "close", "notice", "picture_large")
    }
    known = {"words": words, "maxBytes": settings.max_picture_mib * MIB}
    script = (FOLDER / "look" / "page.js").read_text(encoding="utf-8")
    return f"<script>window.lingbi = {json.dumps(known, ensure_ascii=False)};\n{script}</script>"
