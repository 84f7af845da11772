"""supervisord as process 1 of a container: ends when no worker can be kept up, so that the engine sees it."""

import contextlib
import sys

from supervisor import events
from supervisor.medusa.asyncore_25 import ExitNow
from supervisor.options import ServerOptions
from supervisor.states import ProcessStates, SupervisorStates
from supervisor.supervisord import Supervisor

from lingbi.errors import StartError


class Keeper(Supervisor):
    """supervisord that gives up, with status 3, when every worker has failed for good."""

    exit_status = 0

    def runforever(self):
        events.subscribe(events.ProcessStateFatalEvent, self._on_fatal)
        super().runforever()

    def _on_fatal(self, event) -> None:
        processes = [process for group in self.process_groups.values() for process in group.processes.values()]
        if all(process.get_state() == ProcessStates.FATAL for process in processes):
            self.options.logger.critical("no worker can be kept up; their last lines say why")
            self.exit_status = StartError.exit_status
            self.options.mood = SupervisorStates.SHUTDOWN  # as on SIGTERM


def main(arguments: list) -> int:
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
