"""A native installation that is restored into an empty folder answers the same keys, shows the same certificate, and goes on
with its batches."""

import json
import shutil
import ssl
import subprocess
import sys

import httpx
from openai import OpenAI

from lingbi.client.addresses import record_file
from lingbi.images.messages import data_url
from lingbi.launch.supervision import gateway_folders
from tests.client import CHAT, SCENES, fault, http, question
from tests.compose.conftest import copy_repository
from tests.conftest import lingbi, running_stack
from tests.system.test_batches import ended, line, picture, submit, text_of, told

LINES = 150  # of a batch that is under way when the backup is made


def host(root, module: str, *arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)


def openai(stack: dict, ca_file: str) -> OpenAI:
    url, trusted = f"{str(stack['url']).rstrip('/')}/v1", ssl.create_default_context(cafile=ca_file)
    return OpenAI(api_key=stack["key"], base_url=url, max_retries=0, http_client=httpx.Client(verify=trusted))


def test_a_restored_installation_knows_the_same_keys(tmp_path):
    root, other = (copy_repository(tmp_path / name) for name in ("first", "second"))
    tls = {"LINGBI_GATEWAY_TLS": "generated", "LINGBI_CPU_SEQUENCES": "3"}
    with running_stack(root / ".lingbi", **tls) as stack:
        alice = lingbi("key", "add", "alice", state_dir=root / ".lingbi").stdout.strip()
        ca_file = json.loads(record_file(root / ".lingbi").read_text())["ca_file"]
        client, url = openai(stack, ca_file), data_url(picture("red"))
        done = ended(client, submit(client, [line("first", url)]).id)
        going = submit(client, [line(str(number), url, max_tokens=60) for number in range(LINES)])
        saved = host(root, "host.backup.save", tmp_path / "backup.tar")
        assert saved.returncode == 0 and "2 of them were uploaded" in saved.stderr, saved.stderr
        assert client.batches.retrieve(going.id).status in ("validating", "in_progress")
        refused = host(root, "host.backup.restore", tmp_path / "backup.tar")
        assert refused.returncode == 2 and "lingbi runs here" in refused.stderr
    restored = host(other, "host.backup.restore", tmp_path / "backup.tar")
    assert restored.returncode == 0, restored.stderr
    assert "LINGBI_CPU_SEQUENCES=3" in restored.stdout and "scripts/up --model demo --engine cpu" in restored.stdout
    with running_stack(other / ".lingbi", **tls) as again:
        assert again["key"] == stack["key"]
        for key in (stack["key"], alice):
            with http(again | {"key": key}, verify=ca_file) as client:  # as a client that trusts the first one
                assert fault(SCENES[0], client.post(CHAT, json=question(again, SCENES[0]))) is None
        assert json.loads(record_file(other / ".lingbi").read_text())["ca_file"] != ca_file
        client = openai(again, ca_file)
        assert "红" in text_of(told(client, done.output_file_id)[0])
        assert client.files.content(done.input_file_id).read().count(b'"first"') == 1
        going = ended(client, going.id, 300)
        assert (going.status, going.request_counts.completed) == ("completed", LINES)
        assert {one["custom_id"] for one in told(client, going.output_file_id)} == {
            str(number) for number in range(LINES)
        }
        with http(again | {"key": "lb-wrong"}, verify=ca_file) as client:
            assert client.post(CHAT, json=question(again, SCENES[0])).status_code == 401
    for folder in (*gateway_folders(root / ".lingbi"), *gateway_folders(other / ".lingbi")):
        shutil.rmtree(folder, ignore_errors=True)
