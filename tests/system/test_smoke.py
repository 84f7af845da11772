"""scripts/smoke as people use it: it passes where the demo answers, and can fail."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.conftest import lingbi

BEFORE_GATEWAY = [
    "live",
    "ready",
    "key-required",
    "picture",
    "describe-zh",
    "describe-en",
    "colour",
    "number",
    "position",
    "conversation",
    "stream",
    "text-completion",
    "inner-url",
    "bad-picture",
]  # names and order are promised: scripts of others read them
AFTER_GATEWAY = ["json", "json-objects"]
SMOKE = BEFORE_GATEWAY + AFTER_GATEWAY


def test_smoke_passes_and_reports_every_check(demo_server):
    done = lingbi("smoke", "--json", state_dir=demo_server["state_dir"])
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert [check["name"] for check in report["checks"]] == SMOKE
    assert report.keys() == {"url", "model", "checks"}
    assert all(check.keys() == {"name", "passed", "seconds", "detail"} for check in report["checks"])


def test_smoke_takes_a_url_and_a_key_file(demo_server, tmp_path):
    done = lingbi(
        "smoke", demo_server["url"] + "/v1/", "--api-key-file", demo_server["api_key_file"], state_dir=tmp_path / "s"
    )
    assert done.returncode == 0, done.stderr


def test_smoke_fails_on_a_wrong_answer(demo_server, monkeypatch):
    """The checks must be able to fail: the same server, asked about another picture than it is judged by."""
    from lingbi.images import scenes
    from lingbi.smoke import checks, main

    monkeypatch.setenv("LINGBI_STATE_DIR", str(demo_server["state_dir"]))
    real_draw = checks.draw
    other = scenes.Scene((scenes.Thing("green", "square"),))
    monkeypatch.setattr(checks, "draw", lambda scene: real_draw(other))
    assert main.main([]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing was started here"),
        (("http://127.0.0.1:1", "--api-key-file", "key"), "no lingbi server answers at"),
        (("http://[::1", "--api-key-file", "key"), "is no URL"),
        (("localhost:6006", "--api-key-file", "key"), "is no http(s) URL"),
        (("https://127.0.0.1:1", "--api-key-file", "key", "--ca-file", "none.pem"), "none.pem is not there"),
        (("https://127.0.0.1:1", "--api-key-file", "key", "--ca-file", "key"), "key cannot be used"),
    ],
)
def test_smoke_that_cannot_run_exits_2(tmp_path, arguments, message):
    (tmp_path / "key").write_text("secret\n")
    done = lingbi("smoke", *arguments, state_dir=tmp_path / "state")
    assert done.returncode == 2 and done.stderr.startswith("error: ") and message in done.stderr
    assert "Traceback" not in done.stderr


class Nothing(BaseHTTPRequestHandler):
    """Answers everything with 200 and the nulls that the API's schema knows."""

    answer = {"data": [{"id": "m"}], "usage": None, "choices": [{"message": {"role": "assistant", "content": None}}]}

    def do_GET(self):
        body = json.dumps(self.answer | {"choices": [self.answer["choices"][0] | {"finish_reason": "stop"}]}).encode()
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(404 if self.path == "/healthz" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_):
        pass


def test_smoke_of_a_server_that_answers_null_fails_and_does_not_break(tmp_path):
    (tmp_path / "key").write_text("secret\n")
    with ThreadingHTTPServer(("127.0.0.1", 0), Nothing) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        done = lingbi("smoke", url, "--api-key-file", tmp_path / "key", state_dir=tmp_path / "state")
        server.shutdown()
    assert done.returncode == 1 and "FAIL  picture" in done.stderr and "Traceback" not in done.stderr


def test_smoke_with_a_wrong_key_exits_2(demo_server, tmp_path):
    (tmp_path / "key").write_text("wrong\n")
    done = lingbi("smoke", demo_server["url"], "--api-key-file", tmp_path / "key", state_dir=tmp_path / "state")
    assert done.returncode == 2 and "401" in done.stderr
