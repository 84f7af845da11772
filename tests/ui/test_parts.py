"""The page's parts that need no browser: what it says, what it sends, who may come in."""

import asyncio
import functools
import io
import re
import string
import subprocess
import time

import pytest
from PIL import Image

from lingbi.http.protocol.requests import ChatRequest
from lingbi.http.readiness import (
    DRAINING,
    FAILED,
    GPU_GONE,
    LOADING,
    LOADING_MODEL,
    PREPARING,
    PROBING,
    READY,
    STARTING,
    WEDGED,
)
from lingbi.images.data_urls import decode_data_url
from lingbi.images.loader import decode
from lingbi.settings import Settings as ServerSettings
from lingbi_gateway.settings import Settings as GatewaySettings
from lingbi_pictures.formats import TYPES
from lingbi_pictures.picture import BROKEN, Budget
from lingbi_ui import conversation
from lingbi_ui.api import fault_of
from lingbi_ui.images import (
    MAX_PIXELS,
    MAX_SENT_BYTES,
    MIB,
    ImageFault,
    ImageThreads,
    check_image,
    data_url,
)
from lingbi_ui.logins import Logins, change
from lingbi_ui.settings import ConfigurationError, Settings, load_settings
from lingbi_ui.words import CHINESE, ENGLISH, WORDS, language_of, say
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("zh-CN,zh;q=0.9,en;q=0.8", CHINESE),
        ("en-US,en;q=0.9,zh-CN;q=0.8", ENGLISH),
        ("de-DE,de;q=0.9,zh;q=0.5", CHINESE),
        ("en;q=0.1, zh-TW;q=0.9", CHINESE),
        ("fr", ENGLISH),
        ("", ENGLISH),
        (";;q=x,zh", CHINESE),
    ],
)
def test_the_language_is_the_browsers(header, language):
    assert language_of(header) == language


def test_both_languages_say_the_same():
    for name, pair in WORDS.items():
        fields = [sorted(field for _, field, _, _ in string.Formatter().parse(text) if field) for text in pair]
        assert fields[0] == fields[1], name
        assert re.search("[一-鿿]", pair[1]) and not re.search("[一-鿿]", pair[0]), name


def test_every_phase_of_a_server_has_its_words():
    for phase in (STARTING, PREPARING, LOADING, LOADING_MODEL, PROBING, READY, FAILED, DRAINING, WEDGED, GPU_GONE):
        assert say(ENGLISH, f"state_{phase}") and say(CHINESE, f"state_{phase}")


def test_the_sampling_controls_have_the_apis_ranges():
    """The page's environment is not this one, so its controls are read from its source."""
    text = (ROOT / "docker/ui/lingbi_ui/page.py").read_text()
    for name in ("temperature", "top_p", "top_k"):
        field = ChatRequest.model_fields[name]
        bounds = {type(item).__name__: item for item in field.metadata}
        least, most = max(bounds["Ge"].ge, 0), bounds["Le"].le  # -1 is only another way to write top_k's 0
        assert re.search(rf"Slider\({least}, {most:g}, {field.default}, .*{name}", text), name
    field = ChatRequest.model_fields["repetition_penalty"]
    assert [item.ge for item in field.metadata if hasattr(item, "ge")] == [0.01] and "minimum=0.01" in text
    assert [item.le for item in field.metadata if hasattr(item, "le")] == [100] and "maximum=100," in text


def test_the_parts_agree_on_limits_and_ports():
    server, page, gateway = ServerSettings(), Settings(), GatewaySettings()
    assert page.max_pictures == server.max_pictures and page.max_picture_mib == server.max_picture_mib
    assert server.max_picture_mpixels * 1_000_000 == MAX_PIXELS
    assert gateway.max_body_mib <= server.max_body_mib and page.max_picture_mib * 4 / 3 < gateway.max_body_mib
    assert page.max_pictures * page.max_picture_mib < gateway.max_upload_mib
    assert (gateway.max_body_mib - 1) * MIB > MAX_SENT_BYTES * 4 / 3
    assert gateway.ui == f"{page.host}:{page.port}" and gateway.servers == (f"{server.host}:{server.port}",)
    assert page.api_url == f"http://{gateway.inner_host}:{gateway.inner_port}"


def test_a_bad_setting_is_named():
    for environment in ({"LINGBI_UI_PROT": "1"}, {"LINGBI_UI_PORT": "x"}, {"LINGBI_UI_API_URL": "server:1"}):
        with pytest.raises(ConfigurationError, match="LINGBI_UI_P|LINGBI_UI_A"):
            load_settings(environment)
    with pytest.raises(ConfigurationError, match="no key can be read"):
        load_settings({"LINGBI_UI_API_KEY_FILE": "/nowhere"}).api_key()


