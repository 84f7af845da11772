"""scripts/digests: pin third-party images to the digest that their tag has now, or check that they are."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

from host.env_file import ROOT
from host.errors import Refusal
from host.machine import run

REFERENCE = re.compile(
    r"^(?P<before>\s*(?:FROM|image:)\s+(?:\$\{(?:LINGBI_)?BASE_REGISTRY(?::-)?\}(?:library/)?)?)"  # a mirror has the same digests
    r"(?P<name>[^\s@$]+:[^\s@:/$]+)(?:@(?P<digest>sha256:[0-9a-f]{64}))?",
    re.M,
)
HUB = "docker.io"
NOT_YET = re.compile(r"^\s*# No digest yet: .*\n", re.M)


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 all digests are current, 1 (with --check) some are not, 2 a digest could not be looked up."""
    parser = argparse.ArgumentParser(prog="scripts/digests", description=__doc__.split(": ", 1)[1].capitalize())
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit status 1 where something would change"
    )
    parser.add_argument(
        "--registry",
        action="append",
        default=[],
        metavar="[UPSTREAM=]MIRROR",
        help="look tags of an upstream registry (default: docker.io) up in a mirror of it, as in mirror.lab:5000",
    )
    options = parser.parse_args(arguments)
    try:
        texts = {file: file.read_text(encoding="utf-8") for file in files(ROOT)}
        mirrors = mirrors_of(options.registry)
        digests = {name: look_up(at(name, mirrors)) for text in texts.values() for name in names(text)}
    except Refusal as error:
        print(f"error: {error}; nothing was changed", file=sys.stderr)
        return error.exit_status
    stale = {file: new for file, text in texts.items() if (new := pinned(text, digests)) != text}
    for file, text in stale.items():
        print(f"{'would change' if options.check else 'changed'}: {file.relative_to(ROOT)}")
        print("".join(f"  {line}\n" for line in differences(texts[file], digests)), end="")
        if not options.check:
            file.write_text(text, encoding="utf-8")
    return 1 if stale and options.check else 0


def mirrors_of(given: list[str]) -> dict[str, str]:
    """{upstream registry: its mirror} of the option --registry. Raises Refusal."""
    pairs = [(upstream or HUB, mirror.rstrip("/")) for text in given for upstream, _, mirror in (text.rpartition("="),)]
    for upstream, mirror in pairs:
        if not re.fullmatch(r"[\w.-]+(:\d+)?(/[\w.-]+)*", mirror):
            raise Refusal(f"--registry {upstream}={mirror}: give a registry without https://, as in mirror.lab:5000")
    return dict(pairs)


def at(name: str, mirrors: dict[str, str]) -> str:
    """Where to look an image up: in the mirror of its registry where there is one."""
    first, _, rest = name.partition("/")
    is_host = bool(rest) and ("." in first or ":" in first or first == "localhost")  # as Docker decides it
    upstream, path = (first, rest) if is_host else (HUB, name if rest else f"library/{name}")
    return f"{mirrors[upstream]}/{path}" if upstream in mirrors else name


def files(root: Path) -> list[Path]:
    """The files that refer to third-party images."""
    return [*sorted(root.glob("docker/*/Dockerfile")), *sorted(root.glob("compose*.yaml"))]


def names(text: str) -> list[str]:
    """The third-party images in a text, with their tags."""
    return [match["name"] for match in REFERENCE.finditer(text)]


def pinned(text: str, digests: dict[str, str]) -> str:
    """The text with each image's digest, and without the comments that a digest is missing."""
    return NOT_YET.sub(
        "", REFERENCE.sub(lambda match: f"{match['before']}{match['name']}@{digests[match['name']]}", text)
    )


def differences(text: str, digests: dict[str, str]) -> list[str]:
    """A line for each image of a text whose digest is missing or no longer the tag's."""
    found = {match["name"]: match["digest"] for match in REFERENCE.finditer(text)}
    return [f"{name}: {old or 'no digest'} -> {digests[name]}" for name, old in found.items() if old != digests[name]]


def look_up(name: str) -> str:
    """The digest of a tag in its registry. Raises Refusal."""
    # As JSON: buildx 0.13 answers {{.Manifest.Digest}} with a text for people.
    done = run("docker", "buildx", "imagetools", "inspect", "--format", "{{json .Manifest}}", name)
    digest = digest_in(done.stdout) if done.returncode == 0 else ""
    if not digest:
        said = (done.stderr or done.stdout).strip()[-300:]
        raise Refusal(f"the digest of {name} could not be looked up: {said}; try again where its registry is reachable")
    return digest


def digest_in(described: str) -> str:
    """The digest in a manifest's description as JSON, which holds those of its platforms too; empty if there is none."""
    try:
        found = json.loads(described)
        digest = str(found["digest"])
        return digest if re.fullmatch(r"sha256:[0-9a-f]{64}", digest) else ""
    except (ValueError, KeyError, TypeError):
        return ""


if __name__ == "__main__":
    sys.exit(main())
