"""Every setting of the gateway, declared once: name, type, default, help.

A setting is the environment variable ``LINGBI_GATEWAY_<NAME>``. Unknown names and unusable values
stop the program before it does anything, with the name, the value seen and the remedy.
"""

import difflib
import ipaddress
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

PREFIX = "LINGBI_GATEWAY_"
TLS_FOLDER = "LINGBI_TLS_FOLDER"  # of the machine: compose.tls.yaml mounts it and says its name
Value = TypeVar("Value")
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[a-z0-9._-]+(:\d+)?")
MODEL = re.compile(r"[\w.:/@+-]{1,200}")  # a model's name, where it stands in a list
ENDPOINT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):(\d{1,5})")


class GatewayError(Exception):
    """The gateway cannot start; says what, where, the value seen and the remedy."""

    exit_status = 3


class ConfigurationError(GatewayError):
    """A setting is unknown or unusable."""

    exit_status = 2


def words(text: str) -> tuple[str, ...]:
    """The parts of a list that is separated by commas or spaces."""
    return tuple(part for part in re.split(r"[,\s]+", text) if part)


def endpoint(text: str) -> str:
    """host:port, unchanged."""
    match = ENDPOINT.fullmatch(text)
    if not match or not 0 < int(match[2]) < 65536:
        raise ValueError("give HOST:PORT, as in 10.0.0.5:23333")
    return text


def model(text: str) -> str:
    """A model's name, unchanged."""
    if not MODEL.fullmatch(text):
        raise ValueError(f"{text[:100]!r} is no model's name; give letters, digits and . _ - : / @ +")
    return text


def server_list(text: str) -> tuple[str, ...]:
    """HOST:PORT of each server, or MODEL=HOST:PORT."""
    for part in words(text):
        name, equals, address = part.rpartition("=")
        endpoint(address)
        if equals:
            model(name)
    return words(text)


def alias_list(text: str) -> tuple[tuple[str, str], ...]:
    """(alias, model) of each ALIAS=MODEL."""
    found = []
    for part in words(text):
        alias, equals, name = part.partition("=")
        if not equals:
            raise ValueError("give ALIAS=MODEL, as in gpt-4o=vl-7b, with commas")
        found.append((model(alias), model(name)))
    twice = [alias for alias, count in Counter(alias for alias, _ in found).items() if count > 1]
    if twice:
        raise ValueError(f"{twice[0]!r} is given twice; give each alias once")
    return tuple(found)


def networks(text: str) -> tuple[str, ...]:
    return tuple(str(ipaddress.ip_network(part)) for part in words(text))


def names(text: str) -> tuple[str, ...]:
    found = words(text)
    if not found or any(not re.fullmatch(r"[A-Za-z0-9.:-]+", name) for name in found):
        raise ValueError("give host names or addresses, with commas")
    return found


def origins(text: str) -> tuple[str, ...]:
    found = words(text)
    if found != ("*",) and not all(ORIGIN.fullmatch(origin) for origin in found):
        raise ValueError("give * or origins as browsers write them, as in https://lab.example, with commas")
    return found


def address(text: str) -> str:
    return str(ipaddress.ip_address(text))


def optional_endpoint(text: str) -> str:
    return text and endpoint(text)


@dataclass(frozen=True)
class Choice:
    """A reader that accepts one of the given words."""

    words: tuple[str, ...]

    def __call__(self, text: str) -> str:
        if text not in self.words:
            raise ValueError(f"give one of {', '.join(self.words)}")
        return text


@dataclass(frozen=True)
class Whole:
    """A reader that accepts whole numbers between two bounds."""

    least: int
    most: int

    def __call__(self, text: str) -> int:
        if not text.isascii() or not text.isdecimal() or not self.least <= int(text) <= self.most:
            raise ValueError(f"give a whole number from {self.least} to {self.most}")
        return int(text)


def setting(default: str, read: Callable[[str], Value], text: str, **more: str) -> Value:
    """A field of the settings: its default as the environment would spell it, its reader, its help.

    more: what the schema of all settings says besides: ``words``, the default where the machine decides it, and
    ``option``, that of scripts/up.
    """
    return field(default=read(default), metadata={"read": read, "help": text, "default": default, **more})


def default_folder() -> Path:
    """A folder that no system empties, unlike the temporary one: nginx keeps requests' bodies in it."""
    if os.geteuid() == 0:
        return Path("/var/lib/lingbi-gateway")
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "lingbi-gateway"


