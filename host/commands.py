"""scripts/down, smoke, key, usage and login if lingbi runs in containers: same command lines, nothing is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from host import env_file, stack
from host.env_file import ROOT
from host.errors import Refusal, StartFailed
from host.machine import look
from host.smoke import smoke_over_tls
from host.start import decide

ENV, LOGINS = ROOT / ".env", ROOT / "secrets/logins"
OVERRIDE = "compose.logins.yaml"


def main(arguments: list[str] | None = None) -> int:
    """Exit status of the command; 2 refused, 3 if it needs running containers and there are none."""
    name, *rest = sys.argv[1:] if arguments is None else arguments
    try:
        return COMMANDS[name](rest, values())
    except (Refusal, StartFailed) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status


def values() -> dict[str, str]:
    """The settings of the stack: what .env says, and Compose's defaults; only without .env does the machine decide."""
    if not ENV.exists():
        return decide.first_values(look())
    given = env_file.parse(ENV.read_text(encoding="utf-8"))
    return {**decide.missing_from(given), **given}


def down(arguments: list[str], values: dict[str, str]) -> int:
    return stack.compose("--profile", "*", "down", *arguments).returncode


def smoke(arguments: list[str], values: dict[str, str]) -> int:
    if stopped := [name for name in ("server", "gateway") if not stack.is_running(name)]:
        which = (
            f"these containers do not run: {', '.join(stopped)}" if stack.is_running() else "the containers do not run"
        )
        raise StartFailed(f"{which}; scripts/up starts them")
    if decide.is_tls(values):
        return smoke_over_tls(arguments, values)
    url = f"http://gateway:{values['LINGBI_GATEWAY_PORT']}"
    return stack.compose("exec", "--no-TTY", "server", "lingbi", "smoke", url, *arguments).returncode


def key(arguments: list[str], values: dict[str, str]) -> int:
    return in_server("key", arguments)


def usage(arguments: list[str], values: dict[str, str]) -> int:
    return in_server("usage", arguments)


def in_server(command: str, arguments: list[str]) -> int:
    """Run a command in the server's container, or, if that does not run, in a new one with the same volume."""
    if stack.is_running("server"):
        return stack.compose("exec", "--no-TTY", "server", "lingbi", command, *arguments).returncode
    return stack.compose("run", "--rm", "--no-deps", "--no-TTY", "weights", command, *arguments).returncode


def login(arguments: list[str], values: dict[str, str]) -> int:
    """Edit the logins; they are in a separate folder so that the page sees a replaced file."""
    make_folder()
    file = LOGINS / "logins"
    user = f"--user={os.getuid()}:{os.getgid()}"
    mounts = [f"--volume={LOGINS}:/logins", "--env=LINGBI_UI_LOGIN_FILE=/logins/logins"]
    shut = ["--network=none", "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--entrypoint=/opt/venv/bin/python"]
    command = ["docker", "run", "--rm", *shut, user, *mounts, stack.image(values, "ui"), "-m", "lingbi_ui.logins"]
    done = subprocess.run([*command, *arguments])
    if file.exists():
        file.chmod(0o644)  # the page's user must read it; its parent folder is private
    if not done.returncode and "add" in arguments and OVERRIDE not in values.get("COMPOSE_FILE", "").split(":"):
        files = f"{values.get('COMPOSE_FILE') or 'compose.yaml'}:{OVERRIDE}"
        before = ENV.read_text(encoding="utf-8") if ENV.exists() else ""
        env_file.write(ENV, env_file.changed(before, {"COMPOSE_FILE": files}))
        print(f"{OVERRIDE} is in COMPOSE_FILE now; scripts/up has the page ask for logins", file=sys.stderr)
    return done.returncode


def service(arguments: list[str], values: dict[str, str]) -> int:
    """There is nothing to install: each container has `restart: unless-stopped`."""
    raise Refusal("lingbi is in containers here, which Docker starts again after a reboot; no unit is needed")


def make_folder() -> None:
    """Create the folder secrets/logins; a file of that name from an earlier version is moved into it."""
    env_file.private_folder(LOGINS.parent)
    former = Path(f"{LOGINS}.former")
    if LOGINS.is_file():
        LOGINS.replace(former)
    LOGINS.mkdir(mode=0o755, exist_ok=True)
    if former.exists():
        former.replace(LOGINS / "logins")


COMMANDS = {"down": down, "smoke": smoke, "key": key, "usage": usage, "login": login, "service": service}

if __name__ == "__main__":
    sys.exit(main())
