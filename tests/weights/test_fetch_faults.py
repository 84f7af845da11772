"""Each of the client's twelve faults, and what else a hub can do wrong, against the real client."""

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
import tenacity

from lingbi.errors import CheckError, ConfigurationError, FetchError
from lingbi.weights import hub as hub_module
from lingbi.weights import marker, partial, patience, space, transfer
from lingbi.weights.folder import WeightsFolder
from lingbi.weights.lockfile import read
from tests.conftest import DEMO, clean_environment
from tests.weights.conftest import MIB, MODEL, command, fetch_from, make_model, run, same_files

FOREVER = [500] * 10000


@pytest.fixture
def to(tmp_path):
    return tmp_path / "volume" / "model"


def left_behind(folder) -> list:
    """What a failed fetch put where a model's files belong."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".lingbi") if folder.exists() else []


def test_a_fetch_brings_the_same_files_and_proves_them(hub, to):
    lock = fetch_from(hub, to)
    assert same_files(to, hub.root / MODEL)
    assert read(WeightsFolder(to).lock_file) == lock and lock.total_bytes == sum(map(os.path.getsize, _files(to)))
    assert marker.doubt(WeightsFolder(to).marker_file, to, lock) is None
    assert not WeightsFolder(to).partial.exists()


def _files(folder) -> list:
    return [path for path in folder.rglob("*") if path.is_file() and ".lingbi" not in path.parts]


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


def without_hashes(entries):
    return [{key: value for key, value in entry.items() if key != "Sha256"} for entry in entries]


def with_path(path):
    return lambda entries: [*entries, entries[-1] | {"Path": path, "Type": "blob"}]


LISTINGS = {
    "3 no hashes": (without_hashes, "without SHA-256"),
    "4 parent": (with_path("../outside"), "points outside"),
    "4 absolute": (with_path("/outside"), "points outside"),
    "4 backslash": (with_path("..\\outside"), "points outside"),
    "own folder": (with_path(".lingbi/lock.json"), "no usable file name"),
    "twice": (lambda entries: [*entries, entries[-1]], "listed twice"),
    "file and folder": (with_path("config.json/x"), "as a file and as a folder"),
    "negative size": (lambda entries: [entry | {"Size": -1} for entry in entries], "has the size -1"),
    "bad hash": (lambda entries: [entry | {"Sha256": "abc"} for entry in entries], "has the SHA-256 'abc'"),
    "1 empty": (lambda entries: [], "lists no files"),
    "no model": (lambda entries: [entry for entry in entries if entry["Path"] != "config.json"], "holds no config"),
}


@pytest.mark.parametrize("fault", LISTINGS)
def test_bad_listings_are_refused_before_a_file_is_fetched(hub, to, fault):
    hub.faults.listing, message = LISTINGS[fault]
    with pytest.raises(ConfigurationError, match=message):
        fetch_from(hub, to)
    assert left_behind(to) == [] and hub.paths("FilePath") == []
    assert not (to.parent / "outside").exists() and not os.path.exists("/outside")


@pytest.mark.parametrize("factor", [-1, 1])
def test_a_wrong_size_in_the_listing_is_found(hub, to, factor):
    hub.faults.listing = lambda entries: [
        entry | {"Size": entry["Size"] + factor * MIB * (entry["Path"] == "extra.dat")} for entry in entries
    ]
    with pytest.raises((CheckError, FetchError), match="extra.dat"):
        fetch_from(hub, to, fetch_patience_s=1)
    assert left_behind(to) == []


def test_3_what_was_written_is_hashed(hub, to, monkeypatch):
    """A disk that spoils what it is given is found, though every byte arrived right."""
    write = partial.Partial.write

    def spoil(self, offset, data):
        write(self, offset, bytes(len(data)) if offset >= MIB else data)

    monkeypatch.setattr(partial.Partial, "write", spoil)
    with pytest.raises(CheckError, match="gave other bytes for lab/model "):
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
    """Patience is counted from the last byte; the default is 300 s, the client gives up after 31 s."""
    monkeypatch.setattr(patience, "_backoff", tenacity.wait_fixed(1))
    hub.faults.rate = MIB
    gone = threading.Timer(1, setattr, (hub.faults, "is_gone", True))
    back = threading.Timer(5, setattr, (hub.faults, "is_gone", False))
    gone.start()
    back.start()
    fetch_from(hub, to, fetch_connections=1, fetch_patience_s=30)
    assert same_files(to, hub.root / MODEL)


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


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_an_error_that_passes_is_borne(hub, to, status):
    hub.faults.statuses = [status] * 3
    hub.faults.headers = {"Retry-After": "1"} if status == 429 else {}
    fetch_from(hub, to, fetch_patience_s=30)
    assert same_files(to, hub.root / MODEL)


ALWAYS = {
    "500": ("statuses", [500] * 10000, "answered 500"),
    "429": ("statuses", [429] * 10000, "answered 429"),
    "CDN 403": ("cdn_statuses", [403] * 10000, "answered 403"),
    "gone": ("is_gone", True, "did not answer|no usable answer"),
    "HTML": ("is_html", True, "in place of the file"),
}


@pytest.mark.parametrize("fault", ALWAYS)
def test_an_error_that_stays_ends_the_fetch_with_its_name(hub, to, tmp_path, fault):
    name, value, message = ALWAYS[fault]
    setattr(hub.faults, name, value)
    with pytest.raises(FetchError, match=f"({message}).*run the same command again"):
        fetch_from(hub, to, fetch_patience_s=1)
    assert left_behind(to) == []
    setattr(hub.faults, name, [] if isinstance(value, list) else False)
    fetch_from(hub, to)
    assert same_files(to, hub.root / MODEL)


def test_a_hub_that_hangs_is_asked_again(hub, to, monkeypatch):
    monkeypatch.setattr("modelscope_hub._legacy_api.DOWNLOAD_TIMEOUT", 1)
    hub.faults.listing = lambda entries: setattr(hub.faults, "hangs", 2) or entries
    fetch_from(hub, to, fetch_patience_s=30)
    assert same_files(to, hub.root / MODEL)


def test_a_trickle_is_dropped_and_asked_for_anew(hub, to, monkeypatch):
    monkeypatch.setattr(hub_module, "RATE_WINDOW_S", 1)
    monkeypatch.setattr(hub_module, "MIN_RATE", 600 << 10)
    hub.faults.rate = 300 << 10
    threading.Timer(3, setattr, (hub.faults, "rate", 0)).start()
    fetch_from(hub, to, fetch_patience_s=30)
    assert same_files(to, hub.root / MODEL)


@pytest.mark.parametrize(("user", "status"), [("403", 403), ("401", 401)])
def test_a_private_model_without_a_token_is_refused_at_once(hub, to, user, status):
    hub.faults.statuses = [status] * 10
    with pytest.raises(ConfigurationError, match=r"the token is not valid for it; give a token's file"):
        fetch_from(hub, to, fetch_patience_s=60)


def test_7_sigterm_ends_process_1_within_a_second_and_the_next_run_goes_on(hub, to, tmp_path):
    hub.faults.rate = MIB // 2
    arguments = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-m", "lingbi.fetch"]
    if subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", "true"], capture_output=True).returncode:
        pytest.skip("no process namespace can be made here")
    process = subprocess.Popen(
        [*arguments, "--model", MODEL, "--to", to, "--endpoint", hub.url], env=clean_environment(tmp_path / "s")
    )
    wait_for(lambda: (WeightsFolder(to).partial / hub.hash_of(hub.root / MODEL / "extra.dat")).exists())
    time.sleep(1.5)
    (child,) = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    start = time.monotonic()
    os.kill(int(child), 15)
    assert process.wait(5) == 143 and time.monotonic() - start < 1
    hub.faults.rate = 0
    before = hub.sent["extra.dat"]
    fetch_from(hub, to)
    assert same_files(to, hub.root / MODEL) and hub.sent["extra.dat"] - before < 3 * MIB


def wait_for(predicate, timeout_s=30):
    deadline = time.monotonic() + timeout_s
    while not predicate():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_8_space_is_checked_before_a_byte_comes(hub, to, monkeypatch):
    monkeypatch.setattr(space, "MARGIN_BYTES", 1 << 60)
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
    monkeypatch.setattr(space, "MARGIN_BYTES", 0)
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
        [sys.executable, "-m", "lingbi.fetch", "--model", MODEL, "--to", to, "--endpoint", hub.url],
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


def test_a_flipped_byte_once_is_fetched_again(hub, to):
    hub.faults.flips = 1
    fetch_from(hub, to)
    assert same_files(to, hub.root / MODEL)


def test_a_flipped_byte_always_is_refused(hub, to, tmp_path):
    hub.faults.flips = -1
    status, _, errors = run("fetch", "--model", MODEL, "--to", to, "--endpoint", hub.url, state_dir=tmp_path / "s")
    assert status == 1 and "gave other bytes" in errors and left_behind(to) == []


def test_a_hub_that_ignores_ranges_still_gives_all(hub, to, monkeypatch):
    monkeypatch.setattr(partial, "PART_BYTES", MIB)
    hub.faults.ignores_ranges = True
    fetch_from(hub, to)
    assert same_files(to, hub.root / MODEL)


def test_files_of_several_parts_come_over_several_connections(hub, to, monkeypatch):
    monkeypatch.setattr(partial, "PART_BYTES", MIB)
    fetch_from(hub, to)
    assert same_files(to, hub.root / MODEL) and len(hub.paths("cdn /lab/model/extra.dat")) == 3


def test_another_kind_of_model_is_refused_before_its_weights_come(hub, to):
    config = hub.root / MODEL / "config.json"
    config.write_text('{"architectures": ["LlamaForCausalLM"], "auto_map": {}}')
    with pytest.raises(ConfigurationError, match="lab/model holds LlamaForCausalLM, not InternLM-XComposer2"):
        fetch_from(hub, to)
    assert hub.paths("cdn") == [] and left_behind(to) == []


def test_a_repository_without_a_shard_or_with_a_zip_of_something_else_is_refused(hub, to):
    (hub.root / MODEL / "pytorch_model.bin").write_bytes(os.urandom(2 * MIB))
    with pytest.raises(ConfigurationError, match="not a torch checkpoint"):
        fetch_from(hub, to)


def test_a_repository_of_10000_files_comes_whole(hub, to):
    """More than one listing holds (3000), in folders, most of them of equal bytes."""
    for i in range(10000):
        folder = hub.root / MODEL / "many" / str(i // 1000)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.txt").write_text(str(i % 500))
    lock = fetch_from(hub, to)
    assert len(lock.entries) == 10000 + len(_files(DEMO)) - _caches(DEMO) + 1 and same_files(to, hub.root / MODEL)
    start = time.monotonic()
    assert marker.doubt(WeightsFolder(to).marker_file, to, lock) is None
    assert time.monotonic() - start < 0.5


def _caches(folder) -> int:
    return sum("__pycache__" in path.parts for path in _files(folder))


def test_a_folder_too_large_for_the_hubs_listing_is_refused(hub, to):
    hub.faults.listing = lambda entries: [entries[0] | {"Path": f"x/{i}", "Type": "blob"} for i in range(3100)]
    with pytest.raises(ConfigurationError, match="holds 3000 files or more"):
        fetch_from(hub, to)


def test_bytes_beyond_4_gib_land_where_they_belong(tmp_path):
    """scripts/bench-fetch fetches a file of 20 GB; here only its last bytes are written."""
    size = 20_000_000_001
    arriving = partial.Partial(tmp_path / "large", size)
    arriving.mark(0, size - 2 * MIB)
    parts = arriving.missing_parts()
    assert parts[0][0] <= size - 2 * MIB and parts[-1][1] == size and not arriving.is_complete
    arriving.write(size - 5, b"ended")
    arriving.mark(parts[0][0], size)
    assert arriving.is_complete and arriving.front() == size == arriving.arrived_bytes
    arriving.close()
    with (tmp_path / "large").open("rb") as stream:
        stream.seek(size - 5)
        assert stream.read() == b"ended"
    assert partial.Partial(tmp_path / "large", size).is_complete


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_volume_of_another_user_is_refused(hub, tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o755)
    for folder in (tmp_path, tmp_path.parent, tmp_path.parents[1]):
        folder.chmod(0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(ConfigurationError, match="cannot be written.*belongs to user 0, this is user 65534"):
            fetch_from(hub, theirs / "model")
    finally:
        os.seteuid(0)
    assert list(theirs.iterdir()) == []


def test_two_hosts_that_want_different_revisions_do_not_mix(hub, to, tmp_path):
    make_model(hub.root / f"{MODEL}@v2", 3 * MIB)
    hub.faults.rate = 4 * MIB
    hosts = [
        command(
            "fetch", "--model", MODEL, "--to", to, "--endpoint", hub.url, "--revision", name, state_dir=tmp_path / name
        )
        for name in ("master", "v2")
    ]
    ends = [(host.communicate(timeout=60)[1], host.returncode) for host in hosts]
    assert sorted(status for _, status in ends) == [0, 2]
    assert "holds lab/model at" in next(errors for errors, status in ends if status)
    winner = read(WeightsFolder(to).lock_file).revision
    assert same_files(to, hub.folder(MODEL, winner))


def test_proxy_variables_are_honoured(hub, to, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(FetchError):
        fetch_from(hub, to, fetch_patience_s=1)
    assert hub.requests == []


def test_the_mirrors_address_can_come_from_the_clients_own_variable(hub, to, monkeypatch):
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", hub.url)
    fetch_from(hub, to, hub_endpoint=None)
    assert same_files(to, hub.root / MODEL)
