"""scripts/bench-fetch: what a fetch costs beside curl and git-lfs, against the local hub.

Ratios are taken side by side, alternating, and the median of the rounds counts: other work on the
machine then touches both. Exit status 1 when a goal is missed.
"""

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from lingbi.model.resolve import find_model
from lingbi.settings import load_settings
from lingbi.weights.folder import WeightsFolder, size_on_disk
from lingbi.weights.lockfile import Entry, Lock
from lingbi.weights.progress import Progress
from lingbi.weights.start import ensure
from lingbi.weights.verification import THREADS, find_faults, hash_file, reason_to_recheck, write_marker
from tests.conftest import DEMO, ROOT
from tests.hub import running_hub

MIB = 1 << 20
MODEL = "lab/model"
SHARDS = 2
KILLS = 20


def main(arguments=None) -> int:
    options = parse(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        bench = Bench(options, Path(work))
        for name in options.only or ("wall", "throttled", "kills", "marker", "check", "large"):
            getattr(bench, name)()
    print(json.dumps({"missed": bench.missed}))
    return 1 if bench.missed else 0


def parse(arguments=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench-fetch", description=__doc__.split(": ")[1].split(",")[0])
    parser.add_argument("--mib", type=int, default=650, help=f"size of each of {SHARDS} shards")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--large-gb", type=int, default=20, help="size of the sparse file")
    parser.add_argument("--git-lfs", default=shutil.which("git-lfs"), help="git-lfs program to compare with")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()), help="folder on the disk to measure")
    parser.add_argument("--only", nargs="+", choices=("wall", "throttled", "kills", "marker", "check", "large"))
    return parser.parse_args(arguments)


