"""The image's entrypoint, here without an image: the same code and settings, on the CPU and on a GPU."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import httpx
import psutil
import pytest
import yaml

from lingbi import planner
from lingbi.accounts.key_file import Key, digest, ensure_keys, read_keys, save_keys, take_keys
from lingbi.errors import ConfigurationError
from lingbi.launch import doctor, entrypoint, health
from lingbi.launch.plan import Plan
from lingbi.launch.supervision import wait_until
from lingbi.model.gpus import Gpu
from lingbi.model.resources import Resources, unoccupied
from lingbi.settings import Settings
from tests.conftest import ROOT, answers, clean_environment, free_port, lingbi

PLENTY_MIB = 1 << 20
SEVEN = "internlm-xcomposer2-vl-7b"


def compose_settings(service: str, root) -> dict:
    """What compose.yaml sets for a service whose folders are under `root`, at a free port."""
    values = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"][service]["environment"]
    values = {name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value) for name, value in values.items()}  # their defaults
    placed = {name: f"{root}{value}" if value.startswith("/") else value for name, value in values.items()}
    return placed | {"LINGBI_PORT": str(free_port())}


@contextlib.contextmanager
def serving(root, **settings):
    """`serve`, as process 1 of Compose's server runs it, after `fetch`; yields its process, URL and log file."""
    log, keys = root / "log", [root / "var/lib/lingbi/api-key", root / "var/lib/lingbi-page/key"]
    state_dir = root / "var/lib/lingbi"
    state_dir.mkdir(parents=True)
    values = clean_environment(state_dir) | compose_settings("server", root) | settings
    command = [sys.executable, "-m", "lingbi.launch.entrypoint"]
    fetched = values | compose_settings("weights", root)
    subprocess.run([*command, "fetch"], env=fetched, cwd=state_dir, check=True)
    values["LINGBI_PORT"] = str(free_port())  # another test may have taken the former one meanwhile
    with log.open("a") as stream:  # supervisord opens it too, and both append
        process = subprocess.Popen([*command, "serve"], env=values, stdout=stream, stderr=stream, cwd=state_dir)
    url = f"http://127.0.0.1:{values['LINGBI_PORT']}"
    try:
        assert wait_until(lambda: process.poll() is not None or answers(f"{url}/ready"), 180)
        assert process.poll() is None, log.read_text()
        yield SimpleNamespace(process=process, url=url, log=log, state_dir=state_dir, keys=keys)
    except BaseException:
        print(log.read_text())  # pytest shows it where a test has failed
        raise
    finally:
        process.kill()
        process.wait(10)


@pytest.mark.parametrize("engine", ["cpu", pytest.param("turbomind", marks=pytest.mark.gpu)])
def test_it_becomes_supervisord_answers_comes_back_and_drains(tmp_path, engine):
    """As Compose starts it, but for the container; on a GPU the engine is chosen, without one as compose.cpu.yaml says."""
    asked = "auto" if engine == "turbomind" else engine
    with serving(tmp_path, LINGBI_MODEL="demo", LINGBI_ENGINE=asked, LINGBI_CACHE_FRACTION="0.05") as server:
        ready = httpx.get(f"{server.url}/ready").json()
        assert ready["engine"] == engine, ready
        for key in server.keys:
            done = lingbi("smoke", server.url, "--api-key-file", key, state_dir=server.state_dir)
            assert done.returncode == 0 and server.url in done.stdout, done.stderr
        health = lingbi("health", state_dir=server.state_dir)
        assert (health.returncode, health.stdout.strip()) == (0, "ready")
        (worker,) = psutil.Process(server.process.pid).children()
        log = server.log.read_text()
        assert "lingbi.worker" in worker.cmdline() and "worker-0" in log and "ready: " in log
        worker.kill()
        assert wait_until(lambda: not answers(f"{server.url}/ready"), 30)
        assert wait_until(lambda: answers(f"{server.url}/ready"), 180), server.log.read_text()
        assert lingbi("smoke", state_dir=server.state_dir).returncode == 0
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(90) == 0, server.log.read_text()
    health = lingbi("health", state_dir=server.state_dir)
    assert health.returncode == 1 and "refused" in health.stdout


