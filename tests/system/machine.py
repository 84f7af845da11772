"""A machine with systemd that can be rebooted: its own processes, folders and users, with this machine's programs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil

from lingbi.launch.supervision import wait_until
from tests import debian
from tests.conftest import ROOT

BOOT = ROOT / "tests/system/boot_systemd.sh"
CGROUP = "lingbi-tests-systemd"
PROGRAMS = ("systemd-analyze", "dbus-daemon")


def have_systemd() -> None:
    """Install Debian's systemd where it is missing; nothing of it runs on this machine."""
    debian.ensure("systemd", "dbus", has=lambda: all(map(shutil.which, PROGRAMS)))


class Machine:
    """It is off until boot(); ends with off()."""

    def __init__(self, folder: Path):
        self.kept, self.mounts = folder / "kept", folder / "mounts"
        for each in (self.kept / "units", self.kept / "state", self.mounts):
            each.mkdir(parents=True)
        (self.kept / "state").chmod(0o755)
        self.process: subprocess.Popen | None = None

    @property
    def state_dir(self) -> Path:
        return self.kept / "state"

    def boot(self) -> None:
        cgroup = self._cgroup()
        cgroup.mkdir(exist_ok=True)
        enter = f'echo $$ >"{cgroup}/cgroup.procs" && exec unshare --mount --pid --cgroup --ipc --uts --fork --kill-child "$@"'
        command = ["bash", "-c", enter, "boot", BOOT, self.mounts, self.kept]
        self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL)
        assert wait_until(lambda: self.systemctl("is-system-running").stdout.strip() in ("running", "degraded"), 60)

    def reboot(self, timeout_s: float) -> None:
        """Shut down as a machine does, and boot again."""
        self.shut_down(timeout_s)
        self.boot()

    def shut_down(self, timeout_s: float) -> None:
        self.systemctl("reboot")
        self.process.wait(timeout_s)

    def off(self) -> None:
        if self.process and self.process.poll() is None:
            for child in psutil.Process(self.process.pid).children():
                child.kill()  # process 1 of the namespace: the kernel ends all others
            self.process.wait(30)

    def systemctl(self, *arguments) -> subprocess.CompletedProcess:
        return self.run("systemctl", "--no-pager", *arguments)

    def run(self, *command, user: str = "root", **environment) -> subprocess.CompletedProcess:
        """A command on the machine, with a bare environment."""
        children = psutil.Process(self.process.pid).children()
        if not children:
            return subprocess.CompletedProcess(command, 1, "", "it is off")
        home = "/root" if user == "root" else f"/home/{user}"
        values = {"PATH": f"{ROOT}/.lingbi/tools/nginx/usr/sbin:{os.environ['PATH']}", "HOME": home, **environment}
        enter = ["nsenter", "--target", str(children[0].pid), "--all", "--root", "--wd", "runuser", "-u", user, "--"]
        bare = ["env", "-i", *(f"{name}={value}" for name, value in values.items())]
        return subprocess.run([*enter, *bare, *map(str, command)], capture_output=True, text=True, timeout=300)

    def service(self, *arguments, user: str = "root", **environment) -> subprocess.CompletedProcess:
        """scripts/service, on the tests' Python."""
        return self.run(sys.executable, "-m", "lingbi.launch.service", *arguments, user=user, **environment)

    def _cgroup(self) -> Path:
        lines = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
        return Path(next(line[1] for line in lines if line[2] == "cgroup2")) / CGROUP
