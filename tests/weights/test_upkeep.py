"""scripts/weights as people use it: list, verify, remove, export, import."""

import os
import shutil
import signal
import socket
import subprocess

import pytest

from lingbi.model.resolve import is_present
from lingbi.weights import archive as archives
from lingbi.weights import lockfile
from lingbi.weights.archive import export
from lingbi.weights.folder import WeightsFolder, size_on_disk
from lingbi.weights.progress import Progress
from lingbi.weights.verification import reason_to_recheck
from tests.conftest import DEMO
from tests.weights.conftest import MIB, MODEL, command, fetch_from, model_files, run, same_files


@pytest.fixture
def volume(hub, tmp_path):
    fetch_from(hub, tmp_path / "models" / "lab--model")
    return tmp_path / "models"


@pytest.fixture
def weights(volume, tmp_path):
    """Run scripts/weights on the volume; returns (exit status, all that was printed)."""

    def run_weights(*arguments, models_dir=volume):
        environment = {"LINGBI_MODELS_DIR": str(models_dir)}
        status, output, errors = run("weights", *arguments, state_dir=tmp_path / "state", env=environment)
        assert "Traceback" not in errors
        return status, output + errors

    return run_weights


def test_list_shows_sizes_last_use_and_state(weights, volume, tmp_path):
    (volume / "lab--model" / ".lingbi" / "used").touch()
    (volume / "begun" / ".lingbi").mkdir(parents=True)
    shutil.copytree(DEMO, volume / "own")
    (volume / "link").symlink_to(DEMO)
    (volume / "notes").mkdir()
    status, output = weights("list")
    lines = {line.split()[0]: line for line in output.splitlines()}
    assert status == 0 and lines.keys() == {"begun", "lab--model", "link", "own", "4"}
    assert "0.01 GB" in lines["lab--model"] and "20" in lines["lab--model"] and "verified" in lines["lab--model"]
    assert "not complete" in lines["begun"] and "shared, in" in lines["link"] and "not fetched" in lines["own"]


def test_verify_says_what_is_wrong_and_renews_the_marker(weights, volume):
    folder = WeightsFolder(volume / "lab--model")
    os.utime(folder.path / "extra.dat")
    assert reason_to_recheck(folder.marker_file, folder.path, folder.lock())
    status, output = weights("verify", MODEL)
    assert status == 0 and "every file is verified" in output
    assert reason_to_recheck(folder.marker_file, folder.path, folder.lock()) is None
    (folder.path / "extra.dat").write_bytes(bytes(3 * MIB))
    (folder.path / "hidden.py").write_text("import os")
    status, output = weights("verify", MODEL)
    assert (
        status == 1
        and "extra.dat does not match its SHA-256" in output
        and "REMOTE CODE hidden.py is not in the lock" in output
    )


def test_verify_without_a_lock_says_so(weights, tmp_path):
    status, output = weights("verify", str(DEMO))
    assert status == 2 and "no lock of its own" in output


def test_verify_of_a_folder_that_is_not_there_says_so(weights, volume):
    status, output = weights("verify", "vl-7b")
    assert status == 2 and "internlm-xcomposer2-vl-7b is not there; fetch it first" in output, output


def test_remove_frees_the_disk_and_touches_nothing_else(weights, volume, tmp_path):
    shared = shutil.copytree(DEMO, tmp_path / "share")
    (volume / "internlm-xcomposer2-vl-7b").symlink_to(shared)
    assert weights("remove", "vl-7b")[0] == 0 and is_present(shared)
    assert not (volume / "internlm-xcomposer2-vl-7b").exists()
    for elsewhere in (str(shared), "vl-1_8b"):
        status, output = weights("remove", elsewhere)
        assert status == 2 and "error:" in output
    status, output = weights("remove", MODEL)
    assert status == 0 and "0.01 GB freed" in output and not (volume / "lab--model").exists()


@pytest.mark.parametrize("target", ["away.tar", "away"])
def test_export_and_import_carry_the_same_bytes(weights, volume, tmp_path, target):
    away = tmp_path / "stick" / target
    assert weights("export", MODEL, away)[0] == 0
    status, output = weights("import", away, models_dir=tmp_path / "lab")
    assert status == 0, output
    folder = WeightsFolder(tmp_path / "lab" / "lab--model")
    assert same_files(folder.path, volume / "lab--model")
    assert folder.lock() == WeightsFolder(volume / "lab--model").lock()
    assert reason_to_recheck(folder.marker_file, folder.path, folder.lock()) is None


