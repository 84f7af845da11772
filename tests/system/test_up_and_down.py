"""scripts/up and scripts/down as people use them, and their failures."""

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

from lingbi.client.addresses import record_file
from lingbi.errors import ConfigurationError
from lingbi.launch import down
from lingbi.launch.plan import check_port, worker_address
from lingbi.launch.starts import curl_line
from lingbi.launch.supervision import Supervisor, only_one, wait_until
from lingbi.model.catalogue import DEMO_SERVED_NAME
from lingbi.settings import load_settings
from tests.conftest import DEMO, answers, clean_environment, free_port, lingbi, running_server

REPORTED = ["url", "api_key_file", "model", "engine", "seconds"]


def test_up_reports_exactly_what_its_help_says(demo_server):
    ours = {"key", "port", "state_dir"}  # what tests add
    assert list(name for name in demo_server if name not in ours) == REPORTED


def test_the_printed_curl_line_works_when_pasted(demo_server):
    line = curl_line(demo_server["url"], demo_server["key"], demo_server["model"])
    answer = json.loads(subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True).stdout)
    assert "蓝" in answer["choices"][0]["message"]["content"], answer


def test_the_openai_client_works_unchanged(demo_server):
    from openai import OpenAI

    from lingbi.images.scenes import Scene, Thing
    from lingbi.smoke.checks import data_url

    client = OpenAI(base_url=demo_server["url"] + "/v1", api_key=demo_server["key"])
    model = client.models.list().data[0].id
    image = {"type": "image_url", "image_url": {"url": data_url(Scene((Thing("green", "triangle"),)))}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "What colour is it?"}, image]}]
    whole = client.chat.completions.create(model=model, messages=messages, max_tokens=32, temperature=0)
    assert "green" in whole.choices[0].message.content
    chunks = client.chat.completions.create(model=model, messages=messages, max_tokens=32, temperature=0, stream=True)
    assert "green" in "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def test_32_tokens_of_the_demo_take_less_than_2_seconds(demo_server):
    """The quickest of five, since other processes may have the cores meanwhile."""
    client = httpx.Client(base_url=demo_server["url"], headers={"Authorization": f"Bearer {demo_server['key']}"})
    body = {"model": demo_server["model"], "messages": [{"role": "user", "content": "hello"}], "max_tokens": 32}

    def seconds() -> float:
        start = time.monotonic()
        usage = client.post("/v1/chat/completions", json=body | {"ignore_eos": True}, timeout=60).json()["usage"]
        assert usage["completion_tokens"] == 32
        return time.monotonic() - start

    assert any(seconds() < 2 for _ in range(5))


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


