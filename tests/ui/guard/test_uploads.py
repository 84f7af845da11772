"""What comes in as a picture, under which name, and what becomes of the rest."""

import contextlib
import json
import os
import socket
import time

import httpx
import pytest

from lingbi.launch.supervision import wait_until
from tests.ui.conftest import running_page

GIF = b"GIF89a"
UPLOAD, PROGRESS = "/gradio_api/upload", "/gradio_api/upload_progress"
ENDING = b"\r\n--b--\r\n"
BMP = b"BM"


@pytest.fixture(scope="module")
def small(fake_api, tmp_path_factory):
    """A page with room for 3 MiB of one address, 4 MiB in all, 1 MiB a picture."""
    folder = tmp_path_factory.mktemp("small")
    settings = {"ADDRESS_FILES_MIB": 3, "ALL_FILES_MIB": 4, "MAX_PICTURE_MIB": 1, "MAX_PICTURES": 4}
    with running_page(folder, fake_api.url, **settings) as found:
        yield found


def files_in(page) -> list:
    return [file for file in page.files.rglob("*") if file.is_file()]


def send(page, *files, visitor: str = "10.1.1.1") -> httpx.Response:
    """files: (name, data)."""
    headers = {"X-Forwarded-For": visitor, "Accept-Language": "en"}
    return page.client.post(UPLOAD, files=[("files", file) for file in files], headers=headers)


@contextlib.contextmanager
def upload_under_way(page, upload_id: str, visitor: str, cookie: str = ""):
    """An upload of which the beginning has come; gives its connection, on which `ENDING` ends it."""
    body = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.gif"\r\n\r\n' + GIF + bytes(200_000)
    head = (
        f"POST {UPLOAD}?upload_id={upload_id} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {visitor}\r\nCookie: {cookie}\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {len(body) + len(ENDING)}\r\n\r\n"
    )
    before = files_in(page)
    with socket.create_connection(("127.0.0.1", int(page.url.rpartition(":")[2])), timeout=30) as connection:
        connection.sendall(head.encode() + body)
        assert wait_until(lambda: len(files_in(page)) > len(before), 10)
        yield connection


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("..", "picture"),
        ("../../x.gif", "x.gif"),
        ("/etc/passwd", "passwd"),
        ("C:\\\\photos\\\\a.gif", "a.gif"),
        (".bashrc", "bashrc"),
        ("图 片.gif", "图 片.gif"),
        ("a|b<c>.gif", "abc.gif"),
        ("", "picture"),
    ],
)
def test_names_are_names(small, name, stored):
    boundary = "b"
    head = f'--b\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
    content = head + GIF + b"\r\n--b--\r\n"
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}", "X-Forwarded-For": "10.1.1.1"}
    answer = small.client.post(UPLOAD, content=content, headers=headers)
    (path,) = answer.json()
    assert os.path.basename(path) == stored and path.startswith(f"{small.files}/") and ".." not in path


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"hello", "not a picture"),
        (b"", "not a picture"),
        (b"\x7fELF" + bytes(99), "not a picture"),
        (b"<svg onload=alert(1)>", "not a picture"),
        (b"RIFF\0\0\0\0WAVEfmt ", "not a picture"),
        (b"RIFF\0\0\0\0AVI LIST", "is a video"),
        (b"\0\0\0\x18ftypheic" + bytes(9), "HEIC"),
    ],
)
def test_only_pictures_are_stored(small, data, word):
    before = files_in(small)
    answer = send(small, ("good.gif", GIF), ("bad.png", data))
    assert answer.status_code == 415 and word in answer.json()["detail"] and "bad.png" in answer.json()["detail"]
    assert files_in(small) == before


def test_size_and_number_are_bounded(small):
    before = files_in(small)
    answer = send(small, ("a.bmp", BMP + bytes(1 << 20)))
    assert answer.status_code == 413 and "“a.bmp” is too large: at most 1 MiB" in answer.json()["detail"]
    assert send(small, *[("a.gif", GIF)] * 5).status_code == 413
    assert files_in(small) == before


