"""scripts/backup: write keys, settings, logins, secrets, certificates and locks to one file, for its owner only."""

from __future__ import annotations

import argparse
import os
import re
import sqlite3
import sys
from pathlib import Path

from host import stack
from host.backup import accounts, archive, places, volumes
from host.backup.archive import Item
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
    options = parser.parse_args(arguments)
    try:
        check_target(options.file, options.force)
        items = collect(options.without_volumes)
        check_sizes(items)
        archive.write(options.file, items)
    except (Refusal, StartFailed) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except OSError as error:
        print(f"error: {options.file} cannot be written: {error.strerror}; nothing was written", file=sys.stderr)
        return Refusal.exit_status
    print(f"{options.file}: {len(items)} files, mode 0600; it holds secrets, weights are not in it")
    if url := elsewhere():
        print(
            f"not in it: the database {without_password(url)}; docs/accounts.md says how to save that", file=sys.stderr
        )
    return 0


def without_password(url: str) -> str:
    return re.sub(r"(//[^:/@]*):[^@]*@", r"\1:***@", url)


def check_target(file: Path, is_forced: bool) -> None:
    """Raise Refusal where an archive must not be written."""
    if not file.absolute().parent.is_dir():
        raise Refusal(f"{file.absolute().parent} is no folder; make it, or give another file")
    if file.is_dir() or (file.exists() and not is_forced):
        raise Refusal(f"{file} is there already; give a new name, or --force to replace a file")


def collect(without_volumes: bool) -> list[Item]:
    """Everything that there is. Raises Refusal where the containers' keys are out of reach, and StartFailed."""
    items = {item.name: item for item in places.collect(places.Places(ROOT, os.environ))}
    items.update({item.name: item for item in native_accounts(Path(places.Places(ROOT, os.environ).state_dir))})
    if not without_volumes and not is_native_running() and has_volumes():
        items.update({item.name: item for item in volumes.save()})
    if not items:
        raise Refusal(f"there is nothing to back up: lingbi was never started in {ROOT}")
    return [items[name] for name in sorted(items)]


def native_accounts(state_dir: Path) -> list[Item]:
    """The accounts of a native installation. Raises Refusal."""
    try:
        found = accounts.copies(state_dir / "accounts")
    except (accounts.Unsteady, OSError, sqlite3.Error) as fault:
        raise Refusal(f"the accounts in {state_dir} cannot be copied: {fault}") from None
    return [Item(f"state/accounts/{name}", data, 0o600) for name, data in found.items()]


def check_sizes(items: list[Item]) -> None:
    """Raise Refusal for a file that scripts/restore would refuse."""
    for item in items:
        if len(item.data) > archive.most_bytes(item.name):
            raise Refusal(
                f"{item.name} has {len(item.data) >> 20} MiB, more than a backup takes; copy it with `sqlite3 FILE .backup`, "
                "or move to PostgreSQL (docs/accounts.md)"
            )


def elsewhere() -> str:
    """The database that settings name, which is not in the backup; "" where there is none."""
    here = places.Places(ROOT, os.environ)
    given = [places.started(here.state_dir / "start.json"), here.values()]
    urls = [settings.get("LINGBI_DATABASE_URL", "") for settings in given]
    return next((url for url in urls if url), "")


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
