"""A native installation that is restored into an empty folder answers the same keys and shows the same certificate."""

import json
import shutil
import subprocess
import sys

from lingbi.client.addresses import record_file
from lingbi.launch.supervision import gateway_folders
from tests.client import CHAT, SCENES, fault, http, question
from tests.compose.conftest import copy_repository
from tests.conftest import lingbi, running_stack


def host(root, module: str, *arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)


def test_a_restored_installation_knows_the_same_keys(tmp_path):
    root, other = (copy_repository(tmp_path / name) for name in ("first", "second"))
    tls = {"LINGBI_GATEWAY_TLS": "generated", "LINGBI_CPU_SEQUENCES": "3"}
    with running_stack(root / ".lingbi", **tls) as stack:
        alice = lingbi("key", "add", "alice", state_dir=root / ".lingbi").stdout.strip()
        saved = host(root, "host.backup.save", tmp_path / "backup.tar")
        assert saved.returncode == 0, saved.stderr
        refused = host(root, "host.backup.restore", tmp_path / "backup.tar")
        assert refused.returncode == 2 and "lingbi runs here" in refused.stderr
        ca_file = json.loads(record_file(root / ".lingbi").read_text())["ca_file"]
    done = host(other, "host.backup.restore", tmp_path / "backup.tar")
    assert done.returncode == 0, done.stderr
    assert "LINGBI_CPU_SEQUENCES=3" in done.stdout and "scripts/up --model demo --engine cpu" in done.stdout
    with running_stack(other / ".lingbi", **tls) as again:
        assert again["key"] == stack["key"]
        for key in (stack["key"], alice):
            with http(again | {"key": key}, verify=ca_file) as client:  # as a client that trusts the first one
                assert fault(SCENES[0], client.post(CHAT, json=question(again, SCENES[0]))) is None
        assert json.loads(record_file(other / ".lingbi").read_text())["ca_file"] != ca_file
        with http(again | {"key": "lb-wrong"}, verify=ca_file) as client:
            assert client.post(CHAT, json=question(again, SCENES[0])).status_code == 401
    for folder in (*gateway_folders(root / ".lingbi"), *gateway_folders(other / ".lingbi")):
        shutil.rmtree(folder, ignore_errors=True)