def test_one_address_fills_its_own_room_only(small):
    large = ("a.bmp", BMP + bytes((1 << 20) - 2))
    found = [send(small, large, visitor="10.2.2.2").status_code for _ in range(4)]
    assert found == [200, 200, 200, 429], "three MiB are its room"
    assert "as much as one visitor may" in send(small, large, visitor="10.2.2.2").json()["detail"]
    assert send(small, large, visitor="10.3.3.3").status_code == 503, "four MiB are the room of all"
    assert send(small, ("a.gif", GIF), visitor="10.3.3.3").status_code == 200
    assert sum(file.stat().st_size for file in files_in(small)) < 4 << 20


def test_a_broken_off_upload_leaves_nothing(small):
    before = files_in(small)
    with upload_under_way(small, "broken", "10.1.1.1"):
        assert len(files_in(small)) > len(before)
    assert wait_until(lambda: files_in(small) == before, 10)


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("multipart/form-data", b"--b--"),
        ("multipart/form-data; boundary=" + "b" * 300, b""),
        ("application/json", b"[]"),
        ("multipart/form-data; boundary=b", b""),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\n" + GIF),
        ("multipart/form-data; boundary=b", b"--b\r\nX: " + b"y" * 100_000),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; filename="a"\r\n\r\nGIF89a'),
    ],
)
def test_what_is_no_upload_is_refused(small, kind, content):
    before = files_in(small)
    answer = small.client.post(UPLOAD, content=content, headers={"Content-Type": kind})
    assert answer.status_code == 400 and files_in(small) == before


def test_progress_ends_with_the_upload_and_without_one(small):
    began = time.monotonic()
    answer = small.client.get("/gradio_api/upload_progress?upload_id=none")
    assert json.loads(answer.text.removeprefix("data: ")) == {"msg": "done"} and time.monotonic() - began < 10


def test_the_progress_of_an_upload_is_its_visitors_alone(small):
    with upload_under_way(small, "mine", "10.4.0.1") as connection:
        mine, anothers = progress(small, "mine", "10.4.0.1"), progress(small, "mine", "10.4.0.2")
        assert "update" in next(mine) and "done" in next(anothers)
        with upload_under_way(small, "mine", "10.4.0.2") as other:
            other.sendall(ENDING)
            assert b"200 OK" in other.recv(4096)
        assert "update" in next(progress(small, "mine", "10.4.0.1")), "another's upload of this name has not ended it"
        connection.sendall(ENDING)
        assert b"200 OK" in connection.recv(4096) and "done" in list(mine)[-1]


def progress(page, upload_id: str, visitor: str):
    """The events of an upload's progress, one after the other."""
    parameters, headers = {"upload_id": upload_id}, {"X-Forwarded-For": visitor}
    with httpx.stream("GET", f"{page.url}{PROGRESS}", params=parameters, headers=headers, timeout=30) as answer:
        assert answer.status_code == 200
        yield from filter(None, answer.iter_lines())


def test_streams_of_progress_are_bounded_in_number(fake_api, tmp_path):
    """For one question at a time, a visitor has eleven streams; another visitor has its own."""
    with running_page(tmp_path, fake_api.url, ADDRESS_QUESTIONS=1) as page, contextlib.ExitStack() as opened:
        opened.enter_context(upload_under_way(page, "mine", "10.5.0.1"))

        def status(visitor: str) -> int:
            headers = {"X-Forwarded-For": visitor}
            stream = httpx.stream("GET", f"{page.url}{PROGRESS}?upload_id=mine", headers=headers, timeout=30)
            return opened.enter_context(stream).status_code

        assert [status("10.5.0.1") for _ in range(13)] == [200] * 11 + [429] * 2
        assert status("10.5.0.2") == 200
        opened.close()
        assert wait_until(lambda: status("10.5.0.1") == 200, 10), "who has left makes room"


def test_a_killed_page_leaves_nothing_that_stays(fake_api, tmp_path):
    with running_page(tmp_path, fake_api.url) as page:
        (kept,) = send(page, ("a.gif", GIF)).json()
        (old,) = send(page, ("a.gif", GIF)).json()
        page.process.kill()
        page.process.wait(20)
    (page.files / "tmpleft").write_bytes(b"x")
    for path in (old, os.path.dirname(old)):
        os.utime(path, (0, 0))
    with running_page(tmp_path, fake_api.url) as page:
        assert wait_until(lambda: not os.path.exists(old), 10)
        assert not (page.files / "tmpleft").exists() and page.client.get(f"/gradio_api/file={kept}").status_code == 200
