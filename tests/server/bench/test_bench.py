"""What scripts/bench is asked for, what it makes of answers' times, and what it says of servers that fail."""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lingbi.bench import __main__ as bench
from lingbi.bench import running
from lingbi.bench.chart import draw
from lingbi.bench.client import Answer, Target
from lingbi.bench.report import medians, table
from lingbi.bench.rounds import interval, percentiles, share_of, summarise
from lingbi.errors import ConfigurationError

TIMES = ("p50", "p95", "p99")
JSON, STREAM = "application/json", "text/event-stream"


def parsed(*arguments: str):
    return bench.parse(["--model", "demo", *arguments])


def test_with_gives_each_variant_its_environment():
    given = parsed(
        "--with", "PREFILL_TOKENS=2048 LINGBI_GPU_MEMORY_MIB=24000", "--with", "", "--with", "PICTURE_HOSTS="
    )
    assert given.variants == [
        {"LINGBI_PREFILL_TOKENS": "2048", "LINGBI_GPU_MEMORY_MIB": "24000"},
        {},
        {"LINGBI_PICTURE_HOSTS": ""},
    ]
    assert parsed().variants is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--with", "PREFILL_TOKENS"], "'PREFILL_TOKENS': give NAME=VALUE"),
        (["--with", "PREFILL_TOKENS=2048, 4096"], "give NAME=VALUE"),
        (["--with", "PREFIL_TOKENS=2048"], "there is no setting LINGBI_PREFIL_TOKENS"),
        (["--with", "=2048"], "there is no setting LINGBI_"),
        (["--with", "QUANT_POLICY=0", "--with", "QUANT_POLICY=5"], "LINGBI_QUANT_POLICY='5'"),
        (["--with", "QUANT_POLICY=8", "--with", "LINGBI_QUANT_POLICY=8"], "the same --with twice"),
        (["--ask", "video:1"], "'video' is no kind; there are image, repeat, text, chat"),
        (["--ask", "image:x"], "image:x"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_starts(capsys, arguments, said):
    with pytest.raises(SystemExit) as ended:
        parsed(*arguments)
    assert ended.value.code == 2 and said in capsys.readouterr().err


def test_settings_of_a_server_that_runs_cannot_be_tried(capsys):
    with pytest.raises(SystemExit) as ended:
        bench.parse(["--url", "http://127.0.0.1", "--with", "PREFILL_TOKENS=2048"])
    assert ended.value.code == 2 and "--with" in capsys.readouterr().err


def test_a_server_or_a_model_is_named(capsys):
    with pytest.raises(SystemExit) as ended:
        bench.parse([])
    assert (
        ended.value.code == 2 and "give --url of a running server, or --model to start one" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--url", "a", "--worker", "b"], "give their URLs in --url, or a gateway's there and --workers"),
        (["--url", "a", "--worker", "b", "--workers", "1"], "--worker is compared with several"),
        (["--url", "a", "b", "--workers", "2"], "--workers says how many of --worker answer at --url"),
        (["--model", "demo", "--worker", "b"], "--worker is one of the workers behind --url"),
    ],
)
def test_one_worker_is_compared_with_several(capsys, arguments, said):
    assert bench.parse(["--url", "a", "b", "--worker", "b"]).workers == 2
    assert bench.parse(["--url", "a", "--worker", "b", "--workers", "3"]).workers == 3
    with pytest.raises(SystemExit) as ended:
        bench.parse(arguments)
    assert ended.value.code == 2 and said in capsys.readouterr().err


def test_people_are_shared_among_the_urls_and_each_stays_at_one():
    target = Target("a", None, "model", ("b", "c"))
    assert [target.of(person) for person in range(7)] == ["a", "b", "c", "a", "b", "c", "a"]
    assert [share_of(people, 2) for people in (1, 2, 63, 64)] == [1, 1, 32, 32]


def test_of_several_models_the_one_that_is_measured_is_named():
    assert running.model_to_ask(["a"], None) == "a" and running.model_to_ask(["a", "b"], "b") == "b"
    for served, asked, said in ((["a", "b"], None, "several models are served"), (["a"], "c", "'c' is not served")):
        with pytest.raises(ConfigurationError, match=f"{said}; give one of these in --model: {', '.join(served)}"):
            running.model_to_ask(served, asked)


def test_interval_of_a_known_case():
    """Mean of 1, 2, 3: standard deviation 1, Student's t 4.303 for two degrees of freedom."""
    assert interval([3.0, 1.0, 2.0]) == {
        "median": 2.0,
        "ci95": pytest.approx(4.303 / math.sqrt(3), abs=1e-4),
        "values": [3, 1, 2],
    }
    assert interval([5.0]) == {"median": 5.0, "ci95": None, "values": [5.0]}
    assert interval([2.0] * 10)["ci95"] == 0


