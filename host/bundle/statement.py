"""What is signed of an archive: the checksums of all its files, and among these the digests of its images."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from host.bundle import signature
from host.bundle.contents import Contents, digest, opened
from host.errors import Refusal

SUMS, SIGNATURE = "SHA256SUMS", "SHA256SUMS.sig"  # sha256sum and ssh-keygen can read them without us
IMAGES, SAVED = "images.json", "images.tar"
LONGEST_BYTES = 64 << 20  # of such a list: it is read before anybody's signature is verified
LINE = re.compile(r"([0-9a-f]{64})  (.+)")


@dataclass(frozen=True)
class Verified:
    """An archive whose files are as its list says.

    signer: who signed the list; empty where no signers were given. images: {"server": {"tag": …, "digests": […]}}.
    saved_sha256: of what `docker load` reads; empty where the archive holds no images.
    """

    version: str
    signer: str
    images: dict[str, dict[str, str | list[str]]]
    saved_sha256: str


def sums(digests: dict[str, str]) -> str:
    """The list as sha256sum writes it. digests: {name: SHA-256}."""
    return "".join(f"{value}  {name}\n" for name, value in digests.items())


def parsed(text: str) -> dict[str, str]:
    """{name: SHA-256} of such a list. Raises Refusal."""
    matches = [LINE.fullmatch(line) for line in text.splitlines()]
    if not matches or None in matches:
        raise Refusal(f"{SUMS} is not a list of checksums")
    return {match[2]: match[1] for match in matches if match}


def described(version: str, images: dict[str, tuple[str, set[str]]]) -> str:
    """The text of images.json. images: {"server": (tag, digests)}."""
    listed = {name: {"tag": tag, "digests": sorted(digests)} for name, (tag, digests) in images.items()}
    return json.dumps({"version": version, "images": listed}, indent=2) + "\n"


def images_of(text: bytes) -> Any:
    """What images.json says. Raises Refusal where it is none."""
    try:
        told = json.loads(text)
        assert isinstance(told["version"], str) and all(
            image["tag"] and image["digests"] for image in told["images"].values()
        )
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError):
        raise Refusal(f"{IMAGES} does not say which images there are") from None
    return told


def verify(path: Path, signers: Path | None, version: str = "") -> Verified:
    """Verify an archive or the folder of one: who signed it, every file, its version where one is given. Raises Refusal."""
    try:
        with opened(path) as contents:
            signer = signer_of(contents, signers) if signers else ""
            listed = parsed(_read(contents, SUMS).decode(errors="replace"))
            check_names(listed, contents.names())
            for name, expected in listed.items():
                check_file(name, expected, digest(contents.open(name)))
            told = images_of(_read(contents, IMAGES))
    except Refusal as error:
        raise Refusal(f"{path}: {error}") from None
    if version and told["version"] != version:
        raise Refusal(
            f"{path}: it is version {told['version']}, and {version} was asked for; give that version's archive"
        )
    return Verified(told["version"], signer, told["images"], listed.get(SAVED, ""))


def signer_of(contents: Contents, signers: Path) -> str:
    """Who signed the list of checksums. Raises Refusal."""
    if SIGNATURE not in contents.names():
        raise Refusal(f"it is not signed: there is no {SIGNATURE}; make it with scripts/bundle --key FILE")
    return signature.signer_of(_read(contents, SUMS), _read(contents, SIGNATURE), signers)


def _read(contents: Contents, name: str) -> bytes:
    try:
        with contents.open(name) as file:
            text = file.read(LONGEST_BYTES + 1)
    except KeyError:
        raise Refusal(f"there is no {name}: it is no archive of scripts/bundle, or one of an older version") from None
    if len(text) > LONGEST_BYTES:
        raise Refusal(f"{name} has more than {LONGEST_BYTES >> 20} MiB, so scripts/bundle did not write it")
    return text


def check_names(listed: dict[str, str], found: list[str]) -> None:
    """Raise Refusal for a file that is missing or that nobody listed."""
    missing = [name for name in listed if name not in set(found)]
    if missing:
        raise Refusal(f"{missing[0]} is missing ({len(missing)} in all), and {SUMS} lists it")
    more = [name for name in found if name not in listed and name not in (SUMS, SIGNATURE)]
    if more:
        raise Refusal(
            f"{more[0]} is not listed in {SUMS} ({len(more)} in all): somebody added it; move it away, or unpack anew"
        )


def check_file(name: str, expected: str, found: str) -> None:
    """Raise Refusal for a file with another checksum."""
    if found != expected:
        raise Refusal(f"{name} was altered: its SHA-256 is {found}, and {SUMS} says {expected}")
