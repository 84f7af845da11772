"""scripts/service: have systemd run a native installation, so that it is up after a reboot and drains at a shutdown."""

import argparse
import json
import os
import pwd
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from lingbi.client.addresses import record_file
from lingbi.errors import ConfigurationError, LingbiError, StartError
from lingbi.files import write_text
from lingbi.launch import starts
from lingbi.launch.down import clear_gateway
from lingbi.launch.edge import PAGE_TIMEOUT_S, ROOT
from lingbi.launch.supervision import Supervisor, gateway_folders, log_tail, wait_until
from lingbi.launch.systemd import manager
from lingbi.launch.systemd import unit as unit_file
from lingbi.launch.systemd.decision import decide, judge, pinned
from lingbi.launch.systemd.manager import (
    Installed,
    change,
    check_manager,
    facts,
    folder_of,
    installed,
    runs,
    systemctl,
    unit_of,
)
from lingbi.launch.up import add_options, say, settings_of, wait_worker
from lingbi.settings import Settings, load_settings

USER_MANAGER_STOP_S = 120  # of user@.service: what a user's systemd may take at a shutdown before it is killed
SUPERVISORD_TIMEOUT_S = 60
LAST_LINES = 5


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done or running, 1 not running or not stopped, 2 refused before a change, 3 did not come up."""
    options = parse(arguments)
    options.given = (sys.argv[1:] if arguments is None else arguments)[1:]
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except LingbiError as error:
        say(f"error: {error}")
        return error.exit_status
    except KeyboardInterrupt:
        say("interrupted; scripts/service status says what systemd does")
        return 130


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/service", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        return command

    command = add("install", install, "install a unit with the options and settings of scripts/up, and start it")
    add_options(command)
    command.add_argument(
        "--name", default="lingbi", help="the unit's name, for a second installation (default: lingbi)"
    )
    command = add("remove", remove, "let running answers finish, stop, and remove the unit")
    command.add_argument("--if-there", action="store_true", help="succeed where there is no unit")
    add("start", start, "start the installed unit, and wait until it answers")
    add("stop", stop, "let running answers finish, then stop; it starts again at the next boot")
    add("status", status, "what systemd says, since when, the URL, the last lines of the logs")
    return parser.parse_args(arguments)


def install(options: argparse.Namespace) -> int:
    is_system = os.geteuid() == 0
    settings = settings_of(options)
    check_free(options.name, settings, is_system)
    unit = decide(options, settings, is_system)
    found = judge(unit)
    unit = pinned(unit, found)
    file = folder_of(is_system) / unit.file_name
    write_text(file, unit_file.text(unit))
    placed = Installed(file, settings.state_dir, is_system)
    try:
        change(placed, "daemon-reload")
        change(placed, "enable", unit.file_name)
        change(placed, "start", unit.file_name)
        wait(placed, settings, found)
    except LingbiError:
        say(f"{unit.file_name} is removed again")
        take_away(placed)
        raise
    starts.write_start(settings.state_dir, "scripts/service install", options.given)
    print(starts.how_to_call(json.loads(record_file(settings.state_dir).read_text()), options.server_only))
    print(f"systemd runs it as {unit.file_name}; scripts/service status | stop | remove.", flush=True)
    for line in notes(unit):
        print(line)
    return 0


def check_free(name: str, settings: Settings, is_system: bool) -> None:
    """Raise ConfigurationError where a unit cannot be installed; nothing is changed yet."""
    unit_file.check_name(name)
    for what, path in (("the folder of lingbi", ROOT), ("LINGBI_STATE_DIR", settings.state_dir)):
        unit_file.check_path(what, path)
    unit_file.check_path("LINGBI_MODELS_DIR", settings.models_dir)
    unit_file.check_path("the Python of lingbi", Path(sys.executable))
    check_manager(is_system)
    own = unit_of(settings.state_dir)
    if own and (own.name, own.is_system) != (f"{name}.service", is_system):
        raise ConfigurationError(f"lingbi is the service {own.name} here already ({own.file}); scripts/service remove")
    if own and runs(own):
        raise ConfigurationError(f"{own.name} runs; scripts/service stop, then install it again with other settings")
    check_name_is_free(name, settings.state_dir, is_system)
    check_not_up(settings.state_dir)


def check_name_is_free(name: str, state_dir: Path, is_system: bool) -> None:
    """Raise ConfigurationError if a unit of this name is another's, such as that of a second folder of lingbi."""
    file = folder_of(is_system) / f"{name}.service"
    ours = [unit for unit in installed() if unit.file == file]
    if ours and ours[0].state_dir == state_dir:
        return
    known = systemctl(is_system, "show", file.name, "--property=FragmentPath", "--value").stdout.strip()
    if file.exists() or known:
        whose = f"runs {ours[0].state_dir}" if ours else "is not lingbi's"
        raise ConfigurationError(f"{known or file} is there and {whose}; give this one another name: --name lingbi-2")


