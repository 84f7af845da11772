"""The real page server, alone, before an API that says what a test wants."""

import contextlib
import json
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import psutil
import pytest
from PIL import Image

from lingbi.launch.supervision import wait_until
from tests.conftest import ROOT, answers, clean_environment, free_port

START_TIMEOUT_S = 180  # seconds on an idle machine take minutes on a busy one
PYTHON = ROOT / ".venv-ui/bin/python"
READY = {"phase": "ready", "model": "internlm-xcomposer2-demo"}


class FakeApi:
    """An API in place of lingbi's. ready: what /ready says, late_s: after how long; words: what every answer is.

    refusal: (status, body) instead of answers, refused_get: instead of what is read below /v1; asked: bodies of the
    questions, paths: of all requests; offer: entries of /v1/models; comments: what streams say before an answer begins.
    """

    def __init__(self):
        self.ready, self.late_s, self.words, self.refusal, self.asked, self.paths = (
            READY,
            0,
            ["an answer"],
            None,
            [],
            [],
        )
        self.offer, self.comments, self.refused_get = [], [], None
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                api.paths.append(self.path)
                time.sleep(api.late_s)
                if api.refused_get and self.path.startswith("/v1/"):
                    return self.tell(*api.refused_get)
                self.tell(200, api.ready if self.path == "/ready" else {"data": api.offer})

            def do_POST(self):
                api.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                if api.refusal:
                    return self.tell(*api.refusal)
                self.send_response(200)
                self.end_headers()
                for comment in api.comments:
                    self.wfile.write(f": {comment}\n\n".encode())
                    self.wfile.flush()
                    time.sleep(0.5)
                for word in api.words:
                    self.event({"choices": [{"delta": {"content": word}}]})
                self.event({"choices": [{"delta": {}, "finish_reason": "stop"}]})

            def tell(self, status: int, body) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def event(self, body: dict) -> None:
                self.wfile.write(f"data: {json.dumps(body)}\n\n".encode())
                self.wfile.flush()

            def handle(self):
                with contextlib.suppress(ConnectionError):  # who asked may leave
                    super().handle()

            def log_message(self, *details):
                """Tests read what was asked, not a log."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Page:
    """A running page server: its process, URL, folder of uploads and log, and what a browser would send it."""

    def __init__(self, folder, port: int):
        self.url, self.folder = f"http://127.0.0.1:{port}", folder
        self.files, self.log = folder / "files", folder / "page.log"
        self.client = httpx.Client(base_url=self.url, timeout=30)
        self.session, self.process = 0, None

    def upload(self, name: str, data: bytes) -> str:
        """The path that Gradio gives it."""
        return self.client.post("/gradio_api/upload", files={"files": (name, data)}).json()[0]

    def send(self, target: str, data: list, event_data=None) -> list:
        """What the page's event with this name answers, as Gradio's messages, the last with the outcome."""
        self.session += 1
        session = f"session{self.session}"
        number = self.numbers()[target]
        body = {"fn_index": number, "data": data, "session_hash": session, "event_data": event_data}
        self.client.post("/gradio_api/queue/join", json=body).raise_for_status()
        found = []
        with self.client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    found.append(json.loads(line.removeprefix("data: ")))
                    if found[-1]["msg"] == "process_completed":
                        break
        return found

    def numbers(self) -> dict:
        """{event: number} of the page's functions."""
        found = {}
        for item in self.client.get("/config").json()["dependencies"]:
            for _, event in item["targets"]:
                found.setdefault(event, item["id"])
        return found


OPTIONS = [0.7, 1, 40, 1, 0, ""]  # of the sampling controls, and no model picked
ASKED = [{"role": "user", "content": [{"type": "text", "text": "What is this?"}]}]


def said(path: str, **file) -> list:
    """A history of one question with a file."""
    part = {"type": "file", "file": {"path": path, "meta": {"_type": "gradio.FileData"}} | file}
    words = {"type": "text", "text": "What is this?"}
    return [{"role": "user", "content": [part]}, {"role": "user", "content": [words]}]


@contextlib.contextmanager
def running_page(folder, api_url: str, **settings):
    """The page server before this API; settings without their prefix."""
    port = free_port()
    known = {"PORT": port, "API_URL": api_url, "FILES_DIR": folder / "files"} | settings
    environment = clean_environment(folder / "state")
    environment |= {f"LINGBI_UI_{name}": str(value) for name, value in known.items()}
    page = Page(folder, port)
    with page.log.open("a") as log:
        process = subprocess.Popen([PYTHON, "-m", "lingbi_ui"], env=environment, stdout=log, stderr=log, cwd=ROOT)
    page.process = psutil.Process(process.pid)
    try:
        assert wait_until(lambda: process.poll() is not None or answers(f"{page.url}/live"), START_TIMEOUT_S)
        assert process.poll() is None, page.log.read_text()
        yield page
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="session")
def fake_api():
    api = FakeApi()
    yield api
    api.stop()


@pytest.fixture(scope="session")
def page(fake_api, tmp_path_factory):
    """A page before the fake API; tests must leave it answering."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "key").write_text("lb-key-of-the-page")
    with running_page(folder, fake_api.url, API_KEY_FILE=folder / "key") as found:
        yield found


@pytest.fixture(scope="session")
def lonely_page(tmp_path_factory):
    """A page whose server was never there; its API's port as `api_port`."""
    port = free_port()
    with running_page(tmp_path_factory.mktemp("lonely"), f"http://127.0.0.1:{port}") as found:
        found.api_port = port
        yield found


@pytest.fixture(autouse=True)
def _as_new(request):
    """Every test finds the API as it began."""
    if "fake_api" in request.fixturenames:
        api = request.getfixturevalue("fake_api")
        api.ready, api.late_s, api.words, api.refusal = READY, 0, ["an answer"], None
        api.offer, api.comments = [], []
        api.asked.clear()


def entry(name: str, state: str = "ready", **facts) -> dict:
    """A model's entry in /v1/models, as a gateway before several models gives it."""
    return {"id": name, "object": "model", "lingbi": {"state": state, "session_length": 4096, "progress": 1.0} | facts}


@pytest.fixture
def image(tmp_path):
    def make(kind: str, size=(20, 20), **options):
        file = tmp_path / f"picture.{kind.lower()}"
        Image.new("RGB", size, "red").save(file, kind, **options)
        return file

    return make
