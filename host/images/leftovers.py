"""Images and builds' caches that lingbi made or fetched on this engine: which there are, and which are old."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from typing import Any

from host.machine import run

Fact = dict[str, Any]  # what Docker says of one image or of one record of the builder's cache
NONE, IMAGE = "<none>", "org.opencontainers.image.title=lingbi "  # our Dockerfiles' label, up to the image's name
# Words of our Dockerfiles, by which a record's description tells that it is of one of our builds.
OURS = re.compile(
    r"lingbi|bill_of_materials|docker/uv-requirements\.lock|--link --from=environment /opt/venv /opt/venv"
)
SAID_GB = 0.1  # less is not worth a line
Say = Callable[[str], None]


def images(prefix: str, names: Iterable[str]) -> list[Fact]:
    """Our images of all versions: those under this prefix, and those that a later build took the tag from."""
    found: list[Fact] = []
    for name in names:
        listed = run(
            "docker", "image", "ls", "--no-trunc", f"--filter=label={IMAGE}{name}", "--format={{json .}}"
        ).stdout
        facts = [json.loads(line) for line in listed.splitlines()]
        found += [fact for fact in facts if fact["Repository"] in (f"{prefix}{name}", NONE)]
    return found


def old(found: list[Fact], version: str) -> list[Fact]:
    """The images that neither this version has nor the one before it, to which one may want to go back."""
    former = [fact for fact in found if fact["Tag"] not in (version, NONE)]
    newest: dict[str, Fact] = {}
    for fact in sorted(former, key=lambda fact: (moment(fact["CreatedAt"]), numbers(fact["Tag"]))):
        newest[fact["Repository"]] = fact
    return [fact for fact in found if fact["Tag"] != version and fact not in newest.values()]


def cache() -> list[Fact]:
    """The records of our builds in the builder's cache, each after those that it was made from."""
    told = run("docker", "system", "df", "--verbose", "--format={{json .BuildCache}}").stdout.strip()
    records: list[Fact] = json.loads(told) or [] if told.startswith("[") else []
    ours = [record for record in records if OURS.search(str(record["Description"]))]
    return sorted(ours, key=lambda record: moment(record["CreatedAt"]))


def unused(records: list[Fact], since: datetime) -> list[Fact]:
    """The records that no build has used since then."""
    return [record for record in records if moment(record["LastUsedAt"]) < since]


def moment(told: str) -> datetime:
    """A time as Docker's commands write it, as in `2026-11-29 04:11:43.21 +0000 UTC`."""
    match = re.match(r"([0-9-]+ [0-9:]+)\S* ([+-]\d{4})", told)
    return datetime.strptime(f"{match[1]} {match[2]}", "%Y-%m-%d %H:%M:%S %z") if match else datetime.now(timezone.utc)


def numbers(tag: str) -> list[int]:
    """A version's numbers: they decide between images of the same second, since Docker tells no finer time."""
    return [int(number) for number in re.findall(r"\d+", tag)]


def clear(prefix: str, names: Iterable[str], version: str, begun: datetime, say: Say) -> None:
    """Remove what the images of a version leave behind once they are here; begun: when the first of them was asked for."""
    gone = remove_images(old(images(prefix, names), version))
    freed_gb = remove_cache(unused(cache(), begun))
    if gone or freed_gb >= SAID_GB:
        said = [f"{len(gone)} older image(s)"] * bool(gone) + [f"{freed_gb:.1f} GB of older builds"] * (
            freed_gb >= SAID_GB
        )
        say(f"disk    removed: {', '.join(said)}")


def remove_images(found: list[Fact]) -> list[str]:
    """Remove images; returns what went. Docker keeps those that a container uses."""
    names = [fact["ID"] if NONE in (fact["Repository"], fact["Tag"]) else name_of(fact) for fact in found]
    return [name for name in names if run("docker", "image", "rm", name).returncode == 0]


def name_of(fact: Fact) -> str:
    return f"{fact['Repository']}:{fact['Tag']}"


def remove_cache(records: list[Fact]) -> float:
    """Remove records from the builder's cache; returns about how many GB. Those that an image needs stay."""
    freed = 0.0
    for record in reversed(records):
        said = run("docker", "builder", "prune", "--all", "--force", f"--filter=id={record['ID']}").stdout
        freed += gigabytes(said.rpartition("Total:")[2].strip() or "0B")
    return freed


def gigabytes(size: str) -> float:
    """A size as Docker writes it, as in 1.5GB."""
    match = re.fullmatch(r"([0-9.]+)\s*([kMGT]?)B", size)
    return float(match[1]) * {"": 1e-9, "k": 1e-6, "M": 1e-3, "G": 1.0, "T": 1e3}[match[2]] if match else 0.0
