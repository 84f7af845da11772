"""What the systemd unit runs: starts what scripts/up starts, and becomes the supervisord that systemd watches.

Settings come from the unit's environment alone. `--check` decides everything, as the unit would, and starts nothing.
"""

import argparse
import json
import os
import sys
from typing import NoReturn

from lingbi.client.addresses import record_file
from lingbi.errors import LingbiError
from lingbi.launch.plan import Plan, asked_models, write_placement
from lingbi.launch.supervision import KEEPER, command_of, only_one
from lingbi.launch.up import make_keys, prepare, record_of, say, settings_of, values_of
from lingbi.settings import Settings


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 2 configuration, already up; 3 what is needed is not there. Otherwise supervisord's."""
    options = parse(arguments)
    try:
        settings = settings_of(options)
        with only_one(settings.state_dir):
            plan = prepare(settings, options)
            if options.check:
                print(json.dumps(decided(plan)))
                return 0
            make_keys(plan)
            become_supervisord(plan, settings)
    except LingbiError as error:
        say(f"error: {error}")
        return error.exit_status


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="lingbi.launch.foreground", description=__doc__)
    parser.add_argument("--server-only", action="store_true")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    return argparse.Namespace(**vars(options), model=None, engine=None, host=None, port=None)


def decided(plan: Plan) -> dict[str, object]:
    """What scripts/service must know: the decisions, pinned in the unit, and where to wait for an answer."""
    workers = [plan.worker_url(worker) for worker in range(plan.placement.workers)]
    engine = plan.placement.choice.engine
    told: dict[str, object] = {
        "model": asked_models(plan.placement),
        "engine": engine,
        "workers": workers,
        "url": plan.url,
    }
    return told | {"serves": plan.placement.labels()}


def become_supervisord(plan: Plan, settings: Settings) -> NoReturn:
    """Write the record for scripts/smoke and scripts/service, then exec supervisord in the foreground."""
    for folder in ("logs", "run"):
        (settings.state_dir / folder).mkdir(parents=True, exist_ok=True)
    write_placement(plan)
    record_file(settings.state_dir).write_text(json.dumps(record_of(plan, None)))
    command = command_of(KEEPER, "--nodaemon")
    os.execve(command[0], command, os.environ | values_of(plan))


if __name__ == "__main__":
    sys.exit(main())