def test_on_demand_an_idle_model_gives_its_memory_back_and_nothing_is_left_in_the_end(tmp_path):
    settings = {"LINGBI_ON_DEMAND": "true", "LINGBI_IDLE_TIMEOUT": "2", "LINGBI_ENGINE": "cpu", "LINGBI_MODEL": "demo"}
    with serving(tmp_path / ("long" * 20), **settings) as server:  # too long a path for a socket
        worker, arbiter = sorted(
            psutil.Process(server.process.pid).children(), key=lambda child: "lingbi.demand" in child.cmdline()
        )
        (first,) = worker.children()
        health = lingbi("health", state_dir=server.state_dir)
        assert (health.returncode, health.stdout.strip()) == (0, "ready")
        done = lingbi("smoke", server.url, "--core", "--api-key-file", server.keys[0], state_dir=server.state_dir)
        assert done.returncode == 0, done.stdout
        held = first.memory_info().rss
        assert wait_until(lambda: not first.is_running(), 30)
        (standing_by,) = worker.children()
        assert standing_by.memory_info().rss < held and answers(f"{server.url}/ready")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(90) == 0, server.log.read_text()
    assert "lingbi.arbiter" in server.log.read_text()
    assert not any(process.is_running() for process in (worker, arbiter, standing_by))
    assert not (server.state_dir / "run/worker-0.starts").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"LINGBI_PORT": "none"}, "LINGBI_PORT='none'"),
        ({"LINGBI_PICTURE_NETWORKS": "10.0.0.300"}, "LINGBI_PICTURE_NETWORKS='10.0.0.300'"),
        ({"LINGBI_MODEL": "vl-7b", "LINGBI_FETCH": "never"}, "LINGBI_FETCH=never forbids fetching it"),
        (
            {"LINGBI_GATEWAY_PROT": "1"},
            "LINGBI_GATEWAY_PROT='1': there is no such setting; did you mean LINGBI_GATEWAY_PORT?",
        ),
        (
            {"LINGBI_UI_MAX_PICTURES": "0"},
            "LINGBI_UI_MAX_PICTURES='0': input should be greater than or equal to 1 (most",
        ),
        ({"LINGBI_GATEWAY_PORT": "6006", "LINGBI_VERSION": "1.0"}, ""),
    ],
)
def test_bad_settings_stop_it_those_of_other_parts_too(tmp_path, settings, said):
    settings = {"LINGBI_MODEL": "demo", "LINGBI_MODELS_DIR": str(tmp_path / "models")} | settings
    command = [sys.executable, "-m", "lingbi.launch.entrypoint", "fetch"]
    environment = clean_environment(tmp_path / "state") | settings
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if said:
        assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    else:
        assert done.returncode == 0, done.stderr


def test_slices_are_named_to_cuda_and_whole_cards_are_not():
    assert entrypoint.slices({"NVIDIA_VISIBLE_DEVICES": "MIG-1,MIG-2"}) == {"CUDA_VISIBLE_DEVICES": "MIG-1,MIG-2"}
    assert entrypoint.slices({"NVIDIA_VISIBLE_DEVICES": "all"}) == entrypoint.slices({}) == {}
    assert entrypoint.slices({"NVIDIA_VISIBLE_DEVICES": "MIG-1", "CUDA_VISIBLE_DEVICES": "0"}) == {}


def test_keys_from_files_are_taken_and_followed(tmp_path):
    plain, keys = tmp_path / "plain", tmp_path / "keys"
    plain.mkdir()
    (plain / "ui").write_text("first\n")
    ensure_keys(keys, tmp_path / "api-key")
    take_keys(keys, plain)
    first = {key.name: key.digest for key in read_keys(keys)}
    (plain / "ui").write_text("second\n")
    take_keys(keys, plain)
    second = {key.name: key.digest for key in read_keys(keys)}
    assert first.keys() == second.keys() == {"default", "ui"}
    assert first["default"] == second["default"] and first["ui"] != second["ui"]
    before = keys.stat().st_mtime_ns
    take_keys(keys, plain)
    assert keys.stat().st_mtime_ns == before


