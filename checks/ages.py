"""How old the locked packages are: what is older than a year stands in checks/kept.json, with its reason.

`scripts/lock` writes checks/ages.json, so that the check asks nobody: for each lock the day of each version's first
file, and the newest version that the lock's Python could have.
"""

from __future__ import annotations

import datetime
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
AGES, KEPT = ROOT / "checks/ages.json", ROOT / "checks/kept.json"
PIN = re.compile(r"^([a-z0-9._-]+)==([^\s;]+)", re.M)
DATED = re.compile(r'^name = "(?P<name>[^"]+)"\nversion = "(?P<version>[^"]+)"(?P<files>.*?)(?=^\[\[|\Z)', re.M | re.S)
UPLOADED = re.compile(r"upload-time = (\d{4}-\d{2}-\d{2})")
YEAR = datetime.timedelta(days=365)
WORDS = ("reason", "out_of_reach")  # what an entry of the list says beside the packages


class Age(NamedTuple):
    """A version that a lock names, and the newest that it could name."""

    lock: str
    name: str
    version: str
    released: datetime.date
    newest: str

    def __str__(self) -> str:
        return f"{self.name} {self.version} in {self.lock} (of {self.released}; the newest is {self.newest})"


def locks() -> dict[str, str]:
    """{name of each lock of Python packages: its text}."""
    files = [file for folder in ("docker", "tests", "ansible") for file in (ROOT / folder).rglob("*requirements.lock")]
    return {file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8") for file in sorted(files)}


def pins(text: str) -> set[tuple[str, str]]:
    """(name, version) of everything that a lock names."""
    return set(PIN.findall(text))


def ages(table: dict[str, Any]) -> list[Age]:
    """The rows of checks/ages.json."""
    return [
        Age(lock, name, version, datetime.date.fromisoformat(released), newest)
        for lock, packages in table["locks"].items()
        for pin, (released, newest) in packages.items()
        for name, version in [pin.split("==")]
    ]


def faults(rows: list[Age], day: datetime.date, kept: list[dict[str, Any]]) -> Iterator[str]:
    """What is wrong with the list of what stays old, on this day."""
    listed = {(name, version) for entry in kept for name, version in entry["packages"].items()}
    for row in rows:
        if day - row.released > YEAR and (row.name, row.version) not in listed:
            yield f"{row} is older than a year: raise it, or give the reason in checks/kept.json"
    locked = {(row.name, row.version) for row in rows}
    for name, version in sorted(listed - locked):
        yield f"{name} {version} in checks/kept.json is locked nowhere (any more): take it off"
    for entry in kept:
        if not all(entry.get(word) for word in WORDS):
            yield f"the entry of {', '.join(entry['packages'])} in checks/kept.json lacks one of {', '.join(WORDS)}"
        yield from (f"{row} has a newer release" for row in rows if entry.get("is_newest") and outdated(row, entry))


def outdated(row: Age, entry: dict[str, Any]) -> bool:
    """Whether a package of an entry that says that there is nothing newer has something newer."""
    return bool(entry["packages"].get(row.name) == row.version != row.newest)


def gathered(day: str, folder: Path) -> dict[str, Any]:
    """The table, of what scripts/lock left in a folder: LOCK.dated (a pylock.toml) and LOCK.newest, by the locks' names."""
    found: dict[str, Any] = {"day": day, "locks": {}}
    for lock, text in locks().items():
        place = folder / lock.replace("/", ".")
        newest = dict(sorted(pins(place.with_suffix(".newest").read_text(encoding="utf-8"))))
        released = dict(dated(place.with_suffix(".dated").read_text(encoding="utf-8")))
        found["locks"][lock] = {
            f"{name}=={version}": [released[name, version], newest[name]] for name, version in sorted(pins(text))
        }
    return found


def dated(pylock: str) -> Iterator[tuple[tuple[str, str], str]]:
    """((name, version), the day of its first file) for each package of a pylock.toml."""
    for match in DATED.finditer(pylock):
        yield (match["name"], match["version"]), min(UPLOADED.findall(match["files"]))


def written(table: dict[str, Any]) -> str:
    """The table as JSON, a line for each package."""
    return re.sub(r"\[\s+(\S+)\s+(\S+)\s+\]", r"[\1 \2]", json.dumps(table, indent=1)) + "\n"


if __name__ == "__main__":
    AGES.write_text(written(gathered(sys.argv[1], Path(sys.argv[2]))), encoding="utf-8")
