"""Tells the module of the same name which process rolls out, and whether the lock's holder is gone."""

import getpass
import os
import socket
from pathlib import Path

from ansible.plugins.action import ActionBase

BOOT = Path("/proc/sys/kernel/random/boot_id")


def started(process):
    """When a process started, in the kernel's ticks; None if there is no such process."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return None


def is_gone(holder):
    """Whether a holder was a process of this controller that has ended."""
    if not holder or holder["controller"] != socket.gethostname() or holder["boot"] != BOOT.read_text().strip():
        return False
    return started(holder["process"]) != holder["started"]


class ActionModule(ActionBase):
    """Runs on the controller, in a process that ansible-playbook has forked."""

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        process = os.getppid()
        owner = {
            "who": os.environ.get("SUDO_USER") or getpass.getuser(),
            "controller": socket.gethostname(),
            "boot": BOOT.read_text().strip(),
            "process": process,
            "started": started(process),
        }
        arguments = dict(self._task.args)
        seen = self._execute_module(module_args=arguments | {"state": "seen"}, task_vars=task_vars)
        if seen.get("failed") or seen.get("unreachable"):
            return result | seen
        gone = seen["holder"] if is_gone(seen["holder"]) else None
        arguments |= {"owner": owner, "gone": gone}
        return result | self._execute_module(module_args=arguments, task_vars=task_vars)
