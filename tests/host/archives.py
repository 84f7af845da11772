"""Archives as scripts/bundle writes them, without an engine, and keys to sign them with."""

import hashlib
import io
import subprocess
from pathlib import Path

from host.bundle import signature, statement
from host.bundle.packing import Archive

NAMES = ("server", "ui", "gateway")
DIGESTS = {name: f"sha256:{number:064x}" for number, name in enumerate(NAMES, 1)}


def make_key(folder: Path, name: str) -> Path:
    """A key without a passphrase; beside it the file of signers that trusts it alone."""
    key = folder / name
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    signers_of(key).write_text(signature.signer_line(key.with_suffix(".pub").read_text(), f"{name}@lab") + "\n")
    return key


def signers_of(key: Path) -> Path:
    return key.with_name(f"{key.name}.signers")


def members(version: str, digests: dict = DIGESTS) -> dict:
    """{name: bytes} of a small archive, without checksums and signature. digests: of the images, by name."""
    images = {name: (f"lingbi/{name}:{version}", {digest}) for name, digest in digests.items()}
    return {
        statement.SAVED: b"what docker save wrote",
        statement.IMAGES: statement.described(version, images).encode(),
        "sbom/server.cdx.json": b"{}",
        "VERSION": f"{version}\n".encode(),
        "compose.yaml": b"services: {}\n",
        "scripts/up": b"#!/bin/sh\n",
    }


def signed(found: dict, key: Path | None) -> dict:
    """The members with their list of checksums, and its signature where a key is given."""
    sums = statement.sums({name: hashlib.sha256(text).hexdigest() for name, text in found.items()}).encode()
    return found | {statement.SUMS: sums} | ({statement.SIGNATURE: signature.sign(sums, key)} if key else {})


def pack(file: Path, found: dict, folder: str = "lingbi") -> Path:
    """Write members as they are."""
    with file.open("w+b") as stream:
        archive = Archive(stream, folder)
        for name, text in found.items():
            archive.stream(name, io.BytesIO(text))
        archive.end()
    return file


def archive(file: Path, version: str, key: Path | None = None, digests: dict = DIGESTS) -> Path:
    """An archive of a version in a file, signed where a key is given."""
    return pack(file, signed(members(version, digests), key), f"lingbi-{version}")
