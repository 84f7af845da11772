"""scripts/bundle: pack an archive for an offline machine: images, the files that start them, optionally weights."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import IO, Any

from host import stack
from host.bundle import images, signature, statement
from host.bundle.packing import Archive
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
Found = tuple[str, dict[str, Any]]  # an image with its tag, and what the engine says of it
BILL = "/usr/share/sbom/{name}.cdx.json"  # in each image; docker/bill_of_materials.py makes it
LOAD = f"""\
#!/usr/bin/env bash
# Verify this bundle and load its images: `load`, or `load --signers FILE`. Then: scripts/up --docker
set -euo pipefail
export PYTHONDONTWRITEBYTECODE=1 # a file more would not be as it was signed
here=$(cd "$(dirname "${{BASH_SOURCE[0]}}")" && pwd)
"$here/scripts/signature" verify "$here" "$@"
docker load --quiet --input "$here/{statement.SAVED}"
echo "loaded; now: scripts/up --docker{{model}}"
"""


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 the archive is written, 2 refused, 3 the images could not be saved."""
    options = parse(arguments)
    try:
        make(options)
    except (Refusal, StartFailed) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    print(told(options))
    return 0


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bundle", description=__doc__.split(": ", 1)[1].capitalize())
    parser.add_argument("--to", type=Path, help="the archive (default: lingbi-VERSION.tar)")
    parser.add_argument("--weights", type=Path, help="a model folder to include")
    parser.add_argument("--version", default=(ROOT / "VERSION").read_text().strip(), help="tag of the images")
    parser.add_argument("--prefix", default="lingbi/", help="what stands before the images' names")
    parser.add_argument("--key", type=Path, help="key to sign with (scripts/signature new-key)")
    parser.add_argument(
        "--no-images",
        action="store_true",
        help="only the images' digests and bills of materials, for hosts that pull from a registry (default: lingbi-VERSION-digests.tar)",
    )
    options = parser.parse_args(arguments)
    if options.no_images and options.weights:
        parser.error("--weights: an archive with --no-images holds no weights; leave one of them out")
    options.to = options.to or Path(f"{folder_of(options)}.tar")
    return options


def folder_of(options: argparse.Namespace) -> str:
    return f"lingbi-{options.version}{'-digests' if options.no_images else ''}"


def told(options: argparse.Namespace) -> str:
    """What was made and what comes next."""
    size = f"{options.to}: {options.to.stat().st_size / 1e9:.2f} GB"
    signed = f"signed with {options.key}" if options.key else "not signed (--key FILE)"
    if options.no_images:
        return f"{size}, {signed}"
    return f"{size}, {signed}\nthere: tar -xf {options.to.name} && {folder_of(options)}/load"


def make(options: argparse.Namespace) -> None:
    """Write the archive; the file only appears when it is complete. Raises Refusal or StartFailed."""
    check_engine(look())
    found = find_images(options)
    if options.weights and not (options.weights / "config.json").is_file():
        raise Refusal(f"--weights {options.weights}: there is no config.json in it; give a model's folder")
    if options.key:
        signature.sign(b"", options.key)  # a passphrase that is wrong is told now, and not after minutes
    part = options.to.with_name(options.to.name + ".part")
    try:
        with part.open("w+b") as stream:
            write(Archive(stream, folder_of(options)), found, options)
        part.replace(options.to)
    finally:
        if part.exists():
            part.unlink()


def find_images(options: argparse.Namespace) -> dict[str, Found]:
    """What the engine says of the image of each of stack.SERVICES. Raises Refusal."""
    values = {"LINGBI_IMAGE_PREFIX": options.prefix, "LINGBI_VERSION": options.version}
    tags = {name: stack.image(values, name) for name in stack.SERVICES}
    found = {name: (tag, image) for name, tag in tags.items() if (image := images.inspect(tag))}
    missing = [tag for name, tag in tags.items() if name not in found]
    if missing:
        raise Refusal(f"{', '.join(missing)}: no such image here; make it with scripts/up or docker build")
    unpushed = [tag for tag, image in found.values() if not images.is_pushed(tag, image)]
    if options.no_images and unpushed:
        raise Refusal(f"{', '.join(unpushed)}: no registry has given it a digest yet; docker push it first")
    return found