def test_the_page_does_not_start_with_a_misspelt_setting(tmp_path):
    environment = {"LINGBI_UI_PROT": "1", "PYTHONPATH": f"{ROOT}/docker/ui:{ROOT}/docker/pictures"}
    done = subprocess.run(
        [ROOT / ".venv-ui/bin/python", "-m", "lingbi_ui"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2 and "did you mean LINGBI_UI_PORT" in done.stderr


@pytest.mark.parametrize("kind", TYPES)
def test_images_travel_as_they_are(image, kind):
    file = image(kind)
    check_image(file, 20)
    head, _, body = data_url(file).partition(",")
    assert head == f"data:{TYPES[kind]};base64" and body


def test_images_that_cannot_be_used_have_a_reason(image, tmp_path):
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "blue")]
    moving, cut, tiff = tmp_path / "moving.gif", tmp_path / "cut.png", image("TIFF")
    frames[0].save(moving, save_all=True, append_images=frames[1:])
    buffer = io.BytesIO()
    Image.effect_noise((200, 200), 50).save(buffer, "PNG")
    cut.write_bytes(buffer.getvalue()[:-2000])
    wide = tmp_path / "wide.png"
    Image.new("L", (8000, 6300)).save(wide)
    thin, gone = image("BMP", size=(4100, 20)), tmp_path / "gone.png"
    reasons = {moving: "animated", cut: "unreadable", tiff: "unreadable", wide: "pixels", thin: "narrow", gone: "gone"}
    for file, reason in reasons.items():
        with pytest.raises(ImageFault) as caught:
            check_image(file, 20)
        assert caught.value.word == f"picture_{reason}" and caught.value.word in WORDS
    with pytest.raises(ImageFault, match="picture_large"):
        check_image(cut, 0)


def test_a_phones_jpeg_with_a_preview_is_a_jpeg(tmp_path):
    file = tmp_path / "IMG_1.jpg"
    photo, preview = Image.new("RGB", (400, 300), "red"), Image.new("RGB", (40, 30), "red")
    photo.save(file, "MPO", save_all=True, append_images=[preview])
    with Image.open(file) as opened:
        assert opened.format == "MPO" and opened.n_frames == 2
    check_image(file, 20)
    assert data_url(file).startswith("data:image/jpeg;base64,") and decoded(data_url(file)).size == (400, 300)


def decoded(url: str) -> Image.Image:
    """The picture in a data URL, as the server takes it: with its own door and bounds."""
    return decode(decode_data_url(url, ServerSettings().max_picture_mib << 20), Budget(MAX_PIXELS))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "I;16", "P", "L"])
def test_images_share_what_fits_a_request(tmp_path, mode, images=16):
    file, size = tmp_path / "large.png", (2400, 1800)
    noise = Image.effect_noise(size, 80)
    (Image.new(mode, size, 40000) if mode == "I;16" else noise.convert(mode)).save(file, compress_level=1)
    assert size[0] * size[1] > MAX_PIXELS / images
    small = decoded(data_url(file, images))
    assert small.width * small.height <= MAX_PIXELS / images
    assert abs(small.width / small.height - 4 / 3) < 0.01
    assert len(data_url(file, images)) * 3 / 4 <= MAX_SENT_BYTES / images + 100
    if mode == "I;16":
        assert abs(small.getpixel((9, 9))[0] - 40000 / 257) < 3


def test_an_image_that_is_turned_stays_upright_when_it_is_made_smaller(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (2400, 1800), "red").save(tmp_path / "turned.jpg", exif=exif)
    whole, small = decoded(data_url(tmp_path / "turned.jpg")), decoded(data_url(tmp_path / "turned.jpg", 16))
    assert whole.size == (1800, 2400) and small.height > small.width and small.height < 2400


@pytest.mark.parametrize("fault", BROKEN)
def test_whatever_a_reader_raises_is_a_sentence(image, monkeypatch, fault):
    def broken(self):
        raise fault("broken")

    file = image("PNG")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", broken)
    with pytest.raises(ImageFault, match="picture_unreadable"):
        check_image(file, 20)


def test_nobody_waits_for_another_visitors_slow_pictures(tmp_path, image):
    slow, small = tmp_path / "slow.jpg", image("PNG")
    plain = Image.new("L", (6000, 4000))
    plain.save(slow, progressive=True)
    data = slow.read_bytes()
    last = data.rindex(b"\xff\xda")
    slow.write_bytes(data[:-2] + data[last:-2] * 60 + data[-2:])

    async def waited() -> tuple[float, int]:
        threads = ImageThreads()
        work = functools.partial(check_image, max_mib=20)
        others = [asyncio.create_task(threads.run("a", slow, work)) for _ in range(6)]
        await asyncio.sleep(0.2)
        start = time.monotonic()
        await threads.run("b", small, work)
        took = time.monotonic() - start
        left = sum(not task.done() for task in others)
        for task in others[1:]:
            task.cancel()
        await asyncio.wait(others)
        return took, left

    took, left = asyncio.run(waited())
    assert took < 5 and left >= 4, (took, left)


