"""A stack's processes and files, as seen from outside: memory, processor time, restarts and disk."""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

MIB = 1 << 20
# What stands in the command lines of each part's first process.
MARKS = {"page": "lingbi_ui", "worker": "lingbi.worker", "gateway": "nginx: master"}
GONE = (psutil.NoSuchProcess, psutil.ZombieProcess, FileNotFoundError, ProcessLookupError)


@dataclass
class Seen:
    """The highest of what was seen within a phase: MiB by part and of files; the first processes of each part."""

    memory_mib: dict[str, float] = field(default_factory=dict)
    disk_mib: float = 0.0
    first_processes: dict[str, list[int]] = field(default_factory=dict)

    @property
    def restarts(self) -> int:
        """How often a part's process was followed by another."""
        return sum(len(pids) - 1 for pids in self.first_processes.values())


class Processes:
    """The processes below some roots, and the folders that they keep files in."""

    def __init__(self, roots: Callable[[], list[int]], folders: list[Path]):
        """roots: the process ids of supervisors or containers now; none: nothing is seen."""
        self.roots, self.folders = roots, folders

    def look(self, seen: Seen) -> None:
        """Take what is now into what was seen."""
        for part, process in self.parts().items():
            mib = sum(memory(item) for item in tree(process)) / MIB
            seen.memory_mib[part] = max(mib, seen.memory_mib.get(part, 0))
            pids = seen.first_processes.setdefault(part, [])
            if process.pid not in pids:
                pids.append(process.pid)
        seen.disk_mib = max(seen.disk_mib, sum(map(size, self.folders)) / MIB)

    def parts(self) -> dict[str, psutil.Process]:
        """The first process of each part that runs; its children may have the same command line."""
        found: dict[str, psutil.Process] = {}
        for process in self.all():
            with contextlib.suppress(*GONE):
                line = " ".join(process.cmdline())
                for part, mark in MARKS.items():
                    if mark in line:
                        found.setdefault(part, process)
        return found

    def all(self) -> Iterator[psutil.Process]:
        """Every process, parents before their children."""
        for root in self.roots():
            with contextlib.suppress(*GONE):
                yield from tree(psutil.Process(root))

    def seconds(self) -> float:
        """Processor time that all of them took so far."""
        total = 0.0
        for process in self.all():
            with contextlib.suppress(*GONE):
                total += sum(process.cpu_times()[:2])
        return total


def tree(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except GONE:
        return []


def memory(process: psutil.Process) -> int:
    """Bytes that a process has to itself, and its part of what it shares, as a memory limit counts them."""
    try:
        text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    except GONE:
        return 0
    lines = [line.split() for line in text.splitlines()]
    return sum(int(line[1]) * 1024 for line in lines if line[0] == "Pss:")


def size(folder: Path) -> int:
    """Bytes of a folder's files; those that disappear meanwhile count as nothing."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(*GONE):
                total += os.lstat(os.path.join(place, name)).st_blocks * 512
    return total
