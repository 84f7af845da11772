"""scripts/restore: put back what scripts/backup wrote. Everything is checked before the first file is written."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from host import env_file, stack
from host.backup import accounts, archive, places, volumes
from host.backup.archive import Item
from host.backup.places import Places
from host.env_file import ROOT
from host.errors import Refusal, StartFailed
from host.inside import is_native_running
from host.machine import look
from host.preflight import check_engine
from host.start import decide


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 restored, 2 refused and nothing changed, 3 the containers' volumes could not be written."""
    parser = argparse.ArgumentParser(prog="scripts/restore", description=__doc__)
    parser.add_argument("file", type=Path, help="an archive that scripts/backup wrote")
    parser.add_argument("--force", action="store_true", help="replace files that are there and differ")
    options = parser.parse_args(arguments)
    try:
        manifest, items = archive.read(options.file)
        here = Places(ROOT, os.environ)
        values, start = settings_in(items)
        targets = {item.name: here.target(item.name, values, start) for item in items}
        check(items, targets, options.force)
        put_back(items, targets, values)
    except (Refusal, StartFailed) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except OSError as error:
        print(f"error: {error}; run it again once that is mended", file=sys.stderr)
        return StartFailed.exit_status
    print(f"restored {len(items)} files of lingbi {manifest['lingbi']}, backed up at {manifest['made']}")
    for line in next_steps(items):
        print(line)
    return 0


def settings_in(items: list[Item]) -> tuple[dict[str, str], dict[str, str]]:
    """The settings of the backup's .env, and of its last native start."""
    held = {item.name: item for item in items}
    values = env_file.parse(held["env"].data.decode(), ".env in the backup") if "env" in held else {}
    return values, places.start_settings(held["state/start.json"].data if "state/start.json" in held else b"")


def check(items: list[Item], targets: Mapping[str, Path | None], is_forced: bool) -> None:
    """Raise Refusal if something runs here, or if a file that is there would be lost."""
    if is_native_running() or (look().engine and stack.is_running()):
        raise Refusal("lingbi runs here; end it first (scripts/down)")
    there = [file for item in items if (file := targets[item.name]) and differs(file, item)]
    if there and not is_forced:
        names = ", ".join(map(str, there[:5])) + (f" and {len(there) - 5} more" if len(there) > 5 else "")
        raise Refusal(f"other files are there already: {names}; move them away, or give --force to replace them")
    if any(item.name.startswith("volume/") for item in items):
        check_engine(look())


def differs(file: Path, item: Item) -> bool:
    return file.is_symlink() or (file.exists() and (not file.is_file() or not has_bytes(file, item)))


def has_bytes(file: Path, item: Item) -> bool:
    """Whether a file holds an item's bytes."""
    if file.stat().st_size != item.size:
        return False
    with file.open("rb") as here, item.open() as there:
        return all(data == here.read(len(data)) for data in iter(lambda: there.read(archive.PIECE_BYTES), b""))


def put_back(items: list[Item], targets: Mapping[str, Path | None], values: Mapping[str, str]) -> None:
    for item in items:
        file = targets[item.name]
        if file:
            write(file, item)
    if any(item.name.startswith("volume/") for item in items):
        print("the keys of containers are in a volume, which needs the images:", file=sys.stderr)
        stack.have_images({**decide.first_values(look()), **values}, lambda line: print(line, file=sys.stderr))
        volumes.restore(items)


def write(file: Path, item: Item) -> None:
    """Replace a file in one step. New folders are for their owner only; root gives all to whom the folder belongs to."""
    parent = next(each for each in file.parents if each.exists())
    missing = [each for each in file.parents if not each.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=0o755 if folder.name in ("logins", "gateway", ".lingbi") else 0o700)
        give(folder, parent)
    beside = file.with_name(f".{file.name}.restored")
    beside.unlink(missing_ok=True)
    descriptor = os.open(str(beside), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream, item.open() as held:
        shutil.copyfileobj(held, stream, archive.PIECE_BYTES)
    beside.chmod(item.mode)
    give(beside, parent)
    if file.name == accounts.DATABASE:
        for name in accounts.BESIDE:
            file.with_name(name).unlink(missing_ok=True)
    os.replace(str(beside), str(file))


def give(file: Path, parent: Path) -> None:
    if os.geteuid() == 0:
        os.chown(str(file), parent.stat().st_uid, parent.stat().st_gid)


def next_steps(items: list[Item]) -> list[str]:
    """What starts lingbi again as it was."""
    held = {item.name: item for item in items}
    lines = [f"a lock for fetching the same bytes: scripts/fetch --model MODEL --lock {name}" for name in locks(held)]
    if "env" in held or any(name.startswith("volume/") for name in held):
        return [*lines, "start it: scripts/up --docker"]
    if "state/start.json" not in held:
        return lines
    start = json.loads(held["state/start.json"].data)
    words = [shlex.quote(f"{name}={value}") for name, value in start.get("settings", {}).items()]
    return [
        *lines,
        " ".join(
            ["start it:", *words, start.get("program", "scripts/up"), *map(shlex.quote, start.get("arguments", []))]
        ),
    ]


def locks(held: Iterable[str]) -> list[str]:
    return [f".lingbi/{name}" for name in sorted(held) if name.startswith("locks/")]


if __name__ == "__main__":
    sys.exit(main())
