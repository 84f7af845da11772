"""What a rollout asks a server that has just started: begun at once, answered as soon as it is ready."""

import http.server
import subprocess
import sys
import threading

import pytest

from lingbi.smoke import main
from lingbi.smoke.checks import CHECKS
from tests.ansible.plugins import load

server = load("library/server_swap.py").server


@pytest.fixture
def starting():
    """A server that is ready at the third question."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked += 1
            self.send_response(200 if self.server.asked > 2 and self.path == "/ready" else 503)
            self.end_headers()
            self.wfile.write(b"loading")

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        listening.asked, listening.url = 0, f"http://127.0.0.1:{listening.server_port}"
        yield listening
        listening.shutdown()


def options(url, wait_s):
    return main.parse([url, "--core", f"--wait-ready={wait_s}"])


def test_the_smoke_test_waits_for_a_server_that_starts(starting):
    assert main.wait_ready(options(f"{starting.url}/v1", 20)) == "" and starting.asked == 3


def test_a_server_that_does_not_get_ready_is_told_with_its_words(starting, capsys):
    starting.asked = -1000
    assert main.main([starting.url, "--core", "--wait-ready=0.1"]) == 1
    assert "FAIL  ready: not within 0.1 s: status 503: loading" in capsys.readouterr().err


def test_the_core_questions_are_some_of_all():
    assert set(main.CORE) < {check.name for check in CHECKS} and "picture" in main.CORE


def test_what_a_rollout_waits_for_loads_nothing_that_a_start_needs():
    code = "import sys, lingbi.smoke.main; sys.exit(' '.join({'lingbi.launch.up', 'pydantic_settings'} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_rollouts_question_is_one_that_the_smoke_test_understands():
    command = server.question("c1", "23333", 60)
    parsed = main.parse(list(command[command.index("lingbi.smoke") + 1 :]))
    assert (parsed.url, parsed.core, parsed.json, parsed.wait_ready) == ("http://127.0.0.1:23333", True, True, 60)


def answer(returncode, stdout="", stderr=""):
    code = f"import sys; print({stdout!r}); print({stderr!r}, file=sys.stderr); sys.exit({returncode})"
    return subprocess.Popen([sys.executable, "-c", code], stdout=-1, stderr=-1, text=True)


def test_the_checks_that_failed_are_told_and_the_seconds_of_those_that_passed_are_added():
    passed = '{"checks": [{"seconds": 0.5}, {"seconds": 1.25}]}'
    assert server.judge("23333", answer(0, passed)) == 1.75
    with pytest.raises(server.Failed, match="worker at port 23334: FAIL  describe-zh wrong answer"):
        server.judge("23334", answer(1, stderr="PASS  ready\nFAIL  describe-zh wrong answer"))