class Bench:
    """One model on one hub; each method measures one goal and prints its figures."""

    def __init__(self, options, work: Path):
        self.options, self.work, self.missed = options, work, []
        self.repo = shutil.copytree(DEMO, work / "hub" / MODEL, ignore=shutil.ignore_patterns("__pycache__"))
        for shard in range(SHARDS):
            with (self.repo / f"shard-{shard}.dat").open("wb") as stream:
                for _ in range(options.mib):
                    stream.write(os.urandom(MIB))
        self.bytes = sum(path.stat().st_size for path in self.repo.iterdir())

    def goal(self, name: str, value: float, limit: float, unit: str, at_most: bool = True) -> None:
        reached = value <= limit if at_most else value >= limit
        sign = "<=" if at_most else ">="
        print(
            f"{'reached' if reached else 'MISSED ':<8} {name:<46} {value:9.2f} {unit:<6} ({sign} {limit:g})", flush=True
        )
        if not reached:
            self.missed.append(name)

    def hub(self, *arguments):
        """The hub in a process of its own."""
        command = [sys.executable, "-m", "tests.hub", self.work / "hub", *map(str, arguments)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        return process, json.loads(process.stdout.readline())["url"]

    def fetch(self, url: str, to: Path, *arguments) -> subprocess.Popen:
        command = [
            sys.executable,
            "-m",
            "lingbi.cli.fetch",
            "--model",
            MODEL,
            "--to",
            to,
            "--endpoint",
            url,
            *arguments,
        ]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "docker/server")}
        return subprocess.Popen(list(map(str, command)), env=environment, stderr=subprocess.PIPE)

    def wall(self) -> None:
        hub, url = self.hub()
        kinds = {"lingbi": self._time_fetch, "curl": self._time_curl}
        if self.options.git_lfs:
            kinds["git-lfs"] = self._time_git_lfs
        else:
            print("not run  git-lfs is not here (--git-lfs PROGRAM)")
        try:
            self._time_fetch(url)  # the hub hashes its files once
            rounds = [{name: measure(url) for name, measure in kinds.items()} for _ in range(self.options.rounds)]
        finally:
            hub.terminate()
        for kind in kinds:
            print("         " + kind, " ".join(f"{each[kind]['seconds']:.2f}" for each in rounds), "s")
        for kind, limit in (("curl", 1.25), ("git-lfs", 0.4)):
            if kind in kinds:
                ratios = [each["lingbi"]["seconds"] / each[kind]["seconds"] for each in rounds]
                self.goal(f"wall time, of {kind}'s", statistics.median(ratios), limit, "x")
        disk = max(each["lingbi"]["disk"] for each in rounds) / self.bytes
        self.goal("peak disk, of the data", disk, 1.02, "x")
        self.goal("peak memory", max(each["lingbi"]["memory"] for each in rounds) / MIB, 150, "MiB")
        if "git-lfs" in kinds:
            print(
                f"         git-lfs takes {max(each['git-lfs']['disk'] for each in rounds) / self.bytes:.2f} x the disk"
            )

    def _time_fetch(self, url: str) -> dict:
        to = self.work / "fetched"
        return self._watch(lambda: self.fetch(url, to), to)

    def _time_curl(self, url: str) -> dict:
        to = self.work / "curled"
        to.mkdir()
        file = f"{url}/api/v1/models/{MODEL}/repo?Revision=master&FilePath=shard-[0-{SHARDS - 1}].dat"
        return self._watch(lambda: subprocess.Popen(["curl", "-sfL", file, "-o", f"{to}/#1"]), to)

    def _time_git_lfs(self, url: str) -> dict:
        origin = self.work / "origin"
        tools = os.path.dirname(os.path.abspath(self.options.git_lfs))
        environment = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}", "HOME": str(self.work)}
        if not origin.exists():
            make_lfs_repository(self.repo, origin, environment)
        to = self.work / "cloned"
        config = ["-c", f"lfs.url={url}/lfs/{MODEL}", "-c", "lfs.locksverify=false"]
        command = ["git", *config, "clone", "--quiet", f"file://{origin}", to]
        return self._watch(
            lambda: subprocess.Popen(command, env=environment, cwd=self.work, stderr=subprocess.DEVNULL), to
        )

    def _watch(self, start, folder: Path) -> dict:
        """Seconds, peak disk and peak memory (its own and its children's) of a process; the folder goes."""
        begin, peak, memory = time.monotonic(), 0, 0
        process = start()
        seen = psutil.Process(process.pid)
        while process.poll() is None:
            peak = max(peak, size_on_disk(folder) if folder.exists() else 0)
            try:
                memory = max(memory, sum(each.memory_info().rss for each in [seen, *seen.children(recursive=True)]))
            except psutil.NoSuchProcess:
                break
            time.sleep(0.05)
        seconds = (process.wait(), time.monotonic() - begin)[1]
        assert process.returncode == 0, f"{process.args} ended with {process.returncode}"
        peak = max(peak, size_on_disk(folder))
        shutil.rmtree(folder)
        return {"seconds": seconds, "disk": peak, "memory": memory}

    def throttled(self) -> None:
        """Against a hub that gives 40 MiB/s to a connection: the rate of a whole fetch, of one connection's."""
        hub, url = self.hub("--rate", 40)
        try:
            seconds = [self._time_fetch(url)["seconds"] for _ in range(2)][-1]
        finally:
            hub.terminate()
        self.goal("rate, of one connection's 40 MiB/s", self.bytes / MIB / seconds / 40, 3.5, "x", at_most=False)

    def kills(self) -> None:
        """SIGKILL at 20 random moments; what the hub sends beyond the data came twice."""
        chance, to = random.Random(20), self.work / "killed"
        with running_hub(self.work / "hub") as hub:
            for path in self.repo.iterdir():
                hub.hash_of(path)
            hub.faults.rate = max(self.bytes // (KILLS * 8), MIB)
            for _ in range(KILLS):
                process = self.fetch(hub.url, to)
                time.sleep(0.7 + chance.random() * 1.2)
                process.send_signal(signal.SIGKILL)
                process.wait()
            hub.faults.rate = 0
            last = self.fetch(hub.url, to)
            errors = last.communicate()[1].decode()
            assert last.returncode == 0, errors
            time.sleep(1)
            sent = sum(hub.sent.values())
        wrong = find_faults(to, WeightsFolder(to).lock().entries, Progress())
        self.goal("files wrong after 20 kills", len(wrong), 0, "")
        self.goal("fetched again after 20 kills, in flight and all", (sent - self.bytes) / MIB, 64, "MiB")
        shutil.rmtree(to)

    def marker(self) -> None:
        """What a start does about weights that are there: the whole of it, and of that the look at the files."""
        for count in (20, 10_000):
            self._marker(count)

    def _marker(self, count: int) -> None:
        models_dir = self.work / f"marked-{count}"
        settings = load_settings(models_dir=models_dir, state_dir=self.work / "state")
        found = self._marked(models_dir, count)
        folder = WeightsFolder(found.path)
        lock = folder.lock()
        looks = [timed(lambda: reason_to_recheck(folder.marker_file, folder.path, lock)) for _ in range(7)]
        starts = [timed(lambda: ensure(found, settings, Progress())) for _ in range(7)]
        self.goal(f"marker check of {count} files", 1000 * statistics.median(looks), 50, "ms")
        self.goal(f"start's look at {count} files, lock read", 1000 * statistics.median(starts), 50, "ms")
        shutil.rmtree(models_dir)

    def _marked(self, models_dir: Path, count: int):
        """A model of so many files, most of them empty, that a fetch has verified."""
        path = find_model(MODEL, models_dir).path
        shutil.copytree(DEMO, path, ignore=shutil.ignore_patterns("__pycache__"))
        for number in range(count - len(list(path.iterdir()))):
            (path / f"{number}.txt").touch()
        entries = tuple(Entry(file.name, file.stat().st_size, hash_file(file)) for file in sorted(path.iterdir()))
        folder, lock = WeightsFolder(path), Lock(MODEL, "master", entries)
        folder.prepare()
        lock.write(folder.lock_file)
        write_marker(folder.marker_file, path, lock, written_now=False)
        assert reason_to_recheck(folder.marker_file, path, lock) is None
        return find_model(MODEL, models_dir)

    def check(self) -> None:
        """The full check's rate, of one lone hash's rate (from the page cache); two threads have two cores."""
        shards = [self.repo / f"shard-{number}.dat" for number in range(SHARDS)]
        entries = [Entry(shard.name, shard.stat().st_size, hash_file(shard)) for shard in shards]
        size = sum(entry.size for entry in entries)
        rates = []
        for _ in range(self.options.rounds):
            alone = timed(lambda: hash_file(shards[0])) * SHARDS
            together = timed(lambda: find_faults(self.repo, entries, Progress()))
            rates.append((size / together / MIB, alone / together))
        rate, ratio = (statistics.median(column) for column in zip(*rates, strict=True))
        print(f"         full check {rate:.0f} MiB/s on {min(THREADS, SHARDS)} threads")
        self.goal("full check's rate, of one thread's", ratio, 1.5, "x", at_most=False)

    def large(self) -> None:
        """A sparse file of 20 GB, fetched whole (it takes its size on the disk)."""
        size = self.options.large_gb * 10**9
        if shutil.disk_usage(self.work).free < 1.3 * size:
            print(f"not run  {self.options.large_gb} GB do not fit here")
            return
        with (self.repo / "large.dat").open("wb") as stream:
            stream.truncate(size - MIB)
            stream.seek(size - MIB)
            stream.write(os.urandom(MIB))
        hub, url = self.hub()
        to = self.work / "large"
        try:
            begin = time.monotonic()
            assert self.fetch(url, to).wait() == 0
            print(
                f"         {self.options.large_gb} GB file in {time.monotonic() - begin:.0f} s, the hub's hash included"
            )
            self.goal("bytes of the large file", (to / "large.dat").stat().st_size / size, 1, "x", at_most=False)
        finally:
            hub.terminate()
            shutil.rmtree(to, ignore_errors=True)
            (self.repo / "large.dat").unlink()


def timed(function) -> float:
    begin = time.monotonic()
    function()
    return time.monotonic() - begin


def make_lfs_repository(repo: Path, origin: Path, environment: dict) -> None:
    """A git repository of the model with its shards under git-lfs; objects come from the hub."""
    shutil.copytree(repo, origin)

    def git(*arguments):
        subprocess.run(["git", *arguments], cwd=origin, env=environment, check=True, capture_output=True)

    git("init", "--quiet")
    git(
        "lfs", "install"
    )  # in this repository: it puts hooks where it is run, and its filters in $HOME, the bench's own
    git("lfs", "track", "*.dat", "*.bin")
    git("add", "--all")
    git("-c", "user.name=bench", "-c", "user.email=bench@localhost", "commit", "--quiet", "--message", "model")


if __name__ == "__main__":
    sys.exit(main())