def test_a_key_that_the_folder_has_no_longer_goes_and_one_of_the_operator_stays(tmp_path):
    plain, keys = tmp_path / "plain", tmp_path / "keys"
    plain.mkdir()
    for name in ("ui", "alice"):
        (plain / name).write_text(f"{name}\n")
    ensure_keys(keys, tmp_path / "api-key")
    save_keys(keys, [*read_keys(keys), Key("bob", digest(b"b"), 4), Key("alice", digest(b"before"), 7)])
    take_keys(keys, plain)
    taken = {key.name: (key.limit, key.is_given) for key in read_keys(keys)}
    assert taken == {"default": (None, False), "bob": (4, False), "alice": (7, True), "ui": (None, True)}
    (plain / "alice").unlink()
    take_keys(keys, plain)
    assert [key.name for key in read_keys(keys)] == ["default", "bob", "ui"]
    take_keys(keys, None)
    assert [key.name for key in read_keys(keys)] == ["default", "bob"]
    with pytest.raises(ConfigurationError, match="LINGBI_PLAIN_KEYS_DIR=.*cannot be read: No such file"):
        take_keys(keys, tmp_path / "gone")


def test_the_workers_are_listed_as_nginx_reads_them():
    settings = Settings(port=23333, workers_host="172.30.76.200")
    for models, marks in (
        ("demo*2", ("", "")),
        ("demo,vl-7b", (" # model=internlm-xcomposer2-demo", f" # model={SEVEN}")),
    ):
        wanted = settings.model_copy(update={"model": models, "engine": "cpu"})
        plan = Plan(wanted, planner.plan(wanted, Resources([], 1 << 20)), None)
        lines = [f"server 172.30.76.200:{23333 + worker};{mark}\n" for worker, mark in enumerate(marks)]
        assert entrypoint.workers_list(plan) == "".join(lines)


def test_health_names_the_models_whose_workers_are_not_ready(tmp_path, monkeypatch, capsys):
    ports = [free_port(), free_port()]
    monkeypatch.setenv("LINGBI_STATE_DIR", str(tmp_path))
    (tmp_path / "run").mkdir()
    for several, words in (({"models": ["a", "b"], "serves": ["a", "b"]}, ("a", "b")), ({}, ("port", "port"))):
        (tmp_path / "run/server.json").write_text(json.dumps({"ports": ports} | several))
        assert health.main() == 1
        said = capsys.readouterr().out
        assert all(f"{word} {port}: ConnectionRefusedError" in said for word, port in zip(words, ports, strict=True))


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(
        ConfigurationError, match=rf"LINGBI_STATE_DIR='{file}/x' cannot be written by user {os.getuid()}"
    ):
        entrypoint.check_writable("LINGBI_STATE_DIR", file / "x")


def test_a_replacement_is_judged_as_if_the_machine_were_free(tmp_path, monkeypatch, capsys):
    """Beside a running server there is no port for a second one, and no memory; neither counts."""
    for name, value in {"MODEL": "demo", "ENGINE": "cpu", "MODELS_DIR": tmp_path, "STATE_DIR": tmp_path}.items():
        monkeypatch.setenv(f"LINGBI_{name}", str(value))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setenv("LINGBI_PORT", str(taken.getsockname()[1]))
        assert doctor.main(["--replacing"]) == 0
    assert "in place of the one that runs" in capsys.readouterr().out
    assert "in place of the one that runs" in doctor.replacement(Resources([], PLENTY_MIB))
    with pytest.raises(ConfigurationError, match="needs"):
        doctor.replacement(Resources([], 200))


def test_a_machine_with_nothing_on_it_has_empty_cards():
    busy = Resources([Gpu("0", "L4", 24_000, 1_000), Gpu("1", "L4", 24_000, 0)], 0)
    empty = unoccupied(busy)
    assert empty.gpus == [Gpu("0", "L4", 24_000, 24_000), Gpu("1", "L4", 24_000, 24_000)]
    assert empty.host_mib > busy.host_mib


def test_commands_that_need_no_model_do_not_load_what_runs_one():
    """Each command of the image, and each fetch, would wait for it."""
    code = (
        "import sys, lingbi.launch.entrypoint, lingbi.launch.doctor, lingbi.cli.key; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], env=os.environ).returncode == 0


def test_many_look_at_one_volume_at_once(tmp_path):
    """As containers do, where each entrypoint has the same process id."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: entrypoint.check_writable("LINGBI_MODELS_DIR", tmp_path), range(2000)))
