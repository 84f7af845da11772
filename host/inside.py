"""Whether lingbi is set up in containers on this machine: exit status 0 or 1. They need not be running."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from host import stack
from host.env_file import ROOT
from host.machine import look

SUPERVISORS = {b"supervisor.supervisord", b"lingbi.launch.pid1"}  # by scripts/up, and under systemd


def is_in_containers() -> bool:
    """Whether containers have been set up here, their engine answers, and nothing runs natively."""
    return not is_native_running() and bool(look().engine) and ((ROOT / ".env").exists() or stack.is_set_up())


def is_native_running() -> bool:
    """Whether the supervisord of a native start is running; its PID file remains after a crash of the machine."""
    state_dir = Path(os.environ.get("LINGBI_STATE_DIR") or ROOT / ".lingbi")
    try:
        pid = int((state_dir / "run/supervisord.pid").read_text())
        return bool(SUPERVISORS & set(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")))
    except (OSError, ValueError):
        return False


if __name__ == "__main__":
    sys.exit(0 if is_in_containers() else 1)
