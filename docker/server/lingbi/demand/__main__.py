"""python -m lingbi.demand: the arbiter, which supervisor runs where models are loaded on demand."""

import asyncio
import logging
import sys

from lingbi.demand.arbiter import Arbiter, arbiter_socket
from lingbi.demand.decision import Bounds
from lingbi.errors import LingbiError
from lingbi.logs import configure
from lingbi.settings import load_settings

log = logging.getLogger("lingbi.arbiter")


def main() -> int:
    """Run until SIGTERM; exit status 0, or 2 for a bad setting."""
    configure("INFO")
    try:
        settings = load_settings()
    except LingbiError as error:
        log.error("%s", error)
        return error.exit_status
    configure(settings.log_level)
    bounds = Bounds(settings.models_awake, settings.stay_s, settings.idle_timeout)
    asyncio.run(Arbiter(bounds, settings.workers or 1).run(arbiter_socket(settings.state_dir)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
