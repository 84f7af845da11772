"""A self-signed certificate, for gateways that are given none."""

import ipaddress
import os
import subprocess
from pathlib import Path

from lingbi_gateway.settings import GatewayError

DAYS = 825  # the longest validity that Apple's systems accept


def generate(folder: Path, names: tuple[str, ...]) -> tuple[Path, Path]:
    """(certificate file, key file) for these names; created once, and again when the names change."""
    certificate, key, made_for = folder / "certificate.pem", folder / "key.pem", folder / "names"
    wanted = ",".join(map(_entry, names))
    if certificate.exists() and key.exists() and made_for.exists() and made_for.read_text() == wanted:
        return certificate, key
    folder.mkdir(parents=True, exist_ok=True)
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-days", str(DAYS), "-subj", "/CN=lingbi", "-addext", f"subjectAltName={wanted}"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    mask = os.umask(0o077)
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        raise GatewayError("openssl is not here to make a certificate; install it, or give one (TLS=given)") from None
    finally:
        os.umask(mask)
    if done.returncode:
        raise GatewayError(f"openssl could not make a certificate: {done.stderr.strip()[-300:]}")
    made_for.write_text(wanted)
    return certificate, key


def _entry(name: str) -> str:
    try:
        return f"IP:{ipaddress.ip_address(name)}"
    except ValueError:
        return f"DNS:{name}"
