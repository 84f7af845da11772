"""A self-signed certificate, for gateways that are given none; and the names in one that is given."""

import ipaddress
import re
import subprocess
from pathlib import Path

from lingbi_gateway.configuration import Certificate
from lingbi_gateway.settings import GatewayError

PRIVATE = 0o600
DAYS = 825  # the longest validity that Apple's systems accept


def generate(folder: Path, names: tuple[str, ...]) -> Certificate:
    """A certificate for these names; created once, and again when the names change."""
    certificate, key, made_for = folder / "certificate.pem", folder / "key.pem", folder / "names"
    wanted = ",".join(map(_entry, names))
    if not (certificate.exists() and key.exists() and made_for.exists() and made_for.read_text() == wanted):
        folder.mkdir(parents=True, exist_ok=True)
        _make(certificate, key, wanted)
        made_for.write_text(wanted)
    key.chmod(PRIVATE)
    return Certificate(certificate, key, names)


def _make(certificate: Path, key: Path, wanted: str) -> None:
    key.unlink(missing_ok=True)  # or openssl would write the new key into a file with the old one's mode
    key.touch(mode=PRIVATE)
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-days", str(DAYS), "-subj", "/CN=lingbi", "-addext", f"subjectAltName={wanted}"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        raise GatewayError("openssl is not here to make a certificate; install it, or give one (TLS=given)") from None
    if done.returncode:
        raise GatewayError(f"openssl could not make a certificate: {done.stderr.strip()[-300:]}")


def names_in(certificate: Path) -> tuple[str, ...]:
    """The names and addresses that a certificate is for; none where openssl is missing or finds none."""
    command = ["openssl", "x509", "-in", str(certificate), "-noout", "-ext", "subjectAltName"]
    try:
        said = subprocess.run(command, capture_output=True, text=True).stdout
    except FileNotFoundError:
        return ()
    return tuple(re.findall(r"(?:DNS|IP Address):([A-Za-z0-9.*:_-]+)", said))


def _entry(name: str) -> str:
    try:
        return f"IP:{ipaddress.ip_address(name)}"
    except ValueError:
        return f"DNS:{name}"
