"""Each of the client's twelve faults, against the real client."""

import fcntl
import os
import pty
import shutil
import socket
import struct
import subprocess
import sys
import termios
import threading
import time

import pytest

from lingbi.errors import CheckError, ConfigurationError, FetchError
from lingbi.model.resolve import is_present
from lingbi.weights import arrival, transfer
from lingbi.weights.folder import WeightsFolder
from lingbi.weights.lockfile import read
from lingbi.weights.verification import reason_to_recheck
from tests.conftest import clean_environment
from tests.weights.conftest import MIB, MODEL, command, fetch_from, left_behind, model_files, run, same_files

FOREVER = [500] * 10000


def test_a_fetch_brings_the_same_files_and_verifies_them(hub, to):
    lock = fetch_from(hub, to)
    assert same_files(to, hub.root / MODEL)
    assert read(WeightsFolder(to).lock_file) == lock and lock.total_bytes == sum(map(os.path.getsize, model_files(to)))
    assert reason_to_recheck(WeightsFolder(to).marker_file, to, lock) is None
    assert not WeightsFolder(to).partial.exists()


@pytest.mark.parametrize(("model", "revision"), [(MODEL, "v9"), ("lab/none", "master")])
def test_1_unknown_model_or_revision_is_refused(hub, to, tmp_path, model, revision):
    status, _, errors = run(
        "fetch", "--model", model, "--revision", revision, "--to", to, "--endpoint", hub.url, state_dir=tmp_path / "s"
    )
    assert status == 2 and revision in errors and model in errors and "Traceback" not in errors
    assert left_behind(to) == []


def test_2_two_hosts_fetch_once_and_both_end_right(hub, to, tmp_path):
    hub.faults.rate = 2 * MIB
    arguments = ("--model", MODEL, "--to", to, "--endpoint", hub.url)
    hosts = [
        command("fetch", *arguments, state_dir=tmp_path / f"s{i}", env={"HOME": str(tmp_path / f"home{i}")})
        for i in range(2)
    ]
    assert [host.wait(60) for host in hosts] == [0, 0]
    assert same_files(to, hub.root / MODEL)
    assert hub.sent["extra.dat"] == 3 * MIB


def test_3_what_was_written_is_hashed(hub, to, monkeypatch):
    """A disk that spoils what it is given is found, though every byte arrived right."""
    write = arrival.Partial.write

    def spoil(self, offset, data):
        write(self, offset, bytes(len(data)) if offset >= MIB else data)

    monkeypatch.setattr(arrival.Partial, "write", spoil)
    with pytest.raises(CheckError, match="sent bytes for lab/model .* that do not match SHA-256"):
        fetch_from(hub, to)


def test_5_nothing_is_asked_where_all_is_there(hub, to):
    fetch_from(hub, to)
    hub.requests.clear()
    hub.faults.is_gone = True
    fetch_from(hub, to)
    assert hub.requests == []


@pytest.mark.parametrize("spoil", ["missing", "changed"])
def test_5_missing_or_changed_shards_are_found_and_only_they_come_again(hub, to, spoil):
    fetch_from(hub, to)
    hub.sent.clear()
    if spoil == "missing":
        (to / "extra.dat").unlink()
    else:
        (to / "extra.dat").write_bytes(bytes(3 * MIB))
    fetch_from(hub, to)
    assert same_files(to, hub.root / MODEL) and hub.sent.keys() == {"extra.dat"}


def test_6_a_connection_that_drops_every_half_mebibyte_ends_right(hub, to):
    """More drops than the client's retries, as each brings something."""
    hub.faults.drop_after_bytes = MIB // 2
    fetch_from(hub, to, fetch_connections=1)
    assert same_files(to, hub.root / MODEL)
    assert len(hub.paths("extra.dat?")) > 5 and hub.sent["extra.dat"] <= 3 * MIB