def test_an_archive_has_a_checksum_that_any_machine_can_check(weights, volume, tmp_path):
    assert weights("export", MODEL, tmp_path / "away.tar")[0] == 0
    check = ["sha256sum", "-c", "away.tar.sha256"]
    assert subprocess.run(check, cwd=tmp_path, capture_output=True).returncode == 0
    with (tmp_path / "away.tar").open("r+b") as stream:
        stream.seek(MIB)
        stream.write(b"spoiled")
    assert subprocess.run(check, cwd=tmp_path, capture_output=True).returncode == 1


def test_an_export_goes_on_where_it_stopped(weights, volume, tmp_path):
    assert weights("export", MODEL, tmp_path / "whole.tar")[0] == 0
    whole = (tmp_path / "whole.tar").read_bytes()
    for begun in (whole[: 2 * MIB], whole[:MIB] + b"torn" * 1000, whole + b"more"):
        (tmp_path / "away.tar.partial").write_bytes(begun)
        export(volume / "lab--model", tmp_path / "away.tar", Progress())
        assert (tmp_path / "away.tar").read_bytes() == whole


def cut(archive):
    archive.write_bytes(archive.read_bytes()[: 6 * MIB])


def flip(archive):
    data = bytearray(archive.read_bytes())
    data[5 * MIB] ^= 1
    archive.write_bytes(data)


def cut_in_lock(archive):
    data = archive.read_bytes()
    archive.write_bytes(data[: data.index(b'"format"') + 20])


def spoil_lock(archive):
    data = bytearray(archive.read_bytes())
    data[data.index(b'"format"')] = 0xFF
    archive.write_bytes(data)


SPOILED = {
    "cut in its lock": (cut_in_lock, 1, "is truncated or damaged in its lock.json"),
    "spoiled in its lock": (spoil_lock, 1, "is truncated or damaged in its lock.json"),
    "cut": (cut, 1, "is truncated|is not complete"),
    "flipped": (flip, 1, "does not match its SHA-256"),
    "no archive": (lambda archive: archive.write_bytes(b"PK\3\4" + bytes(5000)), 2, "cannot be read as an exported"),
    "missing": (lambda archive: archive.unlink(), 2, "cannot be read as an exported"),
}


@pytest.mark.parametrize("fault", SPOILED)
def test_a_spoiled_archive_is_refused_and_the_import_goes_on_with_a_right_one(weights, volume, tmp_path, fault):
    import re

    spoil, expected, message = SPOILED[fault]
    archive = tmp_path / "away.tar"
    weights("export", MODEL, archive)
    whole = archive.read_bytes()
    spoil(archive)
    status, output = weights("import", archive, models_dir=tmp_path / "lab")
    assert status == expected and re.search(message, output), output
    assert not is_present(tmp_path / "lab" / "lab--model")
    archive.write_bytes(whole)
    assert weights("import", archive, models_dir=tmp_path / "lab")[0] == 0
    assert same_files(tmp_path / "lab" / "lab--model", volume / "lab--model")


def test_an_import_that_goes_on_wants_no_room_for_what_is_verified(weights, volume, tmp_path, monkeypatch):
    archive, asked = tmp_path / "away.tar", []
    weights("export", MODEL, archive)
    whole = archive.read_bytes()
    flip(archive)
    assert weights("import", archive, models_dir=tmp_path / "lab")[0] == 1
    archive.write_bytes(whole)
    verified = {path.name for path in (tmp_path / "lab" / "lab--model" / ".lingbi" / "verified").iterdir()}
    monkeypatch.setattr(archives, "check_space", lambda folder, entries: asked.extend(entries))
    archives.import_from(archive, lambda lock: tmp_path / "lab" / "lab--model", Progress())
    assert verified and asked and not verified & {entry.sha256 for entry in asked}
    assert same_files(tmp_path / "lab" / "lab--model", volume / "lab--model")


def test_sharing_says_what_is_wrong_with_token_or_port(weights, tmp_path):
    (tmp_path / "token").write_text("secret\n")
    (tmp_path / "empty").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for token, port_given, message in (
            ("none", port, "none cannot be read: No such file"),
            ("empty", port, "holds no token"),
            ("token", port, f"cannot listen on 127.0.0.1 port {port}"),
            ("token", 70000, "cannot listen on 127.0.0.1 port 70000"),
        ):
            options = ("--host", "127.0.0.1", "--port", port_given, "--token-file", tmp_path / token)
            status, output = weights("share", MODEL, *options)
            assert status == 2 and message in output and "free space" not in output, output


