"""What a server does about weights: fetch, look, check, refuse; and without any network."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time

import httpx
import pytest

from lingbi.errors import CheckError, ConfigurationError
from lingbi.model.resolve import find_model
from lingbi.settings import load_settings
from lingbi.weights import verification
from lingbi.weights.folder import WeightsFolder
from lingbi.weights.lockfile import read
from lingbi.weights.progress import Progress
from lingbi.weights.start import ensure
from tests.conftest import DEMO, ROOT, clean_environment, free_port, lingbi, running_server
from tests.weights.conftest import MIB, MODEL, fetch_from, same_files


@pytest.fixture
def settings(hub, tmp_path):
    return load_settings(
        models_dir=tmp_path / "models", state_dir=tmp_path / "state", hub_endpoint=hub.url, fetch_patience_s=3
    )


def start(settings, name=MODEL, **changes) -> Progress:
    settings = settings.model_copy(update=changes)
    progress = Progress()
    ensure(find_model(name, settings.models_dir), settings, progress)
    return progress


def test_missing_weights_are_fetched_once(hub, settings):
    start(settings)
    assert same_files(settings.models_dir / "lab--model", hub.root / MODEL)
    hub.requests.clear()
    start(settings)
    assert hub.requests == []


def test_a_start_with_the_marker_valid_takes_under_50_ms(hub, settings):
    start(settings)
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        start(settings)
        times.append(time.perf_counter() - begin)
    assert min(times) < 0.05


def test_missing_weights_are_not_fetched_where_that_is_forbidden(hub, settings):
    with pytest.raises(ConfigurationError, match="LINGBI_FETCH=never forbids fetching it"):
        start(settings, fetch="never")
    assert hub.requests == []


def test_a_spoiled_shard_is_found_and_comes_again(hub, settings):
    start(settings)
    spoiled = settings.models_dir / "lab--model" / "extra.dat"
    with spoiled.open("r+b") as stream:
        stream.write(b"spoiled")
    start(settings)
    assert same_files(settings.models_dir / "lab--model", hub.root / MODEL)


def test_a_spoiled_shard_that_may_not_be_fetched_ends_the_start(hub, settings):
    start(settings)
    (settings.models_dir / "lab--model" / "extra.dat").write_bytes(bytes(3 * MIB))
    with pytest.raises(CheckError, match="extra.dat does not match its SHA-256"):
        start(settings, fetch="never")


def test_changed_remote_code_is_named_loudly(hub, settings):
    start(settings)
    code = settings.models_dir / "lab--model" / "modeling_internlm2.py"
    code.write_text(code.read_text().replace("a", "b", 1))
    with pytest.raises(CheckError, match="REMOTE CODE modeling_internlm2.py does not match"):
        start(settings, fetch="never")


def test_an_update_names_changed_remote_code(hub, settings, caplog):
    start(settings)
    newer = hub.root / f"{MODEL}@v2"
    shutil.copytree(hub.root / MODEL, newer)
    (newer / "build_mlp.py").write_text((newer / "build_mlp.py").read_text() + "\n# changed\n")
    fetch_from(hub, settings.models_dir / "lab--model", update=True, hub_revision="v2")
    assert "REMOTE CODE CHANGED: build_mlp.py" in caplog.text


def test_after_a_restart_of_the_machine_what_it_fetched_is_checked_once(hub, settings, monkeypatch):
    start(settings)
    folder = WeightsFolder(settings.models_dir / "lab--model")
    monkeypatch.setattr(verification, "boot_id", lambda: "another boot")
    assert "rebooted since" in verification.reason_to_recheck(folder.marker_file, folder.path, folder.lock())
    start(settings)
    monkeypatch.setattr(verification, "boot_id", lambda: "a third boot")
    assert verification.reason_to_recheck(folder.marker_file, folder.path, folder.lock()) is None


def test_code_beside_the_locked_is_named_at_every_start(hub, settings, caplog):
    start(settings)
    assert "REMOTE CODE" not in caplog.text
    (settings.models_dir / "lab--model" / "hidden.py").touch()
    start(settings)
    assert "REMOTE CODE NOT IN THE LOCK" in caplog.text and "hidden.py" in caplog.text


class TestLock:
    def test_one_that_is_not_there_is_told_where_weights_are(self, hub, settings, tmp_path, caplog):
        start(settings)
        assert "LINGBI_WEIGHTS_LOCK" not in caplog.text
        start(settings, weights_lock=tmp_path / "mistyped.json")
        assert "mistyped.json: there is no such file" in caplog.text

    def test_a_first_fetch_writes_it_and_others_are_held_to_it(self, hub, settings, tmp_path):
        lock = tmp_path / "lock.json"
        start(settings, weights_lock=lock)
        again = settings.model_copy(update={"models_dir": tmp_path / "host 2", "weights_lock": lock})
        start(again)
        assert read(lock) == read(WeightsFolder(tmp_path / "host 2" / "lab--model").lock_file)

    def test_a_hub_that_has_moved_on_is_refused(self, hub, settings, tmp_path):
        lock = tmp_path / "lock.json"
        start(settings, weights_lock=lock)
        (hub.root / MODEL / "extra.dat").write_bytes(os.urandom(3 * MIB))
        with pytest.raises(CheckError, match="sent bytes for lab/model extra.dat that do not match SHA-256"):
            start(settings, weights_lock=lock, models_dir=tmp_path / "host 2")
        assert not (tmp_path / "host 2" / "lab--model" / "config.json").exists()

    def test_a_folder_of_other_bytes_is_refused_with_the_code_named(self, hub, settings, tmp_path):
        lock = tmp_path / "lock.json"
        start(settings, weights_lock=lock)
        code = hub.root / MODEL / "build_mlp.py"
        code.write_text(code.read_text() + "\n# changed\n")
        start(settings, models_dir=tmp_path / "other")
        with pytest.raises(ConfigurationError, match="holds other bytes.*REMOTE CODE differs: build_mlp.py"):
            start(settings, models_dir=tmp_path / "other", weights_lock=lock)

    @pytest.mark.parametrize("spoil", [lambda text: text.replace("3145728", "3145729"), lambda text: text[:300]])
    def test_a_lock_changed_by_hand_is_refused(self, hub, settings, tmp_path, spoil):
        lock = tmp_path / "lock.json"
        start(settings, weights_lock=lock)
        lock.write_text(spoil(lock.read_text()))
        with pytest.raises(ConfigurationError, match="lock.json (was changed by hand|is not a lock file)"):
            start(settings, weights_lock=lock)


class TestShared:
    """A folder that is there already: used in place, checked, never written to, never copied."""

    @pytest.fixture
    def shared(self, tmp_path):
        folder = shutil.copytree(DEMO, tmp_path / "share" / "model", ignore=shutil.ignore_patterns("__pycache__"))
        return folder

    def listing(self, folder) -> list:
        return sorted((str(path), path.stat().st_mtime_ns) for path in [folder, *folder.rglob("*")])

    @pytest.mark.parametrize("kind", ["path", "link"])
    def test_it_is_not_written_to(self, shared, settings, kind):
        name = str(shared)
        if kind == "link":
            settings.models_dir.mkdir()
            (settings.models_dir / "internlm-xcomposer2-vl-7b").symlink_to(shared)
            name = "vl-7b"
        before = self.listing(shared)
        start(settings, name)
        assert self.listing(shared) == before and find_model(name, settings.models_dir).path.resolve() == shared

    def test_a_read_only_mount_is_served_from(self, shared, settings):
        if subprocess.run(["mount", "--bind", "-o", "ro", shared, shared], capture_output=True).returncode:
            pytest.skip("nothing can be mounted here")
        try:
            start(settings, str(shared))
            with pytest.raises(OSError, match="Read-only"):
                (shared / "x").touch()
        finally:
            subprocess.run(["umount", shared], check=True)

    def test_changed_remote_code_is_named_at_the_next_start(self, shared, settings, caplog):
        start(settings, str(shared))
        assert "REMOTE CODE" not in caplog.text
        (shared / "build_mlp.py").write_text("# another\n")
        start(settings, str(shared))
        assert "REMOTE CODE CHANGED" in caplog.text and "build_mlp.py" in caplog.text

    def test_a_lock_holds_for_it_too(self, hub, shared, settings, tmp_path):
        start(settings, weights_lock=tmp_path / "lock.json")
        with pytest.raises(CheckError, match="extra.dat is missing"):
            start(settings, str(shared), weights_lock=tmp_path / "lock.json")
        shutil.copy(hub.root / MODEL / "extra.dat", shared)
        start(settings, str(shared), weights_lock=tmp_path / "lock.json")
        before = self.listing(shared)
        (shared / "extra.dat").write_bytes(bytes(3 * MIB))
        with pytest.raises(CheckError, match="extra.dat does not match its SHA-256"):
            start(settings, str(shared), weights_lock=tmp_path / "lock.json")
        assert [path for path, _ in before] == [path for path, _ in self.listing(shared)]

    def test_a_fetch_into_a_link_is_refused(self, hub, shared, tmp_path):
        (tmp_path / "link").symlink_to(shared)
        with pytest.raises(ConfigurationError, match="used in place and never written to"):
            fetch_from(hub, tmp_path / "link")

    def test_a_fetch_among_other_files_is_refused(self, hub, tmp_path):
        (tmp_path / "home").mkdir()
        (tmp_path / "home" / "diary").touch()
        with pytest.raises(ConfigurationError, match="holds other files than a model's"):
            fetch_from(hub, tmp_path / "home")


def test_up_fetches_shows_progress_in_ready_and_answers(hub, tmp_path):
    hub.faults.rate = MIB
    state, port = tmp_path / "state", free_port()
    seen = []

    def watch():
        while not seen or seen[-1]["phase"] != "ready":
            with contextlib.suppress(httpx.HTTPError):  # nobody listens yet
                seen.append(httpx.get(f"http://127.0.0.1:{port}/ready", timeout=5).json())
            time.sleep(0.2)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    environment = {"LINGBI_HUB_ENDPOINT": hub.url, "LINGBI_MODELS_DIR": str(tmp_path / "models")}
    options = ("--json", "--server-only", "--model", MODEL, "--engine", "cpu", "--port", port)
    up = lingbi("up", *options, state_dir=state, **environment)
    try:
        assert up.returncode == 0, up.stderr
        assert "to be fetched from ModelScope" in up.stderr and "fetching weights" in up.stderr
        watcher.join(10)
        progress = [report["weights"] for report in seen if "weights" in report]
        assert any(0 < item["done_bytes"] < item["total_bytes"] and item["bytes_per_s"] for item in progress)
        assert seen[-1]["phase"] == "ready"
    finally:
        lingbi("down", state_dir=state)


def test_up_without_weights_and_without_leave_to_fetch_ends_with_a_sentence(tmp_path):
    up = lingbi("up", "--model", "vl-1_8b", "--engine", "cpu", state_dir=tmp_path / "s", LINGBI_FETCH="never")
    assert up.returncode == 2 and "LINGBI_FETCH=never" in up.stderr and "Traceback" not in up.stderr


def test_up_with_an_unknown_revision_ends_with_the_hubs_word(hub, tmp_path):
    environment = {"LINGBI_HUB_ENDPOINT": hub.url, "LINGBI_HUB_REVISION": "v9", "LINGBI_MODELS_DIR": str(tmp_path)}
    options = ("--server-only", "--model", MODEL, "--engine", "cpu", "--port", free_port())
    up = lingbi("up", *options, state_dir=tmp_path / "s", **environment)
    assert up.returncode == 2 and "lists no files: there is no such revision" in up.stderr
    assert not (tmp_path / "s" / "logs").exists()  # nothing was started


NETLESS = """
import json, subprocess, sys
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
up = subprocess.run([sys.executable, "-m", "lingbi.launch.up", *sys.argv[1:]], text=True, capture_output=True)
smoke = subprocess.run([sys.executable, "-m", "lingbi.smoke"], text=True, capture_output=True)
down = subprocess.run([sys.executable, "-m", "lingbi.launch.down"], text=True, capture_output=True)
print(json.dumps([up.returncode, up.stderr, smoke.returncode, smoke.stderr, down.returncode]))
"""


def test_a_start_needs_no_network_at_all(hub, settings, tmp_path):
    """In a network namespace that has nothing but its own loopback."""
    if subprocess.run(["unshare", "--net", "true"], capture_output=True).returncode:
        pytest.skip("no network namespace can be made here")
    start(settings)
    environment = clean_environment(tmp_path / "netless") | {"LINGBI_MODELS_DIR": str(settings.models_dir)}
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", NETLESS, "--model", MODEL, "--engine", "cpu"],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    up, up_errors, smoke, smoke_errors, down = json.loads(done.stdout.splitlines()[-1])
    assert up == 0, up_errors
    assert smoke == 0, smoke_errors
    assert down == 0


def test_running_server_serves_a_fetched_model_by_its_marker(hub, settings, tmp_path):
    """The worker's own log says that nothing was hashed again."""
    start(settings)
    hub.requests.clear()
    with running_server(
        tmp_path / "st", "--model", MODEL, "--engine", "cpu", LINGBI_MODELS_DIR=str(settings.models_dir)
    ):
        log = (tmp_path / "st" / "logs" / "worker-0.log").read_text()
    assert "full check" not in log and hub.requests == []
    assert WeightsFolder(settings.models_dir / "lab--model").used_file.exists()
