"""scripts/backup: write keys, settings, logins, secrets, certificates, locks and batches to one file, for its owner only."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

from host import stack
from host.backup import accounts, archive, places, volumes
from host.backup.archive import Writer
from host.env_file import ROOT
from host.errors import Refusal, StartFailed
from host.inside import is_native_running
from host.machine import look
from host.preflight import check_engine


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 written, 2 refused and nothing written, 3 the containers' volumes could not be read."""
    parser = argparse.ArgumentParser(prog="scripts/backup", description=__doc__)
    parser.add_argument("file", type=Path, help="the archive to write; it holds secrets")
    parser.add_argument("--force", action="store_true", help="replace a file that is there")
    parser.add_argument("--without-volumes", action="store_true", help="leave out the keys of containers")
    parser.add_argument(
        "--without-uploads", action="store_true", help="leave out files that were uploaded, as for batches"
    )
    options = parser.parse_args(arguments)
    try:
        check_target(options.file, options.force)
        with archive.written(options.file) as writer:
            collect(writer, not options.without_volumes, not options.without_uploads)
    except (Refusal, StartFailed) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except OSError as error:
        print(f"error: {options.file} cannot be written: {error.strerror}; nothing was written", file=sys.stderr)
        return Refusal.exit_status
    print(f"{options.file}: {len(writer.files)} files, mode 0600; it holds secrets, weights are not in it")
    for line in told(writer, options.without_uploads):
        print(line, file=sys.stderr)
    return 0


def told(writer: Writer, is_without_uploads: bool) -> Iterator[str]:
    """What is to be known of a backup: how much of it was uploaded, and what is not in it."""
    sizes = [file["size"] for name, file in writer.files.items() if archive.UPLOADED.fullmatch(name)]
    if sizes:
        yield f"{len(sizes)} of them were uploaded, {sum(sizes) >> 20} MiB; --without-uploads leaves those out"
    if is_without_uploads:
        yield "not in it: files that were uploaded; lines of batches that need them will fail after a restore"
    if folder := elsewhere("LINGBI_FILES_DIR"):
        yield f"not in it: the uploaded files in {folder} (LINGBI_FILES_DIR); copy that folder"
    if url := elsewhere("LINGBI_DATABASE_URL"):
        yield f"not in it: the database {without_password(url)}; docs/accounts.md says how to save that"


def without_password(url: str) -> str:
    return re.sub(r"(//[^:/@]*):[^@]*@", r"\1:***@", url)


def check_target(file: Path, is_forced: bool) -> None:
    """Raise Refusal where an archive must not be written."""
    if not file.absolute().parent.is_dir():
        raise Refusal(f"{file.absolute().parent} is no folder; make it, or give another file")
    if file.is_dir() or (file.exists() and not is_forced):
        raise Refusal(f"{file} is there already; give a new name, or --force to replace a file")


def collect(writer: Writer, with_volumes: bool, with_uploads: bool) -> None:
    """Write everything that there is. Raises Refusal where the containers' keys are out of reach, and StartFailed."""
    here = places.Places(ROOT, os.environ)
    save_accounts(writer, here.state_dir, with_uploads)
    places.collect(here, writer)
    if with_volumes and not is_native_running() and has_volumes():
        volumes.save(writer, with_uploads)
    if not writer.files:
        raise Refusal(f"there is nothing to back up: lingbi was never started in {ROOT}")


def save_accounts(writer: Writer, state_dir: Path, with_uploads: bool) -> None:
    """Write the accounts of a native installation, and the files that were uploaded to it. Raises Refusal."""
    with contextlib.ExitStack() as opened:
        try:
            found = opened.enter_context(accounts.saved(state_dir / "accounts", with_uploads))
        except (accounts.Unsteady, OSError, sqlite3.Error) as fault:
            raise Refusal(f"the accounts in {state_dir} cannot be copied: {fault}") from None
        for name, stream in found:
            writer.add(f"state/{name}", 0o600, os.fstat(stream.fileno()).st_size, stream)


def elsewhere(setting: str) -> str:
    """What a setting names that is not in the backup; "" where it names nothing."""
    here = places.Places(ROOT, os.environ)
    given = [places.started(here.state_dir / "start.json"), here.values()]
    found = [settings.get(setting, "") for settings in given]
    return next((value for value in found if value), "")


def has_volumes() -> bool:
    """Whether there are containers' volumes. Raises Refusal if there should be, and no engine answers."""
    machine = look()
    if not (ROOT / ".env").exists():
        return bool(machine.engine) and stack.is_set_up()
    try:
        check_engine(machine)
    except Refusal as refusal:
        raise Refusal(f"keys of containers are in a volume; {refusal} (--without-volumes leaves them out)") from None
    return True


if __name__ == "__main__":
    sys.exit(main())