def test_sharing_ends_at_a_signal_and_does_not_offer_to_resume(volume, tmp_path):
    (tmp_path / "token").write_text("secret\n")
    options = ("--host", "127.0.0.1", "--port", 0, "--token-file", tmp_path / "token")
    environment = {"LINGBI_MODELS_DIR": str(volume)}
    process = command("weights", "share", MODEL, *options, state_dir=tmp_path / "state", env=environment)
    assert process.stdout.readline().startswith(f"sharing {MODEL}")
    process.terminate()
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 143 and errors.strip() == "interrupted"


def test_fetching_a_folder_that_is_not_there_is_no_fetch(tmp_path):
    status, _, errors = run("fetch", "--model", tmp_path / "missing", state_dir=tmp_path / "s")
    assert status == 2 and "there is no such folder" in errors and "already" not in errors


def test_an_import_is_held_to_a_lock(weights, hub, volume, tmp_path):
    weights("export", MODEL, tmp_path / "away.tar")
    (hub.root / MODEL / "extra.dat").write_bytes(os.urandom(MIB))
    fetch_from(hub, tmp_path / "other", weights_lock=tmp_path / "lock.json")
    lock = ("--lock", tmp_path / "lock.json")
    status, output = weights("import", tmp_path / "away.tar", *lock, models_dir=tmp_path / "lab")
    assert status == 2 and "holds other bytes" in output


def test_a_fetch_killed_at_random_moments_ends_right(hub, tmp_path):
    """The short version of scripts/bench-fetch: 5 kills, and what comes again is counted."""
    import random
    import time

    hub.faults.rate = 2 * MIB
    to, chance = tmp_path / "killed", random.Random(1)
    arguments = ("--model", MODEL, "--to", to, "--endpoint", hub.url)
    for _ in range(5):
        process = command("fetch", *arguments, state_dir=tmp_path / "s")
        time.sleep(1 + chance.random() * 2)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    fetch_from(hub, to)
    assert same_files(to, hub.root / MODEL)
    time.sleep(1)  # what the hub was sending when it was left counts too
    twice = sum(hub.sent.values()) - sum(path.stat().st_size for path in model_files(to))
    assert twice < 8 * MIB  # of 64 in 20 kills, the data beginning anew would be more


def test_sizes_can_be_asked_while_a_fetch_moves_files(tmp_path, monkeypatch):
    (tmp_path / "stays").write_bytes(b"x" * 8192)
    monkeypatch.setattr(os, "walk", lambda folder: [(str(folder), [], ["stays", "moved meanwhile"])])
    assert 8192 <= size_on_disk(tmp_path) < 16384


def test_the_lock_of_weights_that_came_another_way_says_what_is_there(weights, volume, tmp_path):
    own = shutil.copytree(volume / "lab--model", volume / "lab--own", ignore=shutil.ignore_patterns(".lingbi"))
    status, output = weights("lock", "lab/own", "--to", tmp_path / "own.lock.json")
    assert status == 0 and "was not fetched by lingbi" in output
    lock = lockfile.read(tmp_path / "own.lock.json")
    fetched = WeightsFolder(volume / "lab--model").lock()
    assert (lock.model, lock.digest) == ("lab/own", fetched.digest)  # the same bytes, whichever way they came
    assert weights("verify", "lab/own", "--lock", tmp_path / "own.lock.json")[0] == 0
    (own / "extra.dat").write_bytes(b"other")
    assert weights("verify", "lab/own", "--lock", tmp_path / "own.lock.json")[0] == 1


def test_no_file_is_left_where_there_is_nothing_to_lock(weights, tmp_path):
    status, output = weights("lock", "lab/none", "--to", tmp_path / "none.lock.json")
    assert status == 2 and "holds no model" in output and not (tmp_path / "none.lock.json").exists()


def test_a_printed_lock_is_the_folders_own(volume, tmp_path):
    environment = {"LINGBI_MODELS_DIR": str(volume)}
    status, output, _ = run("weights", "lock", "lab/model", state_dir=tmp_path / "state", env=environment)
    assert status == 0 and output == WeightsFolder(volume / "lab--model").lock_file.read_text()
