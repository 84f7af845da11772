"""python -m lingbi.worker: what supervisor runs, once a GPU or, where models are loaded on demand, once a model."""

import sys
from functools import partial

from lingbi.settings import Settings
from lingbi.worker.main import run_and_exit, serve


def live(settings: Settings) -> int:
    """Be a worker, or a process of a worker on demand; returns the exit status."""
    if not settings.on_demand:
        return serve(settings)
    from lingbi.worker.succession import IMPORTED, Succession, import_all
    from lingbi.worker.takeover import TAKE_OVER, Life, take_over

    def stand_by(life: Life) -> int:
        from lingbi.worker.on_demand import OnDemandWorker

        return OnDemandWorker(settings, life).run()

    if sys.argv[1:2] == [TAKE_OVER]:
        return take_over(stand_by, settings, partial(import_all, IMPORTED), sys.argv[2:])
    return Succession(settings, stand_by).run()


if __name__ == "__main__":
    run_and_exit(live)