def test_6_an_outage_is_borne_while_patience_lasts(hub, to, monkeypatch):
    """Patience is counted from the last byte, not in attempts: the hub is back once three have failed."""
    failures, wait_s = [], transfer._wait_s

    def note(state):
        failures.append(state.outcome.exception())
        hub.faults.is_gone = len(failures) < 3
        return wait_s(state)

    monkeypatch.setattr(transfer, "_wait_s", note)
    hub.faults.listing = lambda entries: setattr(hub.faults, "is_gone", True) or entries
    fetch_from(hub, to, fetch_connections=1, fetch_patience_s=60)
    assert same_files(to, hub.root / MODEL) and len(failures) >= 3


def test_6_an_outage_is_told_once_it_lasts_with_its_cause(hub, to, monkeypatch, caplog):
    monkeypatch.setattr(transfer, "TELL_AFTER_S", 0.5)
    with pytest.raises(FetchError):
        fetch_from(hub, to, hub_endpoint="http://127.0.0.1:9", fetch_patience_s=4)
    told = [record.getMessage() for record in caplog.records if "trying again for" in record.getMessage()]
    assert len(told) == 1 and "127.0.0.1:9 did not answer: NetworkError: NewConnectionError(" in told[0], told
    assert "Connection refused" in told[0] and told[0].endswith(" s (LINGBI_FETCH_PATIENCE_S)")


@pytest.mark.parametrize("phase", ["listing", "files"])
def test_6_a_hub_that_always_hangs_ends_the_fetch_when_patience_is_over(hub, to, tmp_path, phase):
    if phase == "listing":
        hub.faults.hangs = -1
    else:
        hub.faults.listing = lambda entries: setattr(hub.faults, "hangs", -1) or entries
    environment = {"LINGBI_FETCH_PATIENCE_S": "2"}
    arguments = ("--model", MODEL, "--to", to, "--endpoint", hub.url)
    start = time.monotonic()
    status, _, errors = run("fetch", *arguments, state_dir=tmp_path / "s", env=environment)
    assert status == 3 and "limit 2 s" in errors and "Traceback" not in errors
    assert time.monotonic() - start < 45 and left_behind(to) == []


def test_6_patience_is_counted_from_the_last_byte(hub, to):
    """A fetch that takes longer than its patience, and fails once late."""
    hub.faults.rate = 3 * MIB
    hub.faults.drop_after_bytes = MIB
    threading.Timer(2.5, hub.faults.cdn_statuses.append, (503,)).start()
    start = time.monotonic()
    fetch_from(hub, to, fetch_connections=1, fetch_patience_s=1)
    assert time.monotonic() - start > 2.5 and same_files(to, hub.root / MODEL) and not hub.faults.cdn_statuses


def test_6_an_expired_signature_is_asked_for_anew(hub, to):
    hub.faults.cdn_statuses = [403, 403]
    fetch_from(hub, to)
    assert same_files(to, hub.root / MODEL)


def test_7_sigterm_ends_process_1_and_the_next_run_goes_on(hub, to, tmp_path):
    hub.faults.rate = MIB // 2
    arguments = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-m", "lingbi.cli.fetch"]
    if subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", "true"], capture_output=True).returncode:
        pytest.skip("no process namespace can be made here")
    process = subprocess.Popen(
        [*arguments, "--model", MODEL, "--to", to, "--endpoint", hub.url], env=clean_environment(tmp_path / "s")
    )
    wait_for(lambda: hub.sent["extra.dat"] >= MIB)
    (child,) = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    os.kill(int(child), 15)
    assert process.wait(20) == 143
    hub.faults.rate = 0
    before = hub.sent["extra.dat"]
    fetch_from(hub, to)
    assert same_files(to, hub.root / MODEL) and hub.sent["extra.dat"] - before < 3 * MIB


