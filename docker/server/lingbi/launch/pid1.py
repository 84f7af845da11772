"""supervisord as process 1 of a container: tries a failed worker again, and ends when none can be kept up."""

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

PAUSE_S = 300  # a card that fell off, or memory that somebody else took, needs longer than supervisord's few trials


class Keeper(Supervisor):  # type: ignore[misc]  # supervisor has no types
    """supervisord that starts a worker that it gave up again after a pause, and gives up itself, with status 3,
    when every worker has failed."""

    exit_status = 0
    pause_s = PAUSE_S

    def __init__(self, options: ServerOptions):
        super().__init__(options)
        self.given_up: dict[str, float] = {}  # {worker: when}
        self.trials: dict[str, int] = {}  # {worker: how often it was tried again}

    def runforever(self) -> None:
        events.subscribe(events.ProcessStateFatalEvent, lambda event: self.give_up(event.process))
        events.subscribe(events.Tick5Event, lambda event: self.try_again(time.monotonic()))
        super().runforever()

    def _processes(self) -> list[Any]:
        return [process for group in self.process_groups.values() for process in group.processes.values()]

    def give_up(self, process: Any) -> None:
        """Note that supervisord gave a worker up, and end when it was the last."""
        if all(each.get_state() == ProcessStates.FATAL for each in self._processes()):
            self.options.logger.critical("no worker can be kept up; their last lines say why")
            self.exit_status = StartError.exit_status
            self.options.mood = SupervisorStates.SHUTDOWN  # as on SIGTERM
            return
        name = process.config.name
        self.given_up[name] = time.monotonic()
        self.options.logger.error(
            f"{name} cannot be kept up; the others go on, and it is tried again in {self.pause_s} s"
        )

    def try_again(self, now: float) -> None:
        """Start those that were given up long enough ago, and count it."""
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
    with contextlib.suppress(ExitNow):  # its loop's way to end
        keeper.main()
    return keeper.exit_status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