def test_pictures_that_would_keep_a_thread_busy_have_their_sentences(tmp_path):
    whole = tmp_path / "many.jpg"
    Image.new("L", (640, 480)).save(whole, progressive=True)
    data = whole.read_bytes()
    last = data.rindex(b"\xff\xda")
    whole.write_bytes(data[:-2] + data[last:-2] * 2000 + data[-2:])
    comments = tmp_path / "comments.gif"
    Image.new("P", (9, 9)).save(comments)
    data = comments.read_bytes()
    place = data.index(b",", 13)
    comments.write_bytes(data[:place] + b"!\xfe\0" * 100_000 + data[place:])
    for file, word in ((whole, "picture_slow"), (comments, "picture_metadata")):
        for work in (functools.partial(check_image, max_mib=20), data_url):
            with pytest.raises(ImageFault) as caught:
                work(file)
            assert caught.value.word == word and word in WORDS


def messages_of(history: list) -> list:
    """The API's messages of a conversation, as the page sends them."""
    files = conversation.images_of(history)
    return conversation.api_messages(history, {file: data_url(file, len(files)) for file in files})


@pytest.mark.parametrize("text", ["<table> or </b>?", "a<b, 1 < 2, <3", "<!-- not shown -->", "没有标签"])
def test_tags_in_a_question_are_shown_as_they_are_and_asked_as_they_were_typed(text):
    (turn,) = conversation.user_turns(text, [])
    shown = conversation.text_of(turn)
    assert not re.search("<[A-Za-z/!?]", shown) and shown.replace("\u200b", "") == text
    (edited,) = conversation.user_turns(shown, [])  # an edit begins with what is shown
    for each in (turn, edited):
        (message,) = conversation.api_messages([each], {})
        assert message["content"] == [{"type": "text", "text": text}]


def test_what_the_model_gets_of_a_conversation(image):
    file, answer = image("PNG"), conversation.assistant_turn
    first, second = conversation.user_turns("what?", [file]), conversation.user_turns("and?", [])
    sent = messages_of([*first, answer("a circle"), *second])
    assert [message["role"] for message in sent] == ["user", "assistant", "user"]
    assert [part["type"] for part in sent[0]["content"]] == ["image_url", "text"]
    # What failed may be asked again with its picture; what was refused is left out with its picture.
    failed = messages_of([*first, answer("⚠️", conversation.FAILED), *second])
    assert [part["type"] for part in failed[0]["content"]] == ["image_url", "text", "text"]
    refused = messages_of([*first, answer("⚠️", conversation.REFUSED), *second])
    assert [part["type"] for part in refused[0]["content"]] == ["text"]
    assert conversation.images_of([*first, answer("⚠️", conversation.REFUSED)]) == []


@pytest.mark.parametrize(
    ("status", "body", "code", "is_refused"),
    [
        (400, b'{"error": {"code": "invalid_image", "message": "m"}}', "error_invalid_image", True),
        (400, b'{"error": {"code": "invalid_value", "message": "m"}}', "error_refused", True),
        (401, b"{}", "error_invalid_api_key", False),
        (401, b'{"error": {"code": "visitor_ended", "message": "m"}}', "error_visitor_ended", False),
        (429, b"", "error_busy", False),
        (503, b"<html>", "error_not_ready", False),
        (504, b"[]", "error_timeout", False),
        (500, b"null", "error_engine_error", False),
    ],
)
def test_refusals_become_sentences(status, body, code, is_refused):
    fault = fault_of(status, body)
    assert (fault.code, fault.is_refused) == (code, is_refused) and code in WORDS


def test_logins(tmp_path):
    file = tmp_path / "logins"
    password = change(file, "add", "alice")
    logins = Logins(file)
    assert logins.is_right("alice", password)
    assert not logins.is_right("alice", password + "x") and not logins.is_right("bob", password)
    assert not logins.is_right("alice", "")
    assert change(file, "list", None) == "alice"
    for action, name in (("add", "alice"), ("remove", "bob"), ("add", "a b")):
        with pytest.raises(ConfigurationError):
            change(file, action, name)
    change(file, "remove", "alice")
    assert not logins.is_right("alice", password)
    file.write_text("alice:plain\n")
    with pytest.raises(ConfigurationError, match="line 1"):
        logins.read()