def test_percentiles_are_of_answers_that_were_given():
    assert percentiles([number / 1000 for number in range(100, 0, -1)]) == {"p50": 50, "p95": 95, "p99": 99}
    assert percentiles([0.25]) == dict.fromkeys(TIMES, 250)


def test_failed_answers_are_counted_and_give_no_times():
    good = [Answer(first_s=0.1, gaps_s=[0.01, 0.03]), Answer(first_s=0.3, gaps_s=[0.02])]
    bad = Answer(first_s=9.0, gaps_s=[9.0], error="503 b''")
    figures = summarise([*good, bad], 2.0, 128, fixed_length=True)
    assert (figures["requests"], figures["failed"], figures["first_error"]) == (3, 1, "503 b''")
    assert (figures["req_s"], figures["tokens_s"]) == (1.0, 128.0)
    assert figures["ttft_ms"] == {"p50": 100, "p95": 300, "p99": 300}
    assert figures["gap_ms"] == {"p50": 20, "p95": 30, "p99": 30}
    assert summarise(good, 2.0, 128, fixed_length=False)["tokens_s"] == 2.5
    assert summarise([bad], 2.0, 128, fixed_length=True).keys().isdisjoint({"ttft_ms", "gap_ms"})


def one_round(kind: str, people: int, req_s: float, ttft_ms: float) -> dict:
    times = {"ttft_ms": dict.fromkeys(TIMES, ttft_ms), "gap_ms": dict.fromkeys(TIMES, 5.0)}
    return {"kind": kind, "people": people, "failed": 0, "req_s": req_s, "tokens_s": 128 * req_s} | times


def measured(**sides: float) -> dict:
    """Results of vl-7b on two rounds, a side for each name, with requests a second of its own."""
    return {
        "machine": {"gpus": ["a card"], "cpu": "x86_64"},
        "model": "internlm-xcomposer2-vl-7b",
        "tokens": 128,
        "sides": {
            side: {
                "starts_s": [11.0, 13.0, 12.0],
                "gpu_mib_without_cache": [18000],
                "gpu_mib_after_first": [18100],
                "rounds": [
                    *(one_round("image", 1, req_s, 60.0 + number) for number in range(3)),
                    *(one_round("image", 32, req_s * 10 + number, 1100.0) for number in range(2)),
                ],
            }
            for side, req_s in sides.items()
        },
    }


def test_medians_stand_under_the_names_that_others_read():
    assert medians(measured(lingbi=1.0)) == {
        "lingbi": {
            "vl_7b_image_c1_req_s": 1.0,
            "vl_7b_image_c1_ttft_ms": 61.0,
            "vl_7b_ttft_c1_ms": 61.0,
            "vl_7b_image_c32_req_s": 10.5,
            "vl_7b_image_c32_ttft_ms": 1100.0,
            "vl_7b_start_s": 12.0,
            "vl_7b_gpu_mib_without_cache": 18000,
            "vl_7b_gpu_mib_after_first": 18100,
        }
    }


def test_two_sides_stand_beside_each_other_with_their_ratio():
    head, _, alone, crowd, *memory = table(measured(stock=1.0, lingbi=2.0)).splitlines()
    assert head.split() == ["stock", "lingbi"]
    assert alone.split()[:2] == ["image", "1"] and "x2.00 ttft x1.00" in alone
    assert crowd.split()[:4] == ["image", "32", "10.50", "±6.35"]
    assert (
        memory[1]
        == "lingbi: starts [11.0, 13.0, 12.0] s, without cache [18000] MiB, after a first question [18100] MiB"
    )


def test_all_workers_stand_beside_so_many_times_one():
    sides = {"2 workers": {"rounds": [one_round("chat", 64, 39.2, 62.0)] * 3}}
    sides["one worker"] = {"rounds": [one_round("chat", 32, 20.0, 40.0)] * 3}
    head, columns, row = table(measured() | {"sides": sides, "workers": 2}).splitlines()
    assert head.split() == "2 workers one worker, by its share".split() and columns.endswith("all by 2 x one")
    assert row.split()[:3] == ["chat", "64", "39.20"] and " 32 " in row and row.endswith("0.980 ttft x1.55")
    sides["one worker"]["rounds"].clear()
    assert len(table(measured() | {"sides": sides, "workers": 2}).splitlines()) == 2


