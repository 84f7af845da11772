"""By which digests an engine knows an image: read from what `docker save` writes, and compared with what is here."""

from __future__ import annotations

import json
import re
import tarfile
from typing import IO, Any

from host.machine import run

NAME = "io.containerd.image.name"


def saved_digests(archive: tarfile.TarFile) -> dict[str, set[str]]:
    """{image with its tag: digests} of an archive of `docker save`, which may be a pipe.

    An engine with Docker's own store calls an image by the digest of its configuration, one with containerd's store by
    that of its manifest; the same archive holds both.
    """
    texts = {
        member.name: _json(archive.extractfile(member))
        for member in archive
        if member.name in ("manifest.json", "index.json")
    }
    return digests_of(texts.get("manifest.json") or [], texts.get("index.json") or {})


def digests_of(manifest: list[dict[str, Any]], index: dict[str, Any]) -> dict[str, set[str]]:
    """{image with its tag: digests} of the two lists of contents that are in such an archive."""
    found: dict[str, set[str]] = {}
    for image in manifest:
        for tag in image.get("RepoTags") or []:
            found.setdefault(tag, set()).update(
                f"sha256:{digest}" for digest in re.findall(r"[0-9a-f]{64}", image["Config"])
            )
    for entry in index.get("manifests", []):
        name = entry.get("annotations", {}).get(NAME, "")
        for tag in found:
            if name in (tag, f"docker.io/{tag}", f"docker.io/library/{tag}"):
                found[tag].add(entry["digest"])
    return found


def _json(file: IO[bytes] | None) -> Any:
    return json.load(file) if file else None


def inspect(tag: str) -> dict[str, Any] | None:
    """What the engine says of an image; None where it is not here."""
    done = run("docker", "image", "inspect", tag)
    found: list[dict[str, Any]] = json.loads(done.stdout) if done.returncode == 0 else []
    return found[0] if found else None


def own_digests(image: dict[str, Any]) -> set[str]:
    """All digests by which the engine knows an image: its own, and those of registries that it came from or went to."""
    return {image["Id"], *(name.partition("@")[2] for name in image.get("RepoDigests") or [])}


def is_pushed(tag: str, image: dict[str, Any]) -> bool:
    """Whether the registry of an image's name has it: then its digest there is known."""
    repository = tag.rpartition(":")[0]
    return any(name.partition("@")[0] == repository for name in image.get("RepoDigests") or [])


def fault(tag: str, image: dict[str, Any] | None, signed: list[str]) -> str:
    """Why the engine's image is not the one that was signed; empty if it is."""
    if image is None:
        return f"{tag} is not here; load or pull it first"
    if image["Id"] in signed:
        return ""
    return f"{tag} has the digest {image['Id']}, and what was signed has {' or '.join(signed)}: it is another image"
