"""scripts/bench on a server that runs: figures of every round, medians, a table and a chart."""

import json

from tests.conftest import free_port, lingbi

ASK = {("image", 1), ("image", 2), ("text", 2)}
ROUNDS, LEAST_TALKS = 2, 8


def test_a_running_server_is_measured(demo_server, tmp_path):
    options = ("--ask", "image:1,2", "text:2", "--talks", "1", "--rounds", ROUNDS, "--tokens", "8", "--to", "found")
    where = ("--url", demo_server["url"] + "/v1", "--api-key-file", demo_server["api_key_file"])
    done = lingbi("bench", *where, *options, state_dir=tmp_path / "state")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found/rounds.json").read_text())
    assert (found["model"], found["tokens"], found["sides"].keys()) == ("internlm-xcomposer2-demo", 8, {"server"})
    rounds = found["sides"]["server"]["rounds"]
    assert {(one["kind"], one["people"]) for one in rounds} == ASK and len(rounds) == ROUNDS * len(ASK)
    for one in rounds:
        assert (one["requests"], one["failed"]) == (LEAST_TALKS, 0), one
        assert one["req_s"] > 0 and one["ttft_ms"]["p50"] <= one["ttft_ms"]["p99"] <= 1000 * one["seconds"]
    medians = json.loads((tmp_path / "found/medians.json").read_text())["server"]
    names = {f"demo_{kind}_c{people}_{figure}" for kind, people in ASK for figure in ("req_s", "ttft_ms")}
    assert medians.keys() == names | {"demo_ttft_c1_ms"} and min(medians.values()) > 0
    rows = [tuple(line.split()[:2]) for line in done.stdout.splitlines()]
    assert rows[1] == ("kind", "people") and set(rows[2:-1]) == {(kind, str(people)) for kind, people in ASK}
    assert (tmp_path / "found/curves.png").read_bytes().startswith(b"\x89PNG")


def test_several_urls_are_measured_beside_one_of_their_workers(demo_server, tmp_path):
    """The same server twice, as two would need another: it has all questions of both."""
    url = demo_server["url"]
    options = ("--ask", "text:4", "--talks", "2", "--rounds", "1", "--tokens", "4", "--no-chart", "--to", "found")
    where = ("--url", url, f"{url}/v1", "--worker", url, "--api-key-file", demo_server["api_key_file"])
    done = lingbi("bench", *where, *options, state_dir=tmp_path / "state")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found/rounds.json").read_text())
    (together,), (alone,) = (side["rounds"] for side in found["sides"].values())
    assert found["workers"] == 2 and list(found["sides"]) == ["2 workers", "one worker"]
    assert (together["people"], together["requests"], alone["people"], alone["requests"]) == (4, 8, 2, 8)
    assert together["failed"] == alone["failed"] == 0
    ratio = float(done.stdout.splitlines()[2].split()[-3])
    assert ratio == round(together["req_s"] / alone["req_s"] / 2, 3)


def test_a_wrong_key_and_no_server_stop_it_with_a_sentence(demo_server, tmp_path):
    (tmp_path / "key").write_text("wrong")
    for url, said in (
        (demo_server["url"], "answered 401"),
        (f"http://127.0.0.1:{free_port()}", "no lingbi server answers"),
    ):
        done = lingbi("bench", "--url", url, "--api-key-file", tmp_path / "key", state_dir=tmp_path / "state")
        assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
