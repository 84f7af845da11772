"""Adds the clock to what the module of the same name finds wrong: only the controller knows when it asked and was answered."""

import time

from ansible.plugins.action import ActionBase


def off_by(time_s, asked_s, answered_s):
    """Seconds that a host's clock is ahead of the controller's, at least; less than 0: behind. A slow host is not off."""
    return min(time_s - asked_s, 0.0) + max(time_s - answered_s, 0.0)


def clock_faults(skew_s, most_s):
    """The sentence for a clock that is off by more than it may be, in a list; none for one that is not."""
    if abs(skew_s) <= most_s:
        return []
    return [f"the clock is {skew_s:+.0f} s off the controller's; set it, for example with chrony (lingbi_clock_skew_s)"]


class ActionModule(ActionBase):
    """Runs on the controller, in a process that ansible-playbook has forked."""

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        asked_s = time.time()
        seen = self._execute_module(task_vars=task_vars)
        if seen.get("failed") or seen.get("unreachable"):
            return result | seen
        skew_s = off_by(seen["time_s"], asked_s, time.time())
        seen["faults"] += clock_faults(skew_s, int(self._task.args["clock_skew_s"]))
        return result | seen