def write(archive: Archive, found: dict[str, Found], options: argparse.Namespace) -> None:
    """Write all members: images, what describes them, files; at last the checksums of all these, and their signature."""
    saved = save(archive, [tag for tag, _ in found.values()], not options.no_images)
    known = {name: (tag, saved[tag] | images.own_digests(image)) for name, (tag, image) in found.items()}
    archive.text(statement.IMAGES, statement.described(options.version, known))
    for name, (tag, _) in found.items():
        archive.text(f"sbom/{name}.cdx.json", bill_of(name, tag))
    if not options.no_images:
        write_files(archive, options)
    sums = statement.sums(archive.digests)
    archive.text(statement.SUMS, sums)
    if options.key:
        archive.text(statement.SIGNATURE, signature.sign(sums.encode(), options.key).decode())
    archive.end()


def save(archive: Archive, tags: list[str], is_kept: bool) -> dict[str, set[str]]:
    """Have the engine save the images, into the archive or to be looked at only; {tag: digests}. Raises StartFailed."""
    found: dict[str, set[str]] = {}
    with subprocess.Popen(["docker", "save", *tags], stdout=subprocess.PIPE) as saving:
        assert saving.stdout is not None  # set because stdout is a pipe
        if is_kept:
            archive.stream(statement.SAVED, saving.stdout)
        else:
            found = look_at(saving.stdout)
    if saving.returncode:
        raise StartFailed("docker save failed; see the lines above")
    if is_kept:
        found = images.saved_digests(archive.read_back(statement.SAVED))
    lost = [tag for tag in tags if not found.get(tag)]
    if lost:
        raise StartFailed(f"docker save wrote nothing of {', '.join(lost)}")
    return found


def look_at(saved: IO[bytes]) -> dict[str, set[str]]:
    """The digests in what `docker save` writes, read to its end."""
    try:
        with tarfile.open(fileobj=saved, mode="r|") as archive:
            return images.saved_digests(archive)
    except tarfile.TarError as error:
        raise StartFailed(f"docker save wrote no archive: {error}") from None
    finally:
        while saved.read(1 << 20):
            pass


def bill_of(name: str, tag: str) -> str:
    """The bill of materials that lies in an image. Raises Refusal."""
    made = run("docker", "create", tag, "never-started")
    container = made.stdout.strip()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bill"
        copied = run("docker", "cp", f"{container}:{BILL.format(name=name)}", str(file))
        run("docker", "rm", "--volumes", container)  # those that the image declares are made with it
        if made.returncode or copied.returncode:
            raise Refusal(f"{tag} has no bill of materials ({BILL.format(name=name)}); build it from this repository")
        return file.read_text(encoding="utf-8")


def write_files(archive: Archive, options: argparse.Namespace) -> None:
    """What starts the images on a machine that has nothing of lingbi, and the weights."""
    weights = options.weights
    for name, value in (("VERSION", options.version), (PREFIX_FILE.name, options.prefix)):
        archive.text(name, f"{value}\n")  # scripts/up reads these
    for file in files():
        archive.file(str(file.relative_to(ROOT)), file)
    for file in sorted(weights.rglob("*")) if weights else ():
        if file.is_file() and ".lingbi" not in file.parts:
            archive.file(f"models/{weights.resolve().name}/{file.relative_to(weights)}", file)
    model = f" --model ./models/{weights.resolve().name}" if weights else ""
    archive.text("load", LOAD.replace("{model}", model), 0o755)


def files() -> list[Path]:
    """The files of this repository that a machine needs."""
    found = [path for part in PARTS for path in ROOT.glob(part)]
    every = [file for path in found for file in ([path] if path.is_file() else sorted(path.rglob("*")))]
    return [file for file in every if file.is_file() and not set(LEFT_OUT) & set(file.relative_to(ROOT).parts)]


if __name__ == "__main__":
    sys.exit(main())
