"""Adds the clock to the faults that the module of the same name finds: only the controller knows when it asked."""

import time

from ansible.plugins.action import ActionBase


def off_by(time_s, asked_s, answered_s):
    """Seconds that a host's clock is ahead of the controller's at least, or behind if negative. A slow answer is not off."""
    return min(time_s - asked_s, 0.0) + max(time_s - answered_s, 0.0)


def clock_faults(skew_s, most_s):
    """A list with the sentence for a clock that is off by more than most_s; empty if it is not."""
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
