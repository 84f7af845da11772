"""`python -m lingbi_gateway`: render nginx's configuration, have nginx test it, and exec nginx.

`test` tests the configuration that is there now. `reload` has the running nginx follow a changed list of servers, with
limits for as many as there are now; both are for whoever changes the servers' file. `render` stops after the test, and judges
the settings where the list is still to come, too.
"""

import argparse
import os
import sys
from dataclasses import replace

from lingbi_gateway import nginx, record, watch
from lingbi_gateway.certificate import generate, names_in
from lingbi_gateway.configuration import Certificate, Machine, make_folder, render, servers_file, write
from lingbi_gateway.greeting import greeting
from lingbi_gateway.router import process
from lingbi_gateway.settings import GatewayError, Settings, load_settings

TO_COME = "127.0.0.1:23333"  # in place of servers that will list themselves


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 2 for a bad configuration, 3 if nginx cannot start, otherwise nginx's own."""
    parser = argparse.ArgumentParser(prog="lingbi_gateway", description=__doc__)
    parser.add_argument("action", nargs="?", choices=("run", "render", "test", "reload"), default="run")
    action = parser.parse_args(arguments).action
    try:
        settings = load_settings()
        ends = process.hear()
        machine = replace(nginx.machine(settings), ends_port=ends.getsockname()[1])
        if action == "render":
            settings = with_a_list(settings, machine)
        if action in ("run", "render"):
            prepare(settings, machine)
        if action == "reload":
            follow(settings)
        else:
            nginx.check(settings)
    except GatewayError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    if action == "run":
        print(greeting(settings), end="\n" * bool(settings.published), flush=True)
        watch.start(settings, machine, ends)
        command = nginx.command(settings)
        os.execvp(command[0], command)
    return 0


def with_a_list(settings: Settings, machine: Machine) -> Settings:
    """The settings, with a list of one server where the servers themselves write it later: nginx takes none without a server."""
    if settings.watch == "off" or settings.servers or machine.servers:
        return settings
    return replace(settings, servers=(TO_COME,), servers_dir=settings.dir / "to-come")


def prepare(settings: Settings, machine: Machine) -> None:
    """Write every file that nginx reads. Raises GatewayError."""
    make_folder(settings.dir)
    if machine.user:
        nginx.check_reachable(settings.dir.resolve())
    write(settings.dir, files_of(settings, machine) | {record.FILE: record.text_of(os.environ, machine)})
    servers = servers_file(settings, machine)
    if servers:
        write(settings.servers_folder, {"servers.conf": servers})


def files_of(settings: Settings, machine: Machine) -> dict[str, str]:
    """What is rendered, with the certificate, which is made where it is missing. Raises GatewayError."""
    certificate = None
    if settings.tls == "given":
        files = settings.tls_certificate_file.resolve(), settings.tls_key_file.resolve()
        certificate = Certificate(*files, names_in(files[0]))
    elif settings.tls == "generated":
        certificate = generate(settings.dir / "tls", settings.tls_names)
    return render(settings, machine, certificate)


def follow(settings: Settings) -> None:
    """Have the running nginx apply what its folders hold now. What nginx refuses changes nothing. Raises GatewayError."""
    started = record.read(settings.dir)
    if started is None:
        nginx.reload(settings)
        return
    settings, machine = started
    machine = replace(machine, servers=nginx.listed_servers(settings.servers_folder))
    new = files_of(settings, machine)
    old = {name: (settings.dir / name).read_text(encoding="utf-8") for name in new if (settings.dir / name).exists()}
    write(settings.dir, {name: text for name, text in new.items() if old.get(name) != text})
    try:
        nginx.reload(settings)
    except GatewayError:
        write(settings.dir, old)
        raise


if __name__ == "__main__":
    sys.exit(main())
