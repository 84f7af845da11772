"""The door before lmdeploy's application: keys, readiness, pictures, errors."""

import base64
import io
import stat

import pytest
from PIL import Image

from lingbi.errors import ConfigurationError
from lingbi.keys import ensure_keys, is_known
from lingbi.pictures import PictureError, load_picture
from lingbi.readiness import READY, Readiness

KEY = {"Authorization": "Bearer secret"}


@pytest.fixture(scope="module")
def readiness():
    return Readiness("model", "cpu", "a test")


@pytest.fixture(scope="module")
def client(readiness):
    from fastapi.testclient import TestClient

    from lingbi.api import create_app

    return TestClient(create_app(readiness, ["other", "secret"]), raise_server_exceptions=False)


def test_live_needs_no_key_and_ready_says_503_with_the_phase(client, readiness):
    assert client.get("/live").status_code == 200
    response = client.get("/ready")
    assert (response.status_code, response.json()["phase"]) == (503, "starting")


def test_requests_before_ready_are_503_with_retry_after(client, readiness):
    response = client.get("/v1/models", headers=KEY)
    assert response.status_code == 503 and response.headers["retry-after"]
    assert response.json()["error"]["code"] == "not_ready"


@pytest.mark.parametrize(
    "header", [None, "", "secret", "Bearer", "Bearer wrong", "Basic secret", "Bearer secret2", "Bearer é"]
)
def test_without_a_known_key_everything_but_health_is_401(client, header):
    headers = {} if header is None else {"Authorization": header.encode()}
    for path in ("/v1/models", "/v1/chat/completions", "/openapi.json", "/nothing"):
        response = client.post(path, headers=headers)
        assert response.status_code == 401 and response.json()["error"]["code"] == "invalid_api_key"


@pytest.fixture
def ready(client, readiness):
    readiness.enter(READY)
    yield client
    readiness.enter("starting")


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/v1/encode", "/v1/chat/interactive", "/v1/chat/completions_qos", "/v1/completions_qos"]
)
def test_routes_outside_the_list_are_closed(ready, path):
    assert ready.post(path, headers=KEY, json={}).status_code in (404, 405)


def test_invalid_body_is_a_400_that_names_the_field(ready):
    response = ready.post("/v1/chat/completions", headers=KEY, json={"messages": []})
    assert response.status_code == 400 and "model" in response.json()["error"]["message"]


def encoded(mode="RGB", kind="PNG", size=(8, 6)) -> str:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, format=kind)
    return f"data:image/{kind.lower()};base64," + base64.b64encode(buffer.getvalue()).decode()


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("RGB", "PNG"), ("RGBA", "PNG"), ("P", "GIF"), ("L", "JPEG"), ("CMYK", "JPEG"), ("1", "PNG"), ("I;16", "PNG")],
)
def test_pictures_of_every_mode_become_rgb(mode, kind):
    picture = load_picture(encoded(mode, kind))
    assert (picture.mode, picture.size) == ("RGB", (8, 6))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("/etc/passwd", "must begin with"),
        ("file:///etc/passwd", "must begin with"),
        ("ftp://host/a.png", "must begin with"),
        ("data:image/png,abc", "must read"),
        ("data:image/png;base64,@@", "not valid base64"),
        ("data:image/png;base64,aGVsbG8=", "cannot be decoded"),
        (encoded()[:-40], "cannot be"),
        ("http://127.0.0.1:1/a.png", "cannot be fetched"),
    ],
)
def test_what_is_no_picture_is_refused_with_a_sentence(ready, url, message):
    with pytest.raises(PictureError, match=message):
        load_picture(url)
    content = [{"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": url}}]
    body = {"model": "model", "messages": [{"role": "user", "content": content}]}
    for stream in (False, True):
        response = ready.post("/v1/chat/completions", headers=KEY, json=body | {"stream": stream})
        assert response.status_code == 400 and message in response.json()["error"]["message"]


def test_a_key_is_made_once_and_only_its_owner_reads_it(tmp_path):
    file = tmp_path / "new" / "api-key"
    keys = ensure_keys(file)
    assert len(keys) == 1 and len(keys[0]) > 40 and ensure_keys(file) == keys
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert is_known(keys[0], keys) and not is_known(keys[0][:-1], keys) and not is_known("", keys)


def test_an_empty_key_file_is_refused(tmp_path):
    (tmp_path / "keys").write_text("\n")
    with pytest.raises(ConfigurationError, match="is empty"):
        ensure_keys(tmp_path / "keys")
