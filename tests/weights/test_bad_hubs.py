"""What else a hub, a volume or a network can do wrong, against the real client."""

import os
import tempfile
import threading
import time
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import takewhile
from pathlib import Path

import pytest

from lingbi.errors import CheckError, ConfigurationError, FetchError
from lingbi.weights import arrival
from lingbi.weights import hub as hub_module
from lingbi.weights import progress as progress_module
from lingbi.weights.fetch import fetch
from lingbi.weights.folder import WeightsFolder
from lingbi.weights.lockfile import read
from lingbi.weights.progress import Progress
from lingbi.weights.verification import reason_to_recheck
from tests.conftest import DEMO
from tests.weights.conftest import (
    MIB,
    MODEL,
    command,
    fetch_from,
    left_behind,
    make_model,
    model_files,
    order,
    run,
    same_files,
)


def without_hashes(entries):
    return [{key: value for key, value in entry.items() if key != "Sha256"} for entry in entries]


def with_path(path):
    return lambda entries: [*entries, entries[-1] | {"Path": path, "Type": "blob"}]


LISTINGS = {
    "3 no hashes": (without_hashes, "without SHA-256"),
    "4 parent": (with_path("../outside"), "points outside"),
    "4 absolute": (with_path("/outside"), "points outside"),
    "4 backslash": (with_path("..\\outside"), "points outside"),
    "own folder": (with_path(".lingbi/lock.json"), "not a usable file name"),
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


def test_requests_that_hang_are_sent_again_while_others_bring_bytes(hub, to, tmp_path):
    hub.faults.rate = MIB // 2
    # the configuration is fetched alone, before everything else
    hub.faults.before_file = lambda name, _: name == "config.json" and setattr(hub.faults, "hangs", 2)
    arguments = ("--model", MODEL, "--to", to, "--endpoint", hub.url, "--connections", 4)
    # a process of its own: the client reads only once how long a connection may stay silent
    status, _, errors = run("fetch", *arguments, state_dir=tmp_path / "s", env={"LINGBI_FETCH_PATIENCE_S": "4"})
    assert status == 0 and same_files(to, hub.root / MODEL), errors
    asked = Counter(hub.paths("FilePath"))
    # two were asked twice, whichever of those that began together hung
    assert [count for _, count in asked.most_common(2)] == [2, 2], asked


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


def test_a_flipped_byte_once_is_fetched_again(hub, to):
    hub.faults.flips = 1
    fetch_from(hub, to)
    assert same_files(to, hub.root / MODEL)


def test_a_flipped_byte_always_is_refused(hub, to, tmp_path):
    hub.faults.flips = -1
    status, _, errors = run("fetch", "--model", MODEL, "--to", to, "--endpoint", hub.url, state_dir=tmp_path / "s")
    assert status == 1 and "do not match SHA-256" in errors and left_behind(to) == []


def test_a_hub_that_ignores_ranges_still_gives_all(hub, to, monkeypatch):
    monkeypatch.setattr(arrival, "PART_BYTES", MIB)
    hub.faults.ignores_ranges = True
    fetch_from(hub, to)
    assert same_files(to, hub.root / MODEL)


def test_files_of_several_parts_come_over_several_connections(hub, to, monkeypatch):
    monkeypatch.setattr(arrival, "PART_BYTES", MIB)
    fetch_from(hub, to)
    assert same_files(to, hub.root / MODEL) and len(hub.paths("cdn /lab/model/extra.dat")) == 3


def test_another_kind_of_model_is_refused_before_its_weights_come(hub, to):
    config = hub.root / MODEL / "config.json"
    config.write_text('{"architectures": ["LlamaForCausalLM"], "auto_map": {}}')
    with pytest.raises(ConfigurationError, match="lab/model holds LlamaForCausalLM, not InternLM-XComposer2"):
        fetch_from(hub, to)
    assert hub.paths("cdn") == [] and left_behind(to) == []


def noise(folder):
    (folder / "pytorch_model.bin").write_bytes(os.urandom(2 * MIB))


def zip_of_noise(folder):
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w") as archive:
        archive.writestr("holiday.jpg", os.urandom(2 * MIB))


def one_of_two_shards(folder):
    (folder / "pytorch_model.bin").rename(folder / "pytorch_model-00001-of-00002.bin")


NO_WEIGHTS = {
    "noise": (noise, "not a torch checkpoint"),
    "zip": (zip_of_noise, "zip of something else"),
    "a shard missing": (one_of_two_shards, "lacks the shards pytorch_model-00002-of-00002.bin"),
}


@pytest.mark.parametrize("fault", NO_WEIGHTS)
def test_a_repository_whose_weights_are_none_is_refused(hub, to, tmp_path, fault):
    spoil, message = NO_WEIGHTS[fault]
    spoil(hub.root / MODEL)
    status, _, errors = run("fetch", "--model", MODEL, "--to", to, "--endpoint", hub.url, state_dir=tmp_path / "s")
    assert status == 2 and message in errors and "Traceback" not in errors


def test_a_repository_of_4000_files_comes_whole(hub, to):
    """More than one listing holds (3000), in folders, most of them of equal bytes."""
    for i in range(4000):
        folder = hub.root / MODEL / "many" / str(i // 1000)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.txt").write_text(str(i % 500))
    lock = fetch_from(hub, to)
    assert len(lock.entries) == 4000 + len(model_files(DEMO)) - _caches(DEMO) + 1 and same_files(to, hub.root / MODEL)
    start = time.thread_time()
    assert reason_to_recheck(WeightsFolder(to).marker_file, to, lock) is None
    assert time.thread_time() - start < 0.5


def _caches(folder) -> int:
    return sum("__pycache__" in path.parts for path in model_files(folder))


def test_a_folder_too_large_for_the_hubs_listing_is_refused(hub, to):
    hub.faults.listing = lambda entries: [entries[0] | {"Path": f"x/{i}", "Type": "blob"} for i in range(3100)]
    with pytest.raises(ConfigurationError, match="holds 3000 files or more"):
        fetch_from(hub, to)


def test_bytes_beyond_4_gib_land_where_they_belong(tmp_path):
    """scripts/bench-fetch fetches a file of 20 GB; here only its last bytes are written."""
    size = 20_000_000_001
    arriving = arrival.Partial(tmp_path / "large", size)
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
    assert arrival.Partial(tmp_path / "large", size).is_complete


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_volume_of_another_user_is_refused(hub, tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o755)
    for folder in takewhile(lambda folder: folder != Path(tempfile.gettempdir()), (tmp_path, *tmp_path.parents)):
        folder.chmod(0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(ConfigurationError, match="cannot be written.*belongs to user 0, this is user 65534"):
            fetch_from(hub, theirs / "model")
    finally:
        os.seteuid(0)
    assert list(theirs.iterdir()) == []


def test_many_prepare_one_folder_at_once(to):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: WeightsFolder(to).prepare(), range(2000)))


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


def test_a_fetch_that_begins_beside_this_one_is_no_strange_file(to, monkeypatch):
    to.mkdir(parents=True)
    look = type(to).iterdir

    def begun_meanwhile(folder):
        (folder / ".lingbi").mkdir(exist_ok=True)
        return look(folder)

    monkeypatch.setattr(type(to), "iterdir", begun_meanwhile)
    WeightsFolder(to).prepare()


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


def test_a_hub_that_takes_long_to_answer_is_waited_for_and_the_wait_is_told(hub, to, monkeypatch, capsys):
    assert hub_module.READ_TIMEOUT_S > 40
    monkeypatch.setattr(progress_module, "LOG_EVERY_S", 0.1)
    hub.faults.delay_s = 0.5
    progress = Progress()
    with progress_module.shown(progress):
        fetch(order(hub, to, fetch_patience_s=30), progress)
    told = capsys.readouterr().err.splitlines()
    assert told[0] == f"asking {hub.url} for the files of {MODEL}" and "fetching weights" in told[1], told
    assert len(hub.paths()) == len(set(hub.paths())) and same_files(to, hub.root / MODEL)
