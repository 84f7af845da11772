"""`python -m lingbi_gateway`: render nginx's configuration, have nginx test it, and exec nginx.

`test` tests the configuration that is there now, and `reload` has the running nginx apply it; both are for
whoever changes the servers' file. `render` stops after the test.
"""

import argparse
import os
import sys

from lingbi_gateway import nginx
from lingbi_gateway.certificate import generate
from lingbi_gateway.configuration import make_folder, render, servers_file, write
from lingbi_gateway.settings import GatewayError, Settings, load_settings


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 2 for a bad configuration, 3 if nginx cannot start, otherwise nginx's own."""
    parser = argparse.ArgumentParser(prog="lingbi_gateway", description=__doc__)
    parser.add_argument("action", nargs="?", choices=("run", "render", "test", "reload"), default="run")
    action = parser.parse_args(arguments).action
    try:
        settings = load_settings()
        if action in ("run", "render"):
            prepare(settings)
        if action == "reload":
            nginx.reload(settings)
        else:
            nginx.check(settings)
    except GatewayError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    if action == "run":
        command = nginx.command(settings)
        os.execvp(command[0], command)
    return 0


def prepare(settings: Settings) -> None:
    """Write every file that nginx reads."""
    machine = nginx.machine(settings)
    make_folder(settings.dir)
    if machine.user:
        nginx.check_reachable(settings.dir.resolve())
    certificate = None
    if settings.tls == "given":
        certificate = settings.tls_certificate_file.resolve(), settings.tls_key_file.resolve()
    elif settings.tls == "generated":
        certificate = generate(settings.dir / "tls", settings.tls_names)
    write(settings.dir, render(settings, machine, certificate))
    servers = servers_file(settings, machine)
    if servers:
        write(settings.servers_folder, {"servers.conf": servers})


if __name__ == "__main__":
    sys.exit(main())
