"""nginx's configuration as text, from the settings and the machine. Everything here is pure."""

import ipaddress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from textwrap import indent
from typing import Any

from lingbi_gateway import errors, routes
from lingbi_gateway.servers import Server, given
from lingbi_gateway.settings import Settings
from lingbi_gateway.templates import fill, read

RESOLVES_AGAIN = (1, 27, 3)  # the first free nginx that follows changes of a name's addresses
RETRY_WITHIN_S = 5
BURST = 4  # how many seconds' worth of a rate may come at once: with the defaults more than a server runs and queues
MOST_CONNECTIONS = 65535  # nginx takes no larger limit of connections
STRICT_TRANSPORT = "max-age=31536000"
READABLE, ENTERABLE = 0o644, 0o755  # whatever the umask is: nginx's unprivileged processes read what is rendered
HEALTH_BY_ROUTER = "proxy_pass http://router;"  # without it no model is reached
PLACED_BY_ROUTER = "proxy_pass http://router;"
NOT_PLACED = 'default_type text/plain;\n            return 200 "";'  # one server, or no affinity: nothing to count
HEALTH = '{"status":"ok"}\n'  # a file, so that health sees it when the folder has been emptied


@dataclass(frozen=True)
class Machine:
    """What the configuration depends on besides the settings.

    user: (user, group) that nginx's processes switch to, None to keep the current one; open_files: how many
    files a process may open; version: nginx's; servers: those of the list, where something else writes it; ends_port: the
    router's UDP port, to which nginx tells the ends of requests.
    """

    user: tuple[str, str] | None
    open_files: int
    version: tuple[int, ...]
    servers: tuple[Server, ...] = ()
    ends_port: int = 0


@dataclass(frozen=True)
class Certificate:
    """The files of a certificate and its key, PEM, and the names and addresses that it is for."""

    file: Path
    key_file: Path
    names: tuple[str, ...]


def render(settings: Settings, machine: Machine, certificate: Certificate | None) -> dict[str, str]:
    """{path within settings.dir: text} of every file except the list of servers. Raises ConfigurationError."""
    values = _values(settings, machine) | {"certificate_names": _names(certificate.names if certificate else ())}
    if certificate:
        is_given = settings.tls == "given"
        values |= {"certificate": certificate.file, "certificate_key": certificate.key_file}
        values |= {"strict_transport": STRICT_TRANSPORT if is_given else ""}
    listen = "listen-tls.conf" if certificate else "listen-plain.conf"
    files = {
        "nginx.conf": fill(read("nginx.conf"), values),
        "listen.conf": fill(read(listen), values),
        "headers.conf": read("headers.conf"),
        "errors.conf": errors.directives(),
        "error-files.conf": errors.location(f"{settings.dir}/errors"),
        "health/healthz": HEALTH,
    }
    pages = errors.files(read("error.html"), values)
    files |= routes.files(settings, _servers(settings, machine), _limits(settings, machine), machine.ends_port)
    return files | {f"errors/{name}": text for name, text in pages.items()}


def servers_file(settings: Settings, machine: Machine) -> str | None:
    """The list of servers for nginx, one a line; None if something else writes it."""
    if not settings.servers:
        return None
    return "".join(f"{server.directive()}\n" for server in _servers(settings, machine))


def _servers(settings: Settings, machine: Machine) -> tuple[Server, ...]:
    """Those of the setting, with nginx's parameters, or of the list that something else writes."""
    if not settings.servers:
        return machine.servers
    found = map(given, settings.servers)
    return tuple(replace(server, options=_again(server.address, settings, machine)) for server in found)


def _values(settings: Settings, machine: Machine) -> dict[str, Any]:
    health = f'alias "{settings.dir}/health/healthz";'
    is_routed = routes.is_routed(settings, _servers(settings, machine))
    follows = settings.resolver and machine.version >= RESOLVES_AGAIN
    return (
        asdict(settings)
        | _limits(settings, machine)
        | {
            "user": f"user {' '.join(machine.user)};" if machine.user else "",
            "open_files": min(machine.open_files, 2 * settings.connections),
            "connections": min(settings.connections, machine.open_files),
            "access_log": "/dev/stdout",
            "listen": _listen(settings.host, settings.port),
            "inner": _listen(settings.inner_host, settings.inner_port),
            "servers_folder": settings.servers_folder,
            "ui": " ".join((settings.ui, *_again(settings.ui, settings, machine))),
            "resolver": f"    resolver {settings.resolver} valid=5s;" if follows else "",
            "retry_within_s": RETRY_WITHIN_S,
            "router_timeout_s": routes.ROUTER_TIMEOUT_S,
            "next": routes.NEXT,
            "next_of_impatient": routes.NEXT_OF_IMPATIENT,
            "limits": indent(fill(read("limits.conf"), _limits(settings, machine)).rstrip(), " " * 8),
            "health": HEALTH_BY_ROUTER if routes.depends_on_router(settings, _servers(settings, machine)) else health,
            "placed": PLACED_BY_ROUTER if is_routed else NOT_PLACED,
            "allow": _lines("            allow {};", settings.allow),
            "origins": _origins(settings.allowed_origins),
            "trusted_proxies": _trusted(settings.trusted_proxies),
            "proxy_networks": _lines("        {} 1;", settings.trusted_proxies),
        }
    )


def _limits(settings: Settings, machine: Machine) -> dict[str, int]:
    """The limits of all servers together: the settings count for each, so that what the servers can take passes."""
    servers = max(1, len(_servers(settings, machine)))
    names = ("key_rate", "key_connections", "address_rate", "address_connections")
    limits: dict[str, int] = {name: _times(name, getattr(settings, name), servers) for name in names}
    return limits | {
        "key_burst": BURST * limits["key_rate"],
        "address_burst": BURST * limits["address_rate"],
    }


def _times(name: str, value: int, servers: int) -> int:
    return min(value * servers, MOST_CONNECTIONS) if name.endswith("connections") else value * servers


def _listen(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _again(endpoint: str, settings: Settings, machine: Machine) -> tuple[str, ...]:
    """The parameter that has nginx look a name up again, if nginx supports it and the name needs it."""
    host = endpoint.rpartition(":")[0].strip("[]")
    try:
        ipaddress.ip_address(host)
        return ()
    except ValueError:
        return ("resolve",) if settings.resolver and machine.version >= RESOLVES_AGAIN else ()


def _trusted(networks: tuple[str, ...]) -> str:
    if not networks:
        return ""
    lines = _lines("    set_real_ip_from {};", networks)
    return f"{lines}\n    real_ip_header X-Forwarded-For;\n    real_ip_recursive on;"


def _origins(origins: tuple[str, ...]) -> str:
    """The lines of nginx's map from a request's origin to the one that an answer is open to."""
    return '        "~." *;' if origins == ("*",) else _lines("        {} $http_origin;", origins)


def _names(names: tuple[str, ...]) -> str:
    """The lines of nginx's map from a request's host to whether the certificate is for it."""
    return _lines("        {} 1;", tuple(sorted({f"[{name}]" if ":" in name else name.lower() for name in names})))


def _lines(form: str, items: tuple[str, ...]) -> str:
    return "\n".join(form.format(item) for item in items)


def write(folder: Path, files: dict[str, str]) -> None:
    """Write rendered files below a folder."""
    for name, text in files.items():
        file = folder / name
        make_folder(file.parent)
        file.write_text(text, encoding="utf-8")
        file.chmod(READABLE)


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it that are missing, which nginx's unprivileged processes can enter."""
    if not folder.exists():
        make_folder(folder.parent)
        folder.mkdir()
        folder.chmod(ENTERABLE)