def test_7_sigterm_ends_it_at_once_even_if_nobody_reads_its_output(hub, to, tmp_path):
    hub.faults.rate = MIB // 2
    process = command("fetch", "--model", MODEL, "--to", to, "--endpoint", hub.url, state_dir=tmp_path / "s")
    wait_for(lambda: hub.paths("extra.dat"))
    process.stderr.close()
    process.terminate()
    assert process.wait(20) == 143


def wait_for(predicate, timeout_s=120):
    deadline = time.monotonic() + timeout_s
    while not predicate():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_8_space_is_checked_before_a_byte_comes(hub, to, monkeypatch):
    monkeypatch.setattr(arrival, "MARGIN_BYTES", 1 << 60)
    with pytest.raises(ConfigurationError, match=r"needs [\d.]+ GB more, and [\d.]+ GB are free there"):
        fetch_from(hub, to)
    assert left_behind(to) == [] and hub.paths("FilePath") == []


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 16 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_8_a_disk_that_fills_up_ends_the_fetch_and_it_goes_on_when_there_is_room(hub, small_disk, monkeypatch):
    monkeypatch.setattr(arrival, "MARGIN_BYTES", 0)
    filler = small_disk / "filler"
    hub.faults.listing = lambda entries: filler.touch() or entries
    real = transfer.Transfer.fetch

    def fill_then_fetch(self, entries, folder):
        if len(entries) > 1:
            filler.write_bytes(bytes(7 * MIB))
        return real(self, entries, folder)

    monkeypatch.setattr(transfer.Transfer, "fetch", fill_then_fetch)
    with pytest.raises(FetchError, match="No space left on device; free space"):
        fetch_from(hub, small_disk / "model")
    assert left_behind(small_disk / "model") == []
    monkeypatch.setattr(transfer.Transfer, "fetch", real)
    filler.unlink()
    fetch_from(hub, small_disk / "model")
    assert same_files(small_disk / "model", hub.root / MODEL)


def test_8_a_disk_full_at_the_merge_leaves_no_model_and_the_next_run_goes_on(hub, small_disk, monkeypatch):
    """Equal files come once and are copied to their places."""
    monkeypatch.setattr(arrival, "MARGIN_BYTES", 0)
    shutil.copy(hub.root / MODEL / "extra.dat", hub.root / MODEL / "copy.dat")
    place, filler = WeightsFolder.place, small_disk / "filler"

    def fill_then_place(folder, *locks):
        free = shutil.disk_usage(small_disk).free
        filler.write_bytes(bytes(free - MIB))
        return place(folder, *locks)

    monkeypatch.setattr(WeightsFolder, "place", fill_then_place)
    with pytest.raises(FetchError, match="No space left on device; free space"):
        fetch_from(hub, small_disk / "model")
    assert not is_present(small_disk / "model")
    monkeypatch.setattr(WeightsFolder, "place", place)
    filler.unlink()
    sent = sum(hub.sent.values())
    fetch_from(hub, small_disk / "model")
    assert same_files(small_disk / "model", hub.root / MODEL) and sum(hub.sent.values()) == sent


def test_9_a_connection_that_still_writes_keeps_its_file_open(hub, to, monkeypatch):
    """Where the hub ignores ranges, some bytes come over two connections: the hash may be ready before both are."""
    monkeypatch.setattr(arrival, "PART_BYTES", MIB)
    hub.faults.ignores_ranges = True
    is_first_asked = threading.Event()

    def hold_first_part(name, asked):
        if name == "extra.dat" and asked.startswith("bytes=0-"):
            is_first_asked.set()
            wait_for(lambda: hub.sent["extra.dat"] == 3 * MIB)  # over the other connection
            time.sleep(0.5)  # it is hashed by now
        elif name == "extra.dat":
            assert is_first_asked.wait(30)

    hub.faults.before_file = hold_first_part
    fetch_from(hub, to, fetch_connections=2)
    assert same_files(to, hub.root / MODEL) and len(hub.paths("cdn /lab/model/extra.dat")) == 2


