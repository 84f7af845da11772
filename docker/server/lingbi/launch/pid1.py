"""supervisord in front, as process 1 of a container or under systemd: it retries a failed worker and exits when no worker can be kept up."""

import contextlib
import sys
import time
from typing import Any

from supervisor import events
from supervisor.medusa.asyncore_25 import ExitNow
from supervisor.options import ServerOptions
from supervisor.states import ProcessStates, SupervisorStates
from supervisor.supervisord import Supervisor

from lingbi.errors import StartError

ARBITER = "arbiter"  # which without workers has nothing to do
PAUSE_S = 300  # a lost card, or memory taken by another process, needs more time than supervisord's few retries


class Keeper(Supervisor):  # type: ignore[misc]  # supervisor has no types
    """supervisord that restarts a worker some time after it gave up on it, and exits with status 3 when every worker
    has failed."""

    exit_status = 0
    pause_s = PAUSE_S

    def __init__(self, options: ServerOptions):
        super().__init__(options)
        self.given_up: dict[str, float] = {}  # {worker: when}
        self.trials: dict[str, int] = {}  # {worker: number of retries}

    def runforever(self) -> None:
        events.subscribe(events.ProcessStateFatalEvent, lambda event: self.give_up(event.process))
        events.subscribe(events.Tick5Event, lambda event: self.try_again(time.monotonic()))
        super().runforever()

    def _processes(self) -> list[Any]:
        return [process for group in self.process_groups.values() for process in group.processes.values()]

    def give_up(self, process: Any) -> None:
        """Note that supervisord gave up on a worker, and shut down if it was the last one."""
        if all(each.get_state() == ProcessStates.FATAL for each in self._processes() if each.config.name != ARBITER):
            self.options.logger.critical("no worker can be kept up; their last lines say why")
            self.exit_status = StartError.exit_status
            self.options.mood = SupervisorStates.SHUTDOWN  # as on SIGTERM
            return
        name = process.config.name
        self.given_up[name] = time.monotonic()
        self.options.logger.error(
            f"{name} keeps failing; the other workers go on, and it is tried again in {self.pause_s} s"
        )

    def try_again(self, now: float) -> None:
        """Start the workers that were given up at least pause_s ago, and count the attempt."""
        for process in self._processes():
            name = process.config.name
            is_due = now - self.given_up.get(name, now) >= self.pause_s
            if (
                process.get_state() == ProcessStates.FATAL
                and is_due
                and self.options.mood > SupervisorStates.RESTARTING
            ):
                self.trials[name] = self.trials.get(name, 0) + 1
                self.options.logger.warn(f"{name} is tried again (attempt {self.trials[name]})")
                del self.given_up[name]
                process.spawn()


def main(arguments: list[str]) -> int:
    """Run until SIGTERM (0), or until no worker is left (3)."""
    options = ServerOptions()
    options.realize(arguments, doc=__doc__)
    options.first, options.test = True, False
    keeper = Keeper(options)
    with contextlib.suppress(ExitNow):  # how its loop ends
        keeper.main()
    return keeper.exit_status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
