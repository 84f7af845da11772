"""scripts/smoke for a gateway with https: it runs in the gateway's network and verifies the certificate by name."""

from __future__ import annotations

import ssl
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from host import stack
from host.addresses import reached_at
from host.env_file import ROOT
from host.errors import StartFailed


def smoke_over_tls(arguments: list[str], values: dict[str, str]) -> int:
    """Exit status of the smoke test."""
    address, port = reached_at(values["LINGBI_PUBLISH_ADDRESS"]), values["LINGBI_GATEWAY_PORT"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        certificate = folder / "certificate.pem"
        try:
            certificate.write_text(ssl.get_server_certificate((address, int(port))))
        except OSError as error:
            raise StartFailed(f"{address}:{port} sends no certificate: {error}") from None
        told = ssl._ssl._test_decode_cert(str(certificate))  # type: ignore[attr-defined]  # no public function
        (folder / "hosts").write_text(f"127.0.0.1 localhost {name_of(told)}\n")
        return subprocess.run([*command(folder, told, values), *arguments]).returncode


def command(folder: Path, told: dict[str, Any], values: dict[str, str]) -> list[str]:
    """`docker run` in the gateway's network, where the name in its certificate can point to it."""
    gateway = stack.compose("ps", "--quiet", "gateway", shown=False).stdout.strip()
    shut = ["--read-only", "--tmpfs=/tmp", "--tmpfs=/var/lib/lingbi:uid=10001,gid=10001", "--cap-drop=ALL"]
    mounts = [f"--volume={folder}:/gateway:ro", f"--volume={folder}/hosts:/etc/hosts:ro"]
    mounts += [f"--volume={ROOT}/secrets/api-key:/api-key:ro"]
    smoke = ["smoke", f"https://{name_of(told)}:{values['LINGBI_GATEWAY_PORT']}", "--api-key-file=/api-key"]
    smoke += ["--ca-file=/gateway/certificate.pem"] if told["issuer"] == told["subject"] else []
    return [
        "docker",
        "run",
        "--rm",
        f"--network=container:{gateway}",
        *shut,
        *mounts,
        stack.image(values, "server"),
        *smoke,
    ]


def name_of(told: dict[str, Any]) -> str:
    """A host name from a certificate."""
    names = [value for kind, value in told.get("subjectAltName", ()) if kind == "DNS" and "*" not in value]
    return names[0] if names else "localhost"
