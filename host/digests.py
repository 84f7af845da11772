"""scripts/digests: pin third-party images to the digest that their tag has now."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from host.env_file import ROOT
from host.errors import Refusal
from host.machine import run

REFERENCE = re.compile(
    r"^(?P<before>\s*(?:FROM|image:)\s+)(?P<name>[^\s@$]+:[^\s@:/$]+)(?:@(?P<digest>sha256:[0-9a-f]{64}))?", re.M
)
NOT_YET = re.compile(r"^\s*# No digest yet: .*\n", re.M)


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 all digests are current, 1 (with --check) some are not, 2 a digest could not be looked up."""
    parser = argparse.ArgumentParser(prog="scripts/digests", description=__doc__.split(": ", 1)[1].capitalize())
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit status 1 where something would change"
    )
    options = parser.parse_args(arguments)
    try:
        texts = {file: file.read_text(encoding="utf-8") for file in files(ROOT)}
        digests = {name: look_up(name) for text in texts.values() for name in names(text)}
    except Refusal as error:
        print(f"error: {error}; nothing was changed", file=sys.stderr)
        return error.exit_status
    stale = {file: new for file, text in texts.items() if (new := pinned(text, digests)) != text}
    for file, text in stale.items():
        print(f"{'would change' if options.check else 'changed'}: {file.relative_to(ROOT)}")
        if not options.check:
            file.write_text(text, encoding="utf-8")
    return 1 if stale and options.check else 0


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


def look_up(name: str) -> str:
    """The digest of a tag in its registry. Raises Refusal."""
    done = run("docker", "buildx", "imagetools", "inspect", "--format", "{{.Manifest.Digest}}", name)
    digest = done.stdout.strip()
    if done.returncode or not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        said = (done.stderr or done.stdout).strip()[-300:]
        raise Refusal(f"the digest of {name} could not be looked up: {said}; try again where its registry is reachable")
    return digest


if __name__ == "__main__":
    sys.exit(main())