@dataclass(frozen=True)
class Settings:
    """Settings of one gateway; see each field's help."""

    host: str = setting("127.0.0.1", address, "address that the gateway listens on", option="--host")
    port: int = setting("6006", Whole(1, 65535), "port that the gateway listens on", option="--port")
    inner_host: str = setting("127.0.0.1", address, "address of the page's own way to the servers; never publish it")
    inner_port: int = setting("6007", Whole(1, 65535), "port of the page's own way to the servers")
    servers: tuple[str, ...] = setting(
        "127.0.0.1:23333",
        server_list,
        "the servers, HOST:PORT with commas, or MODEL=HOST:PORT where they serve several models; empty: the servers "
        "folder is filled otherwise",
    )
    aliases: tuple[tuple[str, str], ...] = setting(
        "",
        alias_list,
        "other names of the models, ALIAS=MODEL with commas; `default` is also for requests that name no model",
    )
    affinity: str = setting(
        "on",
        Choice(("on", "off")),
        "whether a conversation, and questions about one picture, go to the same server while that is not full",
    )
    servers_dir: Path | None = setting(
        "",
        lambda text: Path(text) if text else None,
        "folder of the servers' file",
        words="servers in the folder of LINGBI_GATEWAY_DIR",
    )
    watch: str = setting("off", Choice(("off", "on")), "whether changes in the servers folder are applied as they come")
    published: str = setting(
        "",
        optional_endpoint,
        "HOST:PORT that people use, for the lines at its start that say how to call it; empty: none",
    )
    ui: str = setting("127.0.0.1:7860", endpoint, "the page's server, HOST:PORT")
    resolver: str = setting(
        "", optional_endpoint, "DNS server that names are looked up at again; 127.0.0.11:53 in Docker"
    )
    dir: Path = setting(
        str(default_folder()),
        Path,
        "folder of what is rendered",
        words="/var/lib/lingbi-gateway; without root ~/.local/state/lingbi-gateway",
    )
    nginx: str = setting("nginx", str, "nginx's program")
    processes: int = setting("2", Whole(1, 64), "nginx's worker processes")
    connections: int = setting(
        "16384",
        Whole(64, 65536),
        "most connections of one nginx process, both sides counted, half requests too; within the limit of open files",
    )
    max_body_mib: int = setting("32", Whole(1, 1024), "largest request, MiB")
    max_file_mib: int = setting("2049", Whole(1, 65536), "largest upload to /v1/files, MiB")
    max_upload_mib: int = setting("324", Whole(1, 65536), "largest upload to the page, MiB: all pictures of a question")
    connect_timeout_s: int = setting("2", Whole(1, 60), "longest wait for a connection to a server")
    answer_timeout_s: int = setting("600", Whole(1, 86400), "longest silence of a server within an answer")
    key_rate: int = setting("50", Whole(1, 100000), "requests/s of one API key, for each server")
    key_connections: int = setting("256", Whole(1, 65535), "requests of one API key at once, for each server")
    address_rate: int = setting(
        "50",
        Whole(1, 100000),
        "requests/s of one address under /v1, and of its questions and uploads to the page, for each server",
    )
    address_connections: int = setting("256", Whole(1, 65535), "requests of one address at once, for each server")
    allow: tuple[str, ...] = setting("127.0.0.1/32,::1/128", networks, "networks that may see /metrics and /status")
    allowed_origins: tuple[str, ...] = setting(
        "", origins, "origins that its own error answers are open to; as LINGBI_ALLOWED_ORIGINS of the servers"
    )
    trusted_proxies: tuple[str, ...] = setting(
        "", networks, "networks of proxies whose X-Forwarded-For, -Proto, -Host and -Prefix are believed"
    )
    tls: str = setting(
        "off",
        Choice(("off", "generated", "given")),
        "off, generated (a certificate signed by itself) or given (two files)",
    )
    tls_names: tuple[str, ...] = setting("localhost,127.0.0.1", names, "names and addresses in a generated certificate")
    tls_certificate_file: Path = setting("", Path, "file with the given certificate and its chain, PEM")
    tls_key_file: Path = setting("", Path, "file with the given certificate's key, PEM")

    @property
    def servers_folder(self) -> Path:
        """The folder whose *.conf files list the servers; it may be changed while nginx runs."""
        return self.servers_dir or self.dir / "servers"


def load_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings. Raises ConfigurationError that names the setting, the value seen and the remedy."""
    known = {PREFIX + item.name.upper(): item for item in fields(Settings)}
    given = {key: value for key, value in environment.items() if key.startswith(PREFIX)}
    for key in sorted(given):
        if key not in known:
            raise ConfigurationError(f"{key}={given[key]!r}: there is no such setting; {remedy(key, known)}")
    settings = Settings(**{known[key].name: _read(key, value, known[key].metadata) for key, value in given.items()})
    _check_together(settings, environment.get(TLS_FOLDER, ""))
    return settings


def remedy(name: str, known: Iterable[str]) -> str:
    """The remedy for a name that is not a known setting."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else "remove it"


def file_fault(file: Path, there: Path) -> str:
    """Why this user cannot read a file, with the command that mends it, or "".

    there: its path on the machine, where the file's folder is one that is mounted.
    """
    if file.parent.is_dir() and not os.access(file.parent, os.X_OK, effective_ids=True):
        return closed(file.parent, there.parent, "x")
    if not file.is_file():
        target = f" (it is a link to {os.readlink(file)})" if file.is_symlink() else ""
        return f"no such file{target}; TLS=given needs it"
    return "" if os.access(file, os.R_OK, effective_ids=True) else closed(file, there, "r")


def closed(path: Path, there: Path, right: str) -> str:
    """A sentence about a path that this user lacks a right to."""
    found, group = path.stat(), os.getegid()
    return (
        f"user {os.geteuid()} cannot read it, as {there} has mode {found.st_mode & 0o7777:04o} and belongs to user "
        f"{found.st_uid}; run on its machine: sudo chgrp {group} {there} && sudo chmod g+{right} {there}"
    )


def _read(key: str, value: str, metadata: Mapping[str, Any]) -> Any:
    try:
        return metadata["read"](value)
    except ValueError as error:
        raise ConfigurationError(f"{key}={value!r}: {error} ({metadata['help']})") from None


def _check_together(settings: Settings, tls_folder: str) -> None:
    if settings.tls == "given":
        for name in ("tls_certificate_file", "tls_key_file"):
            file = getattr(settings, name)
            if fault := file_fault(file, Path(tls_folder or file.parent) / file.name):
                raise ConfigurationError(f"{PREFIX}{name.upper()}={str(file)!r}: {fault}")
    for name in ("dir", "servers_dir"):
        folder = str(getattr(settings, name))
        if re.search(r"[\"'$\\\x00-\x1f]", folder):
            raise ConfigurationError(f"{PREFIX}{name.upper()}={folder!r}: give a path without quotes, $ and \\")