def test_9_other_settings_after_a_kill_go_on_and_leave_nothing(hub, to, tmp_path):
    hub.faults.rate = MIB
    arguments = ("--model", MODEL, "--to", to, "--endpoint", hub.url)
    process = command("fetch", *arguments, "--connections", 1, state_dir=tmp_path / "s")
    wait_for(lambda: sum(hub.sent.values()) > 100_000 and "extra" in str(hub.paths("cdn")))
    time.sleep(1)
    process.kill()
    process.communicate()
    hub.faults.rate = 0
    fetch_from(hub, to, fetch_connections=6)
    assert same_files(to, hub.root / MODEL)
    assert sorted(path.name for path in (to / ".lingbi").iterdir()) == ["holder", "lock.json", "marker.json", "mutex"]


def test_10_without_a_terminal_there_are_few_lines(hub, to, tmp_path):
    hub.faults.rate = 3 * MIB // 2
    arguments = ("--model", MODEL, "--to", to, "--endpoint", hub.url, "--connections", 1)
    status, _, errors = run("fetch", *arguments, state_dir=tmp_path / "s")
    lines = errors.splitlines()
    assert status == 0 and 2 <= len(lines) <= 8 and "\r" not in errors
    assert any("of 0.01 GB" in line and "MB/s" in line and "left" in line for line in lines)


def test_10_on_a_terminal_there_is_a_bar(hub, to, tmp_path):
    hub.faults.rate = 2 * MIB
    main, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "lingbi.cli.fetch", "--model", MODEL, "--to", to, "--endpoint", hub.url],
        stderr=terminal,
        env=os.environ | {"PYTHONPATH": "docker/server"},
    )
    assert process.wait(60) == 0
    os.close(terminal)
    shown = os.read(main, 1 << 16).decode(errors="replace")
    assert "fetching weights" in shown and "%|" in shown and "B/s" in shown


def test_11_a_bad_file_stays_until_its_replacement_has_come(hub, to):
    fetch_from(hub, to)
    (to / "extra.dat").write_bytes(bytes(3 * MIB))
    hub.faults.statuses = list(FOREVER)
    with pytest.raises(FetchError):
        fetch_from(hub, to, fetch_patience_s=1)
    assert (to / "extra.dat").read_bytes() == bytes(3 * MIB)


def test_11_files_removed_upstream_go_and_others_stay(hub, to):
    fetch_from(hub, to)
    (to / "notes.txt").write_text("the operator's own")
    newer = hub.root / f"{MODEL}@v2"
    shutil.copytree(hub.root / MODEL, newer)
    (newer / "extra.dat").rename(newer / "other.dat")
    hub.sent.clear()
    fetch_from(hub, to, update=True, hub_revision="v2")
    assert not (to / "extra.dat").exists() and (to / "other.dat").exists() and (to / "notes.txt").exists()


def test_12_the_token_reaches_the_hub_and_never_the_cdn(hub, to, tmp_path, monkeypatch):
    """The CDN's host is of the hub's domain, which is when the client's cookie would go there."""
    hub.token = "ms-secret"
    hub_url = hub.url.replace("127.0.0.1", "hub.test")
    hub.cdn_url = hub.cdn_url.replace("localhost", "cdn.hub.test")
    resolve = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *rest, **more: resolve("127.0.0.1" if host.endswith("hub.test") else host, *rest, **more),
    )
    (tmp_path / "token").write_text("ms-secret\n")
    fetch_from(hub, to, hub_token_file=tmp_path / "token", hub_endpoint=hub_url)
    assert same_files(to, hub.root / MODEL)
    cdn = [headers for line, headers in hub.requests if line.startswith("cdn")]
    assert cdn and not any("ms-secret" in str(headers) for headers in cdn)
    assert "ms-secret" not in "".join(path.read_text() for path in (to / ".lingbi").iterdir())