def check_not_up(state_dir: Path) -> None:
    """Raise ConfigurationError if scripts/up started it: systemd cannot take over what runs."""
    if Supervisor(state_dir).process():
        again = starts.line("scripts/service install", *starts.read_start(state_dir))
        raise ConfigurationError(f"lingbi is up already, without systemd; run: scripts/down && {again}")


def wait(unit: Installed, settings: Settings, found: dict[str, Any]) -> None:
    """Show the phases of loading until all answer. Raises StartError with the end of the log."""
    if not wait_until(lambda: Supervisor(settings.state_dir).states(), SUPERVISORD_TIMEOUT_S):
        raise StartError(f"{unit.name} did not start:\n{journal(unit)}")
    say(f"page    {found['url']} (it shows the progress of loading)")
    for number, (url, model) in enumerate(zip(found["workers"], found["serves"], strict=True)):
        wait_worker(f"worker-{number}", f"{url}/ready", settings, Supervisor(settings.state_dir), model)
    if not wait_until(lambda: is_answered(found["url"]), PAGE_TIMEOUT_S):
        raise StartError(f"the gateway did not answer:\n{log_tail(settings.state_dir, 'gateway')}")


def is_answered(url: str) -> bool:
    try:
        return httpx.get(url, timeout=10, trust_env=False, verify=False).status_code < 500
    except httpx.HTTPError:
        return False


def journal(unit: Installed) -> str:
    """The last lines that systemd keeps of the unit."""
    scope = [] if unit.is_system else ["--user"]
    command = ["journalctl", *scope, "--no-pager", "--quiet", "--lines=15", "--output=cat", f"--unit={unit.name}"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def notes(unit: unit_file.Unit) -> list[str]:
    """What a user's own unit needs besides."""
    if unit.user is not None:
        return []
    name = pwd.getpwuid(os.getuid()).pw_name
    lines = [f"To have it up after a reboot before you log in: sudo loginctl enable-linger {name}"]
    if unit.stop_timeout_s > USER_MANAGER_STOP_S:
        lines.append(
            f"A shutdown ends all of a user's units after {USER_MANAGER_STOP_S} s, sooner than the {unit.stop_timeout_s} s "
            "that running answers may take here; install it as root for these."
        )
    return lines


def the_unit() -> Installed:
    """The unit of this installation. Raises ConfigurationError if there is none."""
    unit = unit_of(load_settings().state_dir)
    if unit is None:
        raise ConfigurationError("lingbi is no service here; scripts/service install makes it one")
    return unit


def remove(options: argparse.Namespace) -> int:
    if options.if_there and unit_of(load_settings().state_dir) is None:
        return 0
    unit = the_unit()
    take_away(unit)
    clear_gateway(gateway_folders(unit.state_dir)[1])
    print(f"{unit.name} is stopped and removed; weights, keys and logs stay.")
    return 0


def take_away(unit: Installed) -> None:
    """Stop a unit within its bound, and remove its file."""
    change(unit, "disable", unit.name)
    manager.stop(unit)
    unit.file.unlink(missing_ok=True)
    change(unit, "daemon-reload")
    systemctl(unit.is_system, "reset-failed", unit.name)  # fails where nothing had failed


def start(options: argparse.Namespace) -> int:
    unit = the_unit()
    check_manager(unit.is_system)
    if not runs(unit):
        check_not_up(unit.state_dir)
    change(unit, "start", unit.name)
    print(f"{unit.name} is started; scripts/service status says how far it is.")
    return 0


def stop(options: argparse.Namespace) -> int:
    unit = the_unit()
    manager.stop(unit)
    print(f"{unit.name} is stopped; it starts again at the next boot.")
    return 0


def status(options: argparse.Namespace) -> int:
    unit = the_unit()
    found = facts(unit)
    record = record_file(unit.state_dir)
    report = json.loads(record.read_text()) if record.exists() else {}
    for line in lines_of_status(unit, found, report):
        print(line)
    print(log_tail(unit.state_dir, "worker-0", LAST_LINES))
    return 0 if found.get("ActiveState") == "active" else 1


def lines_of_status(unit: Installed, found: dict[str, str], report: dict[str, Any]) -> list[str]:
    """What scripts/service status says, without the log."""
    state, since = found.get("ActiveState", "unknown"), found.get("ActiveEnterTimestamp")
    is_up = state == "active"
    whole = f"{state} ({found.get('SubState', 'systemd does not answer')})"
    lines = [f"unit     {unit.name}, {found.get('UnitFileState') or 'not enabled'}, in {unit.file}"]
    lines.append(f"state    {whole}" + (f" since {since}" if is_up and since else ""))
    if found.get("NRestarts", "0") != "0":
        lines.append(f"restarts {found['NRestarts']}, the last end: {found.get('Result')}")
    lines += [f"URL      {report['url']}", f"API key  in {report['api_key_file']}"] if is_up and report else []
    return [*lines, f"logs     {unit.state_dir}/logs; journalctl{'' if unit.is_system else ' --user'} -u {unit.name}"]


if __name__ == "__main__":
    sys.exit(main())
