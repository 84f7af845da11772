"""scripts/up, scripts/down and scripts/smoke as people use them, and their failures."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile

import httpx
import psutil
import pytest

from lingbi.supervision import Supervisor, wait_until
from lingbi.up import curl_line
from tests.conftest import DEMO, answers, clean_environment, free_port, lingbi, running_server


def test_smoke_passes_and_reports_every_check(demo_server):
    done = lingbi("smoke", "--json", state_dir=demo_server["state_dir"])
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    names = {check["name"] for check in report["checks"]}
    assert names >= {
        "live",
        "ready",
        "key-required",
        "picture",
        "describe-zh",
        "colour",
        "conversation",
        "stream",
        "bad-picture",
    }


def test_smoke_takes_a_url_and_a_key_file(demo_server, tmp_path):
    done = lingbi(
        "smoke", demo_server["url"] + "/v1/", "--api-key-file", demo_server["api_key_file"], state_dir=tmp_path / "s"
    )
    assert done.returncode == 0, done.stderr


def test_smoke_fails_on_a_wrong_answer(demo_server, monkeypatch):
    """The checks must be able to fail: the same server, asked about another picture than it is judged by."""
    from lingbi import scenes, smoke, smoke_checks

    monkeypatch.setenv("LINGBI_STATE_DIR", str(demo_server["state_dir"]))
    real_draw = smoke_checks.draw
    other = scenes.Scene((scenes.Thing("green", "square"),))
    monkeypatch.setattr(smoke_checks, "draw", lambda scene: real_draw(other))
    assert smoke.main([]) == 1


@pytest.mark.parametrize("arguments", [(), ("http://127.0.0.1:1",)])
def test_smoke_that_cannot_run_exits_2(tmp_path, arguments):
    done = lingbi("smoke", *arguments, state_dir=tmp_path / "state")
    assert done.returncode == 2 and done.stderr.startswith("error: ")


def test_smoke_with_a_wrong_key_exits_2(demo_server, tmp_path):
    (tmp_path / "key").write_text("wrong\n")
    done = lingbi("smoke", demo_server["url"], "--api-key-file", tmp_path / "key", state_dir=tmp_path / "state")
    assert done.returncode == 2 and "401" in done.stderr


def test_the_printed_curl_line_works_when_pasted(demo_server):
    line = curl_line(demo_server["url"], demo_server["key"], demo_server["model"])
    answer = json.loads(subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True).stdout)
    assert "蓝" in answer["choices"][0]["message"]["content"], answer


def test_the_openai_client_works_unchanged(demo_server):
    from openai import OpenAI

    from lingbi.scenes import Scene, Thing
    from lingbi.smoke_checks import data_url

    client = OpenAI(base_url=demo_server["url"] + "/v1", api_key=demo_server["key"])
    model = client.models.list().data[0].id
    picture = {"type": "image_url", "image_url": {"url": data_url(Scene((Thing("green", "triangle"),)))}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "What colour is it?"}, picture]}]
    whole = client.chat.completions.create(model=model, messages=messages, max_tokens=32, temperature=0)
    assert "green" in whole.choices[0].message.content
    chunks = client.chat.completions.create(model=model, messages=messages, max_tokens=32, temperature=0, stream=True)
    assert "green" in "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def test_32_tokens_of_the_demo_take_less_than_2_seconds(demo_server):
    client = httpx.Client(base_url=demo_server["url"], headers={"Authorization": f"Bearer {demo_server['key']}"})
    body = {"model": demo_server["model"], "messages": [{"role": "user", "content": "hello"}], "max_tokens": 32}
    start = time.monotonic()
    usage = client.post("/v1/chat/completions", json=body | {"ignore_eos": True}).json()["usage"]
    assert usage["completion_tokens"] == 32 and time.monotonic() - start < 2


def test_memory_at_rest_is_under_2_gib(demo_server):
    supervisor = Supervisor(demo_server["state_dir"])
    processes = [supervisor.process(), *supervisor.workers_left()]
    assert len(processes) == 2 and sum(process.memory_info().rss for process in processes) < 2 << 30


def test_key_is_in_no_process_list_and_in_no_log(demo_server):
    for process in psutil.process_iter():
        try:
            assert demo_server["key"] not in " ".join(process.cmdline())
        except psutil.NoSuchProcess:
            continue
    for log in (demo_server["state_dir"] / "logs").iterdir():
        assert demo_server["key"] not in log.read_text()


def test_a_second_up_is_refused_and_disturbs_nothing(demo_server):
    again = lingbi("up", "--json", state_dir=demo_server["state_dir"])
    assert again.returncode == 2 and demo_server["url"] in again.stderr
    assert httpx.get(demo_server["url"] + "/ready").status_code == 200


def test_a_killed_worker_comes_back_and_answers(demo_server):
    (worker,) = Supervisor(demo_server["state_dir"]).workers_left()
    worker.send_signal(signal.SIGKILL)
    assert not psutil.wait_procs([worker], timeout=10)[1]

    assert wait_until(lambda: answers(demo_server["url"] + "/ready"), 60)
    assert lingbi("smoke", state_dir=demo_server["state_dir"]).returncode == 0
    assert 'lingbi_worker_restarts_total{reason="crashed"} 1.0' in httpx.get(demo_server["url"] + "/metrics").text


def test_a_taken_port_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = lingbi("up", "--port", port, state_dir=tmp_path / "state")
    assert done.returncode == 2 and f"port {port}" in done.stderr


def sparse_checkpoint(folder, size: int, name: str = "archive/data.pkl"):
    """Make the folder's checkpoint a valid archive of this size that takes no disk."""
    file = folder / "pytorch_model.bin"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, b"")
    tail = file.read_bytes()
    with file.open("wb") as stream:
        stream.truncate(size)
        stream.seek(size - len(tail))
        stream.write(tail)


