"""What systemd knows of lingbi's units on this machine, and the commands that change it."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lingbi.errors import ConfigurationError, LingbiError, StopError
from lingbi.launch.systemd.unit import stated_state_dir, stop_bound_s

BOOTED = Path("/run/systemd/system")  # as sd_booted(3) asks
SYSTEM_UNITS = Path("/etc/systemd/system")
ASKED = ("ActiveState", "SubState", "ActiveEnterTimestamp", "NRestarts", "MainPID", "Result", "UnitFileState")
RUNS = ("active", "activating", "deactivating", "reloading")  # also between two attempts of a restart
QUICK_S = 60


@dataclass(frozen=True)
class Installed:
    """A unit file of ours; is_system: whether it is the system's, or the user's own."""

    file: Path
    state_dir: Path
    is_system: bool

    @property
    def name(self) -> str:
        return self.file.name


def user_units() -> Path:
    """Where the unit files of this user are."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd/user"


def folder_of(is_system: bool) -> Path:
    return SYSTEM_UNITS if is_system else user_units()


def installed() -> list[Installed]:
    """All units of ours, of whichever state folder."""
    found = []
    for is_system in (True, False):
        for file in sorted(folder_of(is_system).glob("lingbi*.service")):
            state_dir = stated_state_dir(file.read_text(encoding="utf-8", errors="replace"))
            found += [Installed(file, state_dir, is_system)] if state_dir else []
    return found


def unit_of(state_dir: Path) -> Installed | None:
    """The unit that runs the stack of a state folder."""
    return next((unit for unit in installed() if unit.state_dir == state_dir.resolve()), None)


def check_manager(is_system: bool) -> None:
    """Raise ConfigurationError where no systemd takes a unit."""
    if not BOOTED.is_dir() or not shutil.which("systemctl"):
        raise ConfigurationError(
            "this machine does not run systemd, so no unit can be installed; have its own init start scripts/up --native"
        )
    done = systemctl(is_system, "show-environment")
    if done.returncode:
        raise ConfigurationError(
            f"systemd does not answer this user ({done.stderr.strip()}); log in as the user, not by su, "
            "or install a system unit: sudo scripts/service install"
        )


def systemctl(is_system: bool, *arguments: str, timeout_s: float = QUICK_S) -> subprocess.CompletedProcess[str]:
    scope = [] if is_system else ["--user"]
    return subprocess.run(
        ["systemctl", *scope, "--no-pager", "--no-ask-password", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


def change(unit: Installed, *arguments: str, timeout_s: float = QUICK_S) -> None:
    """A command of systemctl that must succeed. Raises StopError or LingbiError with what it said."""
    done = systemctl(unit.is_system, *arguments, timeout_s=timeout_s)
    if done.returncode:
        kind = StopError if arguments[0] == "stop" else LingbiError
        hint = "; run it with sudo" if unit.is_system and os.geteuid() else ""
        raise kind(f"systemctl {' '.join(arguments)}: {done.stderr.strip() or done.returncode}{hint}")


def facts(unit: Installed) -> dict[str, str]:
    """systemd's properties of a unit; empty where systemd does not answer."""
    if not BOOTED.is_dir() or not shutil.which("systemctl"):
        return {}
    said = systemctl(unit.is_system, "show", unit.name, *(f"--property={name}" for name in ASKED)).stdout
    return dict(line.split("=", 1) for line in said.splitlines() if "=" in line)


def runs(unit: Installed) -> bool:
    """Whether systemd runs the unit, or is about to."""
    return facts(unit).get("ActiveState") in RUNS


def stop(unit: Installed) -> None:
    """Let running answers finish, then end everything: systemctl waits for the unit's own bound. Raises StopError."""
    change(unit, "stop", unit.name, timeout_s=stop_bound_s(unit.file.read_text(encoding="utf-8")) + QUICK_S)
