"""The README's first command on bare systems, by hand: `python -m tests.mirrors.bare_roots [SCENARIO…]`, as root, on Debian.

Each system is a root with python3, git and ca-certificates alone (mmdebstrap), in which an ordinary user runs a fresh clone of
what is committed. It has lingbi's settings for mirrors and nothing else of this machine: an index and CPython's builds at
127.0.0.1, which pass on what PyPI has and have this machine's CPython, and the certificates of this network. Prints what each
scenario ended with; exit status 1 where one ended otherwise than it should. A first run moves 3 GB and takes some minutes.
"""

import argparse
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import ROOT
from tests.containers.bases import home_of
from tests.containers.images import AUTHORITIES
from tests.mirrors import builds
from tests.mirrors.stand_ins import mirror, pass_debian_on, pass_pypi_on

USER = 1000
HOME, CLONE, CA = "/home/lab", "/home/lab/lingbi", "/etc/lab-ca.pem"
PACKAGES = "python3,git,ca-certificates"
DEMO = "scripts/up --native --model demo --engine cpu && scripts/smoke && scripts/down"
UP = "scripts/up"
INSIDE = """\
mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && cp /etc/resolv.conf "$0/etc/" && "$@"
"""


@dataclass(frozen=True)
class Scenario:
    """suite: Debian's, or ubuntu (bookworm with CPython 3.10 alone). hidden: programs that are taken away.
    more: packages that the one command brings. said: what the end of the output must contain; status: how it ends."""

    suite: str
    said: str
    status: int = 2
    more: str = ""
    hidden: tuple = ()
    command: str = DEMO
    environment: dict = field(default_factory=dict)
    is_read_only: bool = False
    has_network: bool = True


