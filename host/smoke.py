"""scripts/smoke for a gateway with https: it runs in the gateway's network and verifies the certificate."""

from __future__ import annotations

import argparse
import ssl
import subprocess
import tempfile
from pathlib import Path

from host import stack
from host.addresses import reached_at
from host.errors import Refusal, StartFailed


def smoke_over_tls(arguments: list[str], values: dict[str, str]) -> int:
    """Exit status of the smoke test. A --ca-file is one of this machine."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--ca-file", type=Path)
    given, others = parser.parse_known_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "ca.pem").write_text(authority(given.ca_file) if given.ca_file else trusted_here(values))
        return subprocess.run([*command(folder, values), *others], input=stack.show_key(), text=True).returncode


def authority(file: Path) -> str:
    """The text of the certificates that the operator trusts. Raises Refusal."""
    try:
        return file.read_text(encoding="ascii")
    except (OSError, ValueError) as error:
        raise Refusal(f"--ca-file {file} cannot be read ({error}); give a file with PEM certificates") from None


def trusted_here(values: dict[str, str]) -> str:
    """The authorities that this machine trusts, and the gateway's own certificate: if it is signed by itself, that is
    all there is to trust, and otherwise it vouches for nothing. Raises StartFailed if the gateway sends none."""
    address, port = reached_at(values["LINGBI_PUBLISH_ADDRESS"]), values["LINGBI_GATEWAY_PORT"]
    try:
        own = ssl.get_server_certificate((address, int(port)))
    except OSError as error:
        raise StartFailed(f"{address}:{port} sends no certificate: {error}") from None
    system = ssl.get_default_verify_paths().cafile
    return own + (Path(system).read_text(encoding="utf-8") if system else "")


def command(folder: Path, values: dict[str, str]) -> list[str]:
    """`docker run` in the gateway's network."""
    gateway = stack.compose("ps", "--quiet", "gateway", shown=False).stdout.strip()
    shut = ["--read-only", "--tmpfs=/tmp", "--tmpfs=/var/lib/lingbi:uid=10001,gid=10001", "--cap-drop=ALL"]
    smoke = ["smoke", f"https://127.0.0.1:{values['LINGBI_GATEWAY_PORT']}", "--held-name"]
    smoke += ["--api-key-file=/dev/stdin", "--ca-file=/trusted/ca.pem"]
    run = ["docker", "run", "--rm", "--interactive", f"--network=container:{gateway}", *shut]
    return [*run, f"--volume={folder}:/trusted:ro", stack.image(values, "server"), *smoke]