BAD = {
    "missing": (lambda folder: shutil.rmtree(folder), "does not exist"),
    "half": (lambda folder: (folder / "pytorch_model.bin").unlink(), "holds no weights"),
    "zip": (lambda folder: sparse_checkpoint(folder, 1 << 20, "holiday.jpg"), "zip of something else"),
    "too big": (lambda folder: sparse_checkpoint(folder, 1 << 42), "needs 4195328 MiB"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_model_folder_leaves_nothing_behind(tmp_path, fault):
    folder = shutil.copytree(DEMO, tmp_path / "model")
    spoil, message = BAD[fault]
    spoil(folder)
    done = lingbi("up", "--model", folder, "--engine", "cpu", "--port", free_port(), state_dir=tmp_path / "state")
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    supervisor = Supervisor(tmp_path / "state")
    assert supervisor.process() is None and supervisor.workers_left() == []


def test_a_model_that_does_not_load_ends_with_its_log(tmp_path):
    """The folder looks right, but a tensor is missing: only loading can tell."""
    import torch

    folder = shutil.copytree(DEMO, tmp_path / "model")
    weights = torch.load(folder / "pytorch_model.bin", weights_only=True)
    weights.pop("output.weight")
    torch.save(weights, folder / "pytorch_model.bin")
    done = lingbi("up", "--model", folder, "--port", free_port(), state_dir=tmp_path / "state")
    assert done.returncode == 3 and "lacks 1 tensors, output.weight first" in done.stderr
    supervisor = Supervisor(tmp_path / "state")
    assert supervisor.process() is None and supervisor.workers_left() == []


def test_turbomind_without_a_gpu_is_refused(tmp_path):
    done = lingbi("up", "--engine", "turbomind", state_dir=tmp_path / "state", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 2 and "needs an NVIDIA GPU" in done.stderr


def test_ctrl_c_leaves_nothing_running(tmp_path):
    state_dir = tmp_path / "state"
    for is_starting in (True, False):  # which of the later phases is seen depends on the machine
        command = [sys.executable, "-m", "lingbi.up", "--port", str(free_port())]
        up = subprocess.Popen(
            command,
            env=clean_environment(state_dir),
            stderr=subprocess.PIPE,
            text=True,
            # a suite that a script runs in the background inherits "ignore Ctrl-C", and so would this
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        for line in up.stderr:
            if "worker-0  " in line and ("starting" in line) == is_starting:
                break
        up.send_signal(signal.SIGINT)
        assert up.wait(60) == 130 and "nothing is left running" in up.stderr.read()
        supervisor = Supervisor(state_dir)
        assert supervisor.process() is None and supervisor.workers_left() == []


def test_a_folder_with_spaces_dots_and_another_models_name_serves(tmp_path):
    folder = shutil.copytree(DEMO, tmp_path / "internlm2-chat v1.5" / "my model.v2")
    with running_server(tmp_path / "state dir", "--model", f"{folder}/", "--engine", "cpu") as report:
        assert lingbi("smoke", state_dir=tmp_path / "state dir").returncode == 0
        assert report["model"] == "internlm-xcomposer2-demo"


def test_down_without_up_is_fine(tmp_path):
    done = lingbi("down", state_dir=tmp_path / "state")
    assert done.returncode == 0 and "not up" in done.stdout


def test_down_also_ends_workers_whose_supervisor_was_killed(tmp_path):
    state_dir = tmp_path / "state"
    with running_server(state_dir, "--model", "demo", "--engine", "cpu"):
        supervisor = Supervisor(state_dir)
        supervisor.process().kill()
        assert wait_until(lambda: supervisor.process() is None, 10)
        assert len(supervisor.workers_left()) == 1
    assert supervisor.workers_left() == []


def test_state_paths_too_long_for_a_socket_work(tmp_path):
    state_dir = tmp_path / ("long" * 30)
    with running_server(state_dir, "--model", "demo", "--engine", "cpu") as report:
        assert httpx.get(report["url"] + "/ready").status_code == 200
    assert not os.path.exists(Supervisor(state_dir).pid_file)
