"""The firewall's rules in the documents: what nginx cannot count is bounded by them, for one address and no other."""

import re
import shutil
import subprocess
import sys

from tests.conftest import ROOT
from tests.debian import ensure

BLOCK = re.compile(r"```nft\n(.*?)```", re.S)
CONNECTIONS = """
import socket
listener = socket.create_server(("0.0.0.0", 6006), backlog=2000)
def opened(address, count):
    clients = []
    for _ in range(count):
        client = socket.socket()
        client.settimeout(0.1)
        client.bind((address, 0))
        try:
            client.connect(("127.0.0.1", 6006))
        except TimeoutError:
            continue
        clients.append(client)
    return clients
kept = opened("127.0.0.2", 516), opened("127.0.0.1", 5)
print(*map(len, kept))
"""


def rules(document: str) -> str:
    (found,) = BLOCK.findall((ROOT / "docs" / document).read_text(encoding="utf-8"))
    return found


def lines(text: str) -> list:
    """The rules' lines without comments."""
    return [line.partition("#")[0].rstrip() for line in text.splitlines()]


def test_both_documents_have_the_same_rules():
    assert lines(rules("gateway.md")) == lines(rules("gateway.zh-CN.md"))


def test_the_rules_bound_one_address_and_leave_another(tmp_path):
    """In a network of its own, which this machine's rules do not touch."""
    ensure("nftables", has=lambda: shutil.which("nft"))
    (tmp_path / "rules").write_text(rules("gateway.md"))
    script = f"ip link set lo up && nft -f {tmp_path}/rules && {sys.executable} -c '{CONNECTIONS}'"
    done = subprocess.run(["unshare", "--net", "sh", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["512", "5"], done
