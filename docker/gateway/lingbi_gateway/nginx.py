"""The nginx executable: its version, the test of a configuration, and the machine it runs on."""

import functools
import grp
import os
import pwd
import re
import resource
import subprocess
from pathlib import Path

from lingbi_gateway.configuration import Machine
from lingbi_gateway.servers import Server, parse
from lingbi_gateway.settings import ConfigurationError, GatewayError, Settings

LOG_OPTION_SINCE = (1, 19, 5)
UNPRIVILEGED = "nobody"


def machine(settings: Settings) -> Machine:
    """This machine as this nginx sees it."""
    user = None
    if os.geteuid() == 0:
        entry = pwd.getpwnam(UNPRIVILEGED)
        user = entry.pw_name, grp.getgrgid(entry.pw_gid).gr_name
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_files = hard if hard != resource.RLIM_INFINITY else 1 << 20
    return Machine(user, open_files, version(settings.nginx), listed_servers(settings.servers_folder))


def listed_servers(folder: Path) -> tuple[Server, ...]:
    """The servers that the folder's files list, drained ones among them."""
    return parse("\n".join(lists(folder).values()))


def lists(folder: Path) -> dict[str, str]:
    """{file's name: its text} of the lists of servers in a folder."""
    return {file.name: file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.conf"))}


@functools.cache  # a reload asks several times, and a rollout waits for the reload
def version(program: str) -> tuple[int, ...]:
    """nginx's version as numbers. Raises ConfigurationError if nginx is not installed."""
    try:
        said = subprocess.run([program, "-v"], capture_output=True, text=True).stderr
    except OSError as error:
        raise ConfigurationError(
            f"LINGBI_GATEWAY_NGINX={program!r}: {error.strerror}; install nginx (Debian, Ubuntu: apt-get install nginx)"
        ) from None
    found = re.search(r"nginx/(\d+)\.(\d+)\.(\d+)", said)
    if not found:
        raise ConfigurationError(f"LINGBI_GATEWAY_NGINX={program!r} is no nginx: it said {said.strip()[:100]!r}")
    return tuple(map(int, found.groups()))


def command(settings: Settings, *options: str) -> list[str]:
    """The command line of nginx with the rendered configuration."""
    log = ["-e", "stderr"] if version(settings.nginx) >= LOG_OPTION_SINCE else []
    return [settings.nginx, "-p", str(settings.dir), "-c", str(settings.dir / "nginx.conf"), *log, *options]


def check(settings: Settings) -> None:
    """`nginx -t`. Raises ConfigurationError with what nginx said."""
    done = subprocess.run(command(settings, "-t", "-q"), capture_output=True, text=True)
    if done.returncode:
        raise ConfigurationError(f"nginx refuses the configuration in {settings.dir}: {reason(done.stderr)}")


def reason(said: str) -> str:
    """Why nginx refuses a configuration, without its last line, which only says that it does."""
    return "\n".join(line for line in said.strip().splitlines() if not line.endswith(" test failed"))[-800:]


def reload(settings: Settings) -> None:
    """Have the running nginx apply the configuration that is there now. Raises GatewayError."""
    check(settings)
    done = subprocess.run(command(settings, "-s", "reload"), capture_output=True, text=True)
    if done.returncode:
        raise GatewayError(f"nginx did not take the configuration: {done.stderr.strip()[-300:]}")


def check_reachable(folder: Path) -> None:
    """Check that nginx's unprivileged processes can enter the folder. Raises ConfigurationError."""
    closed = [part for part in (folder, *folder.parents) if not part.stat().st_mode & 0o001]
    if closed:
        raise ConfigurationError(
            f"LINGBI_GATEWAY_DIR={str(folder)!r}: {closed[0]} is closed to the user {UNPRIVILEGED}, "
            "whom nginx's processes run as; choose another folder"
        )
