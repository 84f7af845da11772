"""scripts/down: let running answers finish, then stop what scripts/up started."""

import argparse
import os
import shutil
import sys
from pathlib import Path

from lingbi.client.addresses import record_file
from lingbi.errors import LingbiError, StopError
from lingbi.launch.supervision import STOP_MARGIN_S, Supervisor, gateway_folders, only_one
from lingbi.launch.systemd.manager import Installed, runs, stop, unit_of
from lingbi.settings import load_settings


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 whether or not anything was running, 2 for a bad configuration."""
    argparse.ArgumentParser(prog="scripts/down", description=__doc__).parse_args(arguments)
    try:
        settings = load_settings()
        state_dir = settings.state_dir.resolve()
        unit = stop_unit(state_dir)
        with only_one(state_dir):
            supervisor = Supervisor(state_dir)
            stopped = supervisor.stop(settings.drain_timeout_s + STOP_MARGIN_S)
            if running := supervisor.process():
                raise StopError(
                    f"supervisord (process {running.pid}) of {state_dir} still runs, and belongs to {running.username()}; "
                    "run scripts/down as that user"
                )
            record_file(state_dir).unlink(missing_ok=True)
            clear_gateway(gateway_folders(state_dir)[1])
    except LingbiError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    print("lingbi is down." if stopped or unit else "lingbi was not up.")
    if unit:
        print(f"{unit.name} starts it again at the next boot; scripts/service remove ends that.")
    return 0


def stop_unit(state_dir: Path) -> Installed | None:
    """Have systemd stop the unit that runs this stack, as it would start it again otherwise; None if there is none.

    systemd ends it within the unit's own bound, and this waits for that. Raises StopError.
    """
    unit = unit_of(state_dir)
    if unit is None or not runs(unit):
        return None
    stop(unit)
    return unit


def clear_gateway(folder: Path) -> None:
    """Remove the gateway's folder outside the state folder; one with a generated certificate stays, as clients trust it."""
    if folder.is_dir() and folder.stat().st_uid == os.geteuid() and not (folder / "tls").exists():
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