def test_more_sides_stand_below_each_other_with_their_memory():
    found = measured(**{"PREFILL_TOKENS=1024": 1.0, "PREFILL_TOKENS=2048": 2.0, "lingbi's choice": 3.0})
    found["sides"]["lingbi's choice"] |= {"gpu_peak_mib": 20000, "gpu_planned_mib": 21000}
    lines = table(found).splitlines()
    assert [line.rpartition("ms  ")[2] for line in lines[1:4]] == list(found["sides"])
    assert [line.split()[2] for line in lines[1:4]] == ["1.00", "2.00", "3.00"]
    assert lines[-1].endswith("MiB, at most 20000 MiB, planned 21000 MiB")


def test_the_chart_has_a_panel_for_each_kind(tmp_path, monkeypatch):
    found = measured(stock=1.0, lingbi=2.0)
    for side in found["sides"].values():
        side["rounds"].append(one_round("text", 1, 3.0, 10.0))
    figures = []
    monkeypatch.setattr("lingbi.bench.chart.pyplot.close", figures.append)
    draw(found, tmp_path / "curves.png")
    (figure,) = figures
    assert [panel.get_title() for panel in figure.axes] == ["image", "text"]
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["stock", "lingbi"]
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


class Faulty(BaseHTTPRequestHandler):
    """An API that fails every so many-th question with 503, or with an error in a 200, as stock lmdeploy does."""

    every, status, kind, asked = 3, 503, JSON, 0

    def log_message(self, *_):
        pass

    def do_GET(self):
        self._answer(200, JSON, {"data": [{"id": "internlm-xcomposer2-vl-7b"}]})

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        type(self).asked += 1
        if self.asked % self.every == 0:
            return self._answer(self.status, self.kind, {"error": "the engine is gone"})
        return self._answer(200, STREAM, {"choices": [{"delta": {"content": "红"}}]})

    def _answer(self, status: int, kind: str, content: dict) -> None:
        text = json.dumps(content)
        body = (f"data: {text}\n\ndata: [DONE]\n\n" if kind == STREAM else text).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


FAULTS = {
    "some refused": (3, 503, JSON),
    "some refused as a stream": (3, 503, STREAM),
    "some errors in a 200": (3, 200, JSON),
    "all refused": (1, 503, JSON),
}


@contextlib.contextmanager
def failing(every: int, status: int, kind: str):
    """A Faulty server; yields its URL."""
    handler = type("OneFaulty", (Faulty,), {"every": every, "status": status, "kind": kind})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(params=FAULTS.values(), ids=FAULTS)
def faulty(request):
    """(URL, whether it answers anything) of a server that fails."""
    every, *_ = request.param
    with failing(*request.param) as url:
        yield url, every > 1


def test_a_server_that_fails_is_told_by_the_exit_status(faulty, tmp_path, capsys):
    url, answers_some = faulty
    asked = ["--ask", "text:2", "--talks", "1", "--rounds", "2", "--tokens", "4", "--no-chart"]
    assert bench.main(["--url", url, *asked, "--to", str(tmp_path)]) == 1
    if not answers_some:
        assert "answered none of text x 2: 503" in capsys.readouterr().err and not (tmp_path / "rounds.json").exists()
        return
    rounds = json.loads((tmp_path / "rounds.json").read_text())["sides"]["server"]["rounds"]
    assert [one["requests"] for one in rounds] == [bench.LEAST_TALKS] * 2
    assert sum(one["failed"] for one in rounds) in (5, 6)  # a third of 16, after the warm-up's 2
    assert "the engine is gone" in rounds[0]["first_error"]
    assert json.loads((tmp_path / "medians.json").read_text())["server"]["vl_7b_text_c2_req_s"] > 0


@pytest.mark.parametrize(("send", "number"), [(os.killpg, signal.SIGINT), (os.kill, signal.SIGTERM)])
def test_what_was_measured_is_kept_when_it_is_interrupted(send, number, tmp_path):
    """By Ctrl-C, which a terminal sends to all processes of the command, or by whoever ends it."""
    with failing(every=10**9, status=200, kind=JSON) as url:
        asked = ["--url", url, "--ask", "text:2", "--rounds", "100000", "--no-chart", "--to", tmp_path]
        command = [sys.executable, "-m", "lingbi.bench", *map(str, asked)]
        streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, start_new_session=True, **streams)
        try:
            for _ in range(3):
                assert process.stderr.readline().startswith("text 2 ")
            send(process.pid, number)
            _, said = process.communicate(timeout=30)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode == 130 and said.endswith("interrupted\n") and "Traceback" not in said, said
    assert len(json.loads((tmp_path / "rounds.json").read_text())["sides"]["server"]["rounds"]) >= 2
