"""python -m lingbi.worker: what supervisor runs, once a GPU or, where models are loaded on demand, once a model."""

from lingbi.settings import Settings
from lingbi.worker.main import run_and_exit, serve


def live(settings: Settings) -> int:
    """Be a worker, or the first process of a worker on demand; returns the exit status."""
    if not settings.on_demand:
        return serve(settings)
    from lingbi.worker.succession import Life, Succession

    def stand_by(life: Life) -> int:
        from lingbi.worker.on_demand import OnDemandWorker

        return OnDemandWorker(settings, life).run()

    return Succession(settings, stand_by).run()


if __name__ == "__main__":
    run_and_exit(live)
