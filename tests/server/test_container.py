"""The image's entrypoint, here without an image: the same code and settings, on the CPU and on a GPU."""

import contextlib
import os
import signal
import subprocess
import sys

import pytest

from lingbi import container
from lingbi.keys import ensure_keys, read_keys, take_keys
from lingbi.memory import available_mib
from lingbi.supervision import wait_until
from tests.conftest import answers, clean_environment, free_port, lingbi


@contextlib.contextmanager
def serving(folder, **settings):
    """`serve`, as process 1 of a container runs it; yields its process, URL and log file."""
    port, log = free_port(), folder / "log"
    values = {"LINGBI_MODEL": "demo", "LINGBI_PORT": str(port), "LINGBI_MODELS_DIR": str(folder / "models")} | settings
    command = [sys.executable, "-m", "lingbi.container", "serve"]
    with log.open("w") as stream:
        process = subprocess.Popen(
            command, env=clean_environment(folder / "state") | values, stdout=stream, stderr=stream, cwd=folder
        )
    try:
        assert wait_until(lambda: process.poll() is not None or answers(f"http://127.0.0.1:{port}/ready"), 180)
        assert process.poll() is None, log.read_text()
        yield process, f"http://127.0.0.1:{port}", log
    finally:
        process.kill()
        process.wait(10)


@pytest.mark.parametrize("engine", ["cpu", pytest.param("turbomind", marks=pytest.mark.gpu)])
def test_it_becomes_supervisord_answers_and_drains(tmp_path, engine):
    cache = {"LINGBI_CACHE_FRACTION": "0.05"}
    with serving(tmp_path, LINGBI_ENGINE=engine, **cache) as (process, url, log):
        done = lingbi("smoke", state_dir=tmp_path / "state")
        assert done.returncode == 0 and url in done.stdout, done.stderr
        health = lingbi("health", state_dir=tmp_path / "state")
        assert (health.returncode, health.stdout.strip()) == (0, "ready")
        assert '"worker-0' in log.read_text() or "worker-0" in log.read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(90) == 0, log.read_text()
    health = lingbi("health", state_dir=tmp_path / "state")
    assert health.returncode == 1 and "refused" in health.stdout


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"LINGBI_PORT": "none"}, "LINGBI_PORT='none'"),
        ({"LINGBI_PICTURE_NETWORKS": "10.0.0.300"}, "LINGBI_PICTURE_NETWORKS='10.0.0.300'"),
        ({"LINGBI_MODEL": "vl-7b", "LINGBI_FETCH": "never"}, "LINGBI_FETCH=never forbids to fetch it"),
        ({"LINGBI_GATEWAY_PROT": "1", "LINGBI_VERSION": "1.0"}, ""),
    ],
)
def test_bad_settings_stop_it_and_those_of_others_do_not(tmp_path, settings, said):
    settings = {"LINGBI_MODEL": "demo", "LINGBI_MODELS_DIR": str(tmp_path / "models")} | settings
    command = [sys.executable, "-m", "lingbi.container", "fetch" if not said else "serve"]
    environment = clean_environment(tmp_path / "state") | settings
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if said:
        assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    else:
        assert done.returncode == 0, done.stderr


def test_slices_are_named_to_cuda_and_whole_cards_are_not():
    assert container.slices({"NVIDIA_VISIBLE_DEVICES": "MIG-1,MIG-2"}) == {"CUDA_VISIBLE_DEVICES": "MIG-1,MIG-2"}
    assert container.slices({"NVIDIA_VISIBLE_DEVICES": "all"}) == container.slices({}) == {}
    assert container.slices({"NVIDIA_VISIBLE_DEVICES": "MIG-1", "CUDA_VISIBLE_DEVICES": "0"}) == {}


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


def test_memory_limits_of_the_first_version_of_control_groups_are_seen(tmp_path):
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory/memory.limit_in_bytes").write_text(f"{300 << 20}\n")
    (tmp_path / "memory/memory.usage_in_bytes").write_text(f"{100 << 20}\n")
    assert available_mib(tmp_path) == 200


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    from lingbi.errors import ConfigurationError

    file = tmp_path / "file"
    file.touch()
    with pytest.raises(
        ConfigurationError, match=rf"LINGBI_STATE_DIR='{file}/x' cannot be written by user {os.getuid()}"
    ):
        container.check_writable("LINGBI_STATE_DIR", file / "x")