def test_the_curl_line_goes_past_proxies_and_checks_our_own_certificate(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    assert "--noproxy" not in curl_line("u", "k", "m") and "--cacert" not in curl_line("u", "k", "m")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert "--noproxy '*'" in curl_line("u", "k", "m") and "--cacert '/a b.pem'" in curl_line("u", "k", "m", "/a b.pem")


def test_the_curl_line_works_where_a_proxy_is_set(demo_server, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    line = curl_line(demo_server["url"], demo_server["key"], demo_server["model"])
    assert "choices" in subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True).stdout


def test_two_starts_do_not_meet(tmp_path):
    with only_one(tmp_path / "state"):
        for command in ("up", "down"):
            done = lingbi(command, state_dir=tmp_path / "state")
            assert done.returncode == 2 and "another scripts/up is at work on" in done.stderr


@pytest.mark.parametrize(
    ("host", "written"),
    [("::", "[::1]"), ("::1", "[::1]"), ("[::1]", "[::1]"), ("0.0.0.0", "127.0.0.1"), ("10.0.0.1", "10.0.0.1")],
)
def test_addresses_of_workers_are_those_to_connect_to_as_urls_want_them(tmp_path, host, written):
    settings = load_settings(host=host, port=7000, state_dir=tmp_path)
    assert worker_address(settings, 1) == f"{written}:7001"


@pytest.mark.skipif(not os.path.exists("/proc/net/if_inet6"), reason="this machine has no IPv6")
def test_a_server_on_ipv6_answers_beside_one_on_ipv4(tmp_path):
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        check_port("::", port, "LINGBI_PORT")
        with pytest.raises(ConfigurationError, match=f"cannot listen on 0.0.0.0 port {port}"):
            check_port("0.0.0.0", port, "LINGBI_PORT")
    port = free_port()
    options = ("--server-only", "--host", "::1", "--port", port, "--model", "demo", "--engine", "cpu")
    try:
        up = lingbi("up", "--json", *options, state_dir=tmp_path / "state")
        assert up.returncode == 0, up.stderr
        assert json.loads(up.stdout)["url"] == f"http://[::1]:{port}"
        assert httpx.get(f"http://[::1]:{port}/ready").status_code == 200
    finally:
        lingbi("down", state_dir=tmp_path / "state")


def test_a_second_up_is_refused_and_disturbs_nothing(demo_server):
    again = lingbi("up", "--json", state_dir=demo_server["state_dir"])
    assert again.returncode == 2 and demo_server["url"] in again.stderr
    assert httpx.get(demo_server["url"] + "/ready").status_code == 200


def test_a_killed_worker_comes_back_and_answers(demo_server):
    (worker,) = Supervisor(demo_server["state_dir"]).workers_left()
    worker.send_signal(signal.SIGKILL)
    assert not psutil.wait_procs([worker], timeout=10)[1]

    assert wait_until(lambda: answers(demo_server["url"] + "/ready"), 120)
    assert lingbi("smoke", state_dir=demo_server["state_dir"]).returncode == 0
    assert (
        f'lingbi_worker_restarts_total{{model="{DEMO_SERVED_NAME}",reason="crashed"}} 1.0'
        in httpx.get(demo_server["url"] + "/metrics").text
    )


def test_a_taken_port_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = lingbi("up", "--port", port, state_dir=tmp_path / "state")
    assert done.returncode == 2 and f"port {port}" in done.stderr


def sparse_checkpoint(folder, size: int):
    """Make the folder's checkpoint a valid archive of this size that takes no disk."""
    file = folder / "pytorch_model.bin"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    tail = file.read_bytes()
    with file.open("wb") as stream:
        stream.truncate(size)
        stream.seek(size - len(tail))
        stream.write(tail)


def assert_nothing_runs(state_dir):
    supervisor = Supervisor(state_dir)
    assert supervisor.supervisors_left() == [] == supervisor.left()


BAD = {
    "half": (lambda folder: (folder / "pytorch_model.bin").unlink(), "holds no weights"),
    "too big": (lambda folder: sparse_checkpoint(folder, 1 << 42), "MiB are memory available here"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_model_folder_leaves_nothing_behind(tmp_path, fault):
    folder = shutil.copytree(DEMO, tmp_path / "model")
    spoil, message = BAD[fault]
    spoil(folder)
    done = lingbi("up", "--model", folder, "--engine", "cpu", "--port", free_port(), state_dir=tmp_path / "state")
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    assert_nothing_runs(tmp_path / "state")


def test_a_model_that_does_not_load_ends_with_its_log(tmp_path):
    """The folder looks right, but a tensor is missing: only loading can tell."""
    import torch

    folder = shutil.copytree(DEMO, tmp_path / "model")
    weights = torch.load(folder / "pytorch_model.bin", weights_only=True)
    weights.pop("output.weight")
    torch.save(weights, folder / "pytorch_model.bin")
    done = lingbi("up", "--model", folder, "--port", free_port(), state_dir=tmp_path / "state")
    assert done.returncode == 3 and "lacks 1 tensors, output.weight first" in done.stderr
    assert_nothing_runs(tmp_path / "state")


def test_turbomind_without_a_gpu_is_refused(tmp_path):
    done = lingbi("up", "--engine", "turbomind", state_dir=tmp_path / "state", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 2 and "needs an NVIDIA GPU" in done.stderr


@pytest.mark.parametrize(
    ("numbers", "is_starting", "status"),  # which of the later phases is seen depends on the machine
    [
        ((signal.SIGINT, signal.SIGINT, signal.SIGTERM), True, 130),
        ((signal.SIGTERM,), False, 143),
        ((signal.SIGHUP,), True, 129),
    ],
)
def test_a_signal_leaves_nothing_running_and_the_next_ones_do_not_hinder_it(tmp_path, numbers, is_starting, status):
    state_dir = tmp_path / "state"
    command = [sys.executable, "-m", "lingbi.launch.up", "--port", str(free_port())]
    up = subprocess.Popen(
        command,
        env=clean_environment(state_dir),
        stderr=subprocess.PIPE,
        text=True,
        # a suite that a script runs in the background inherits "ignore Ctrl-C", and so would this
        preexec_fn=lambda: [signal.signal(number, signal.SIG_DFL) for number in set(numbers)],
    )
    for line in up.stderr:
        if "worker-0  " in line and ("starting" in line) == is_starting:
            break
    for number in numbers:
        up.send_signal(number)
        time.sleep(0.3)
    assert up.wait(60) == status and "nothing is left running" in up.stderr.read()
    assert_nothing_runs(state_dir)


def test_what_does_not_end_in_time_is_killed_with_its_children(tmp_path):
    """nginx's master waits for its workers, and these for their clients."""
    title = f"nginx: master process nginx -c {tmp_path}/gateway/nginx.conf"
    script = "import os, signal, time; [signal.signal(n, signal.SIG_IGN) for n in (3, 15)]; os.fork(); time.sleep(99)"
    python = os.path.realpath(sys.executable)
    master = subprocess.Popen([title, "-I", "-c", script], executable=python)
    try:
        process = psutil.Process(master.pid)
        assert wait_until(process.children, 20)
        family = [process, *process.children()]
        assert [item.pid for item in Supervisor(tmp_path).front_left()][:1] == [master.pid]
        assert Supervisor(tmp_path).stop(timeout_s=0.5)
        assert len(family) == 2 and not psutil.wait_procs(family, timeout=5)[1]
    finally:
        master.kill()


def test_a_folder_with_spaces_dots_and_another_models_name_serves_from_a_path_too_long_for_a_socket(tmp_path):
    folder = shutil.copytree(DEMO, tmp_path / "internlm2-chat v1.5" / "my model.v2")
    state_dir = tmp_path / ("long dir" * 15)
    with running_server(state_dir, "--model", f"{folder}/", "--engine", "cpu") as report:
        assert lingbi("smoke", state_dir=state_dir).returncode == 0
        assert report["model"] == "internlm-xcomposer2-demo"
        end_by_another_path(state_dir, tmp_path / "link")
    assert not os.path.exists(Supervisor(state_dir).pid_file)


def end_by_another_path(state_dir, link) -> None:
    """What runs is found, and ended, by a link to its state folder."""
    link.symlink_to(state_dir)
    again = lingbi("up", "--server-only", state_dir=link)
    assert again.returncode == 2 and "already up" in again.stderr, again.stderr
    done = lingbi("down", state_dir=link)
    assert done.returncode == 0 and done.stdout == "lingbi is down.\n"
    assert Supervisor(state_dir).left() == [] and not record_file(state_dir).exists()


def test_down_without_up_is_fine(tmp_path):
    done = lingbi("down", state_dir=tmp_path / "state")
    assert done.returncode == 0 and "not up" in done.stdout


def test_down_leaves_a_gateways_folder_only_for_its_certificate(tmp_path):
    for name, stays in (("rendered", False), ("tls", True)):
        folder = tmp_path / name
        (folder / name).mkdir(parents=True)
        down.clear_gateway(folder)
        assert folder.exists() is stays
    down.clear_gateway(tmp_path / "never made")


def test_the_record_stays_while_anything_runs(demo_server, monkeypatch, capsys):
    """As when the server belongs to another user, whose processes cannot be told from others'."""
    state_dir = demo_server["state_dir"]
    monkeypatch.setattr(Supervisor, "stop", lambda supervisor, timeout_s: False)
    monkeypatch.setenv("LINGBI_STATE_DIR", str(state_dir))
    assert down.main([]) == 1
    assert "still runs, and belongs to" in capsys.readouterr().err and record_file(state_dir).exists()


def test_down_also_ends_workers_whose_supervisor_was_killed(tmp_path):
    state_dir = tmp_path / "state"
    with running_server(state_dir, "--model", "demo", "--engine", "cpu"):
        supervisor = Supervisor(state_dir)
        supervisor.process().kill()
        assert wait_until(lambda: supervisor.process() is None, 10)
        assert len(supervisor.workers_left()) == 1
        again = lingbi("up", state_dir=state_dir)
        assert again.returncode == 2 and "earlier start are left" in again.stderr and "scripts/down" in again.stderr
    assert supervisor.workers_left() == []
