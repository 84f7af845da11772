"""scripts/bundle: pack an archive for an offline machine: images, the files that start them, optionally weights."""

from __future__ import annotations

import argparse
import hashlib
import io
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import IO

from host import stack
from host.env_file import PREFIX_FILE, ROOT
from host.errors import Refusal, StartFailed
from host.machine import look, run
from host.preflight import check_engine

PARTS = (
    "LICENSE",
    "README.md",
    "README.zh-CN.md",
    "compose*.yaml",
    "docker",
    "docs",
    "host",
    "monitoring",
    "scripts",
    "settings/schema.json",
)
LEFT_OUT = ("__pycache__", ".lingbi", "targets")
BLOCK_BYTES, CHUNK_BYTES = 512, 1 << 20
LOAD = """\
#!/usr/bin/env bash
# Prove this bundle's checksums and load its images. Then: scripts/up --docker
set -euo pipefail
cd "$(dirname "$0")"
sha256sum --quiet --check SHA256SUMS
docker load --quiet --input images.tar
echo "loaded; now: scripts/up --docker{model}"
"""


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 the archive is written, 2 refused, 3 the images could not be saved."""
    options = parse(arguments)
    try:
        make(options)
    except (Refusal, StartFailed) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    name = options.to.name
    print(f"{options.to}: {options.to.stat().st_size / 1e9:.2f} GB\nthere: tar -xf {name} && {folder_of(options)}/load")
    return 0


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bundle", description=__doc__.split(": ", 1)[1].capitalize())
    parser.add_argument("--to", type=Path, help="the archive (default: lingbi-VERSION.tar)")
    parser.add_argument("--weights", type=Path, help="a model folder to include")
    parser.add_argument("--version", default=(ROOT / "VERSION").read_text().strip(), help="tag of the images")
    parser.add_argument("--prefix", default="lingbi/", help="what stands before the images' names")
    options = parser.parse_args(arguments)
    options.to = options.to or Path(f"{folder_of(options)}.tar")
    return options


def folder_of(options: argparse.Namespace) -> str:
    return f"lingbi-{options.version}"


def make(options: argparse.Namespace) -> None:
    """Write the archive; the file only appears when it is complete. Raises Refusal or StartFailed."""
    check_engine(look())
    values = {"LINGBI_IMAGE_PREFIX": options.prefix, "LINGBI_VERSION": options.version}
    tags = [stack.image(values, name) for name in stack.SERVICES]
    missing = [tag for tag in tags if run("docker", "image", "inspect", tag).returncode]
    if missing:
        raise Refusal(f"{', '.join(missing)}: no such image here; make it with scripts/up or docker build")
    if options.weights and not (options.weights / "config.json").is_file():
        raise Refusal(f"--weights {options.weights}: there is no config.json in it; give a model's folder")
    part = options.to.with_name(options.to.name + ".part")
    try:
        with part.open("w+b") as stream:
            write(Archive(stream, folder_of(options)), tags, options)
        part.replace(options.to)
    finally:
        if part.exists():
            part.unlink()


def write(archive: Archive, tags: list[str], options: argparse.Namespace) -> None:
    """Write all members; the last one holds the checksums of the others."""
    weights = options.weights
    with subprocess.Popen(["docker", "save", *tags], stdout=subprocess.PIPE) as save:
        assert save.stdout is not None  # set because stdout is a pipe
        archive.stream("images.tar", save.stdout)
    if save.returncode:
        raise StartFailed("docker save failed; see the lines above")
    for name, value in (("VERSION", options.version), (PREFIX_FILE.name, options.prefix)):
        archive.text(name, f"{value}\n", 0o644)  # scripts/up reads these
    for file in files():
        archive.file(str(file.relative_to(ROOT)), file)
    for file in sorted(weights.rglob("*")) if weights else ():
        if file.is_file() and ".lingbi" not in file.parts:
            archive.file(f"models/{weights.resolve().name}/{file.relative_to(weights)}", file)
    model = f" --model ./models/{weights.resolve().name}" if weights else ""
    archive.text("load", LOAD.replace("{model}", model), 0o755)
    archive.text("SHA256SUMS", "".join(f"{digest}  {name}\n" for name, digest in archive.digests.items()), 0o644)
    archive.end()


def files() -> list[Path]:
    """The files of this repository that a machine needs."""
    found = [path for part in PARTS for path in ROOT.glob(part)]
    every = [file for path in found for file in ([path] if path.is_file() else sorted(path.rglob("*")))]
    return [file for file in every if file.is_file() and not set(LEFT_OUT) & set(file.relative_to(ROOT).parts)]


class Archive:
    """A tar file written in one pass, also from a pipe, whose size is only known at its end."""

    def __init__(self, stream: IO[bytes], folder: str):
        self.stream_to, self.folder = stream, folder
        self.digests: dict[str, str] = {}

    def text(self, name: str, text: str, mode: int) -> None:
        self.stream(name, io.BytesIO(text.encode()), mode)

    def file(self, name: str, file: Path) -> None:
        with file.open("rb") as source:
            self.stream(name, source, file.stat().st_mode & 0o755)

    def stream(self, name: str, source: IO[bytes], mode: int = 0o644) -> None:
        """Add the contents of a stream; the header is written when the size is known."""
        header_at, size, digest = self.stream_to.tell(), 0, hashlib.sha256()
        self.stream_to.write(bytes(BLOCK_BYTES))
        for data in iter(lambda: source.read(CHUNK_BYTES), b""):
            self.stream_to.write(data)
            digest.update(data)
            size += len(data)
        self.stream_to.write(bytes(-size % BLOCK_BYTES))
        info = tarfile.TarInfo(f"{self.folder}/{name}")
        info.size, info.mode = size, mode
        header = info.tobuf(tarfile.GNU_FORMAT)
        if len(header) != BLOCK_BYTES:
            raise Refusal(f"the name {name} is too long for the archive; shorten it to fewer than 80 letters")
        self.stream_to.seek(header_at)
        self.stream_to.write(header)
        self.stream_to.seek(0, io.SEEK_END)
        self.digests[name] = digest.hexdigest()

    def end(self) -> None:
        self.stream_to.write(bytes(2 * BLOCK_BYTES))


if __name__ == "__main__":
    sys.exit(main())
