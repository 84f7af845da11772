"""Hosts fetch weights from each other: the real client against `weights share`."""

import shutil
import socket
import subprocess
import sys
import threading
import time

import pytest

from lingbi.commands import MODULES
from lingbi.weights.peer import Peer
from tests.conftest import DEMO, ROOT, clean_environment
from tests.hub import Hub

MODEL = "lab/shapes"


def run(tmp_path, models, module, *arguments, **environment):
    values = clean_environment(tmp_path / "state") | {"LINGBI_MODELS_DIR": str(models)} | environment
    command = [sys.executable, "-m", MODULES[module], *map(str, arguments)]
    return subprocess.run(command, env=values, capture_output=True, text=True, cwd=ROOT, timeout=120)


@pytest.fixture
def shared(tmp_path):
    """A peer that shares a model that was fetched from a hub that has gone since."""
    shutil.copytree(DEMO, tmp_path / "hub" / MODEL)
    hub = Hub(tmp_path / "hub").start()
    fetched = run(tmp_path, tmp_path / "first", "fetch", "--model", MODEL, "--endpoint", hub.url)
    hub.stop()
    assert fetched.returncode == 0, fetched.stderr
    peer = Peer(("127.0.0.1", 0), tmp_path / "first" / MODEL.replace("/", "--"), "secret")
    threading.Thread(target=peer.serve_forever, args=(0.05,), daemon=True).start()
    yield peer
    peer.shutdown()
    peer.server_close()


def fetch_from(peer, tmp_path, token="secret", model=MODEL, *options):
    (tmp_path / "token").write_text(token)
    hub = ("--endpoint", f"http://127.0.0.1:{peer.server_port}", "--token-file", tmp_path / "token")
    return run(tmp_path, tmp_path / "second", "fetch", "--model", model, *hub, *options)


def test_a_host_fetches_from_another_what_its_lock_says(shared, tmp_path):
    (tmp_path / "lock.json").write_text(run(tmp_path, tmp_path / "first", "weights", "lock", MODEL).stdout)
    fetched = fetch_from(shared, tmp_path, "secret", MODEL, "--lock", tmp_path / "lock.json")
    assert fetched.returncode == 0, fetched.stderr
    assert shared.lock.digest[:12] in fetched.stderr + fetched.stdout
    verified = run(tmp_path, tmp_path / "second", "weights", "verify", MODEL)
    assert verified.returncode == 0, verified.stderr


def test_another_token_or_model_is_refused(shared, tmp_path):
    for options in ({"token": "wrong"}, {"model": "lab/other"}):
        refused = fetch_from(shared, tmp_path, **options)
        assert refused.returncode in (2, 3) and ("403" in refused.stderr or "404" in refused.stderr), refused.stderr


def test_spoilt_bytes_of_a_peer_are_not_accepted(shared, tmp_path):
    file = shared.folder / "config.json"
    file.write_bytes(b" " + file.read_bytes()[1:])
    spoilt = fetch_from(shared, tmp_path)
    assert spoilt.returncode != 0 and not (tmp_path / "second" / MODEL.replace("/", "--") / "config.json").exists()


def test_a_slow_host_gets_a_large_file_in_one_answer(shared):
    name = "pytorch_model.bin"
    request = f"GET /api/v1/models/{MODEL}/repo?Revision=master&FilePath={name} HTTP/1.1\r\nHost: peer\r\n"
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(30)
        client.connect(shared.server_address)
        client.sendall(f"{request}Authorization: Bearer secret\r\nConnection: close\r\n\r\n".encode())
        time.sleep(0.5)  # the peer's buffers are full by now
        received = b"".join(iter(lambda: client.recv(1 << 16), b""))
    assert received.partition(b"\r\n\r\n")[2] == (shared.folder / name).read_bytes()