VENV = "sudo apt-get update && sudo apt-get install python3-venv"
SCENARIOS = {
    "debian12": Scenario("bookworm", VENV),
    "debian13": Scenario("trixie", VENV),
    "ubuntu-like": Scenario("ubuntu", VENV),
    "debian12-up": Scenario("bookworm", VENV, command=UP),
    "debian12-no-python": Scenario("bookworm", "sudo apt-get install python3 python3-venv", hidden=("python3*",)),
    "debian12-read-only": Scenario("bookworm", f"cp -r {CLONE} ~/my-lingbi", is_read_only=True),
    "debian12-no-network": Scenario("bookworm", "LINGBI_INDEX_URL=", more="python3-venv", has_network=False),
    "debian12-no-mirror-of-python": Scenario(
        "bookworm",
        "LINGBI_PYTHON_MIRROR=",
        more="python3-venv",
        environment={"LINGBI_PYTHON_MIRROR": "http://127.0.0.1:1"},
    ),
    "debian12-venv": Scenario("bookworm", "lingbi is down.", 0, "python3-venv"),
    "debian13-venv": Scenario("trixie", "lingbi is down.", 0, "python3-venv"),
    "ubuntu-like-venv": Scenario("ubuntu", "lingbi is down.", 0, "python3-venv"),
    "debian12-no-git-no-curl": Scenario(
        "bookworm", "lingbi is down.", 0, "python3-venv", hidden=("git", "curl", "wget")
    ),
    "debian12-no-home": Scenario("bookworm", "lingbi is down.", 0, "python3-venv", environment={"HOME": ""}),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("scenarios", nargs="*", choices=[[], *SCENARIOS], default=[])
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/lingbi-roots"), help="where roots and caches stay")
    options = parser.parse_args()
    options.work.mkdir(exist_ok=True)
    with mirror() as server:
        given = {"LINGBI_INDEX_URL": pass_pypi_on(server), "LINGBI_PYTHON_MIRROR": f"{server.url}/builds"}
        given |= {
            "LINGBI_APT_MIRROR": pass_debian_on(server),
            "LINGBI_CA_FILE": CA,
            "UV_PYTHON_DOWNLOADS_JSON_URL": "/etc/builds.json",
        }
        for minor in ("3.10", "3.13"):
            builds.offer(server, minor, options.work / "builds.json")
        results = [run(name, options.work, given, server) for name in options.scenarios or SCENARIOS]
    return 0 if all(results) else 1


def run(name: str, work: Path, given: dict, server) -> bool:
    """Run a scenario; prints its end, and returns whether it ended as it should."""
    scenario = SCENARIOS[name]
    server.asked.clear()
    with tempfile.TemporaryDirectory(dir=work) as folder:
        os.chmod(folder, 0o755)
        prepare(Path(folder), scenario, work)
        log = work / f"{name}.log"
        with log.open("w") as stream:
            done = subprocess.run(command(Path(folder), scenario, given), stdout=stream, stderr=subprocess.STDOUT)
    text = log.read_text()
    is_right = done.returncode == scenario.status and scenario.said in text[-2000:]
    print(
        f"{'ok  ' if is_right else 'FAIL'} {name}: status {done.returncode}, {len(server.asked)} requests of mirrors; {log}"
    )
    print("".join(f"     {line}\n" for line in text.strip().splitlines()[-4:]), flush=True)
    return is_right


def prepare(root: Path, scenario: Scenario, work: Path) -> None:
    with tarfile.open(base(scenario, work)) as archive:
        archive.extractall(root, filter="fully_trusted")
    if scenario.suite == "ubuntu":
        replace_python(root, scenario)
    for pattern in scenario.hidden:
        for folder in ("usr/bin", "usr/local/bin"):
            for program in (root / folder).glob(pattern):
                program.unlink()
    shutil.copy(AUTHORITIES, root / CA[1:])
    shutil.copy(work / "builds.json", root / "etc")
    home = root / HOME[1:]
    home.mkdir(parents=True)
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", ROOT, root / CLONE[1:]], check=True)
    subprocess.run(["chown", *([] if scenario.is_read_only else ["-R"]), f"{USER}:{USER}", home], check=True)
    with (root / "etc/passwd").open("a") as stream:
        stream.write(f"lab:x:{USER}:{USER}::{HOME}:/bin/bash\n")


def replace_python(root: Path, scenario: Scenario) -> None:
    """Have CPython 3.10 as the only one, as Ubuntu 22.04 does; without its packages for venv where they are not asked for."""
    packed = builds.pack(home_of("python3.10"), "3.10")
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        for entry in archive:
            archive.extract(entry.replace(name=entry.name.replace("python/", "usr/local/", 1)), root, filter="tar")
    for program in (root / "usr/bin").glob("python3*"):
        program.unlink()
    (root / "usr/bin/python3").symlink_to("/usr/local/bin/python3.10")
    if not scenario.more:
        shutil.rmtree(root / "usr/local/lib/python3.10/ensurepip")


def base(scenario: Scenario, work: Path) -> Path:
    """The archive of a system, made where it is missing."""
    suite = "bookworm" if scenario.suite == "ubuntu" else scenario.suite
    archive = work / f"{'-'.join(filter(None, (suite, scenario.more)))}.tar"
    if not archive.exists():
        packages = ",".join(filter(None, (PACKAGES, scenario.more)))
        made = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={packages}", suite, archive]
        subprocess.run(made, check=True, env=os.environ | {"TMPDIR": "/dev/shm"})
    return archive


def command(root: Path, scenario: Scenario, given: dict) -> list:
    """What runs the scenario's command as the user, with nothing of this machine but the mirrors."""
    values = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": HOME, "LANG": "C.UTF-8"} | given | scenario.environment
    isolated = ["unshare", "--mount", "--pid", "--fork", "--kill-child", *([] if scenario.has_network else ["--net"])]
    inner = [
        "chroot",
        f"--userspec={USER}:{USER}",
        str(root),
        "env",
        "-i",
        *(f"{k}={v}" for k, v in values.items() if v),
    ]
    return [*isolated, "sh", "-c", INSIDE, str(root), *inner, "bash", "-c", f"cd {CLONE} && {scenario.command}"]


if __name__ == "__main__":
    sys.exit(main())
