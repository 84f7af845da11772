"""Where the files of a backup come from, and where each goes back. Pure but for reading."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from host import env_file
from host.backup.archive import Writer
from host.errors import Refusal

STATE = (
    "api-key",
    "keys",
    "accounts/host",
    "ui-key",
    "logins",
    "start.json",
)  # of a native installation's state folder
TLS = ("certificate.pem", "key.pem")
GENERATED = (*TLS, "names")  # a certificate that the gateway made, and what for
FOLDERS = {"tls": "LINGBI_TLS_FOLDER", "servers": "LINGBI_SERVERS_FOLDER"}  # settings of .env that name folders
IS_FILE = re.compile(r"LINGBI_[A-Z_]+_(FILE|LOCK)")


class Places:
    """The folders of one installation; values: the settings of its .env, start: those of its last native start."""

    def __init__(self, root: Path, given: Mapping[str, str]):
        self.root = root
        self.state_dir = Path(given.get("LINGBI_STATE_DIR") or root / ".lingbi").absolute()
        self.models_dir = Path(given.get("LINGBI_MODELS_DIR") or root / "models").absolute()
        self.given = given

    def values(self) -> dict[str, str]:
        file = self.root / ".env"
        return env_file.parse(file.read_text(encoding="utf-8")) if file.exists() else {}

    def target(self, name: str, values: Mapping[str, str], start: Mapping[str, str]) -> Path | None:
        """Where a file of a backup belongs; None for one that belongs into a container's volume.

        values, start: the settings in the backup. Raises Refusal for a name that no setting explains.
        """
        kind, _, rest = name.partition("/")
        if kind == "volume":
            return None
        if kind == "env" and not rest:
            return self.root / ".env"
        fixed = {"secrets": self.root / "secrets", "state": self.state_dir, "locks": self.state_dir / "locks"}
        fixed["gateway"] = gateway_folder(self.state_dir)
        folder = fixed.get(kind) or (self.in_root(values[FOLDERS[kind]]) if values.get(FOLDERS.get(kind, "")) else None)
        if folder and rest:
            return folder / rest
        if kind == "files" and IS_FILE.fullmatch(rest) and start.get(rest):
            return Path(start[rest])
        raise Refusal(
            f"{name!r} in the backup belongs to a setting that the backup does not have; nothing was restored"
        )

    def in_root(self, folder: str) -> Path:
        """A folder of .env; a relative one lies beside it."""
        return self.root / Path(folder).expanduser()


def gateway_folders(state_dir: Path) -> tuple[Path, Path]:
    """As lingbi.launch.supervision says; a test compares them."""
    digest = hashlib.sha256(os.fsencode(str(state_dir.resolve()))).hexdigest()[:12]
    return state_dir / "gateway", Path(f"/var/lib/lingbi-gateway-{digest}")


def gateway_folder(state_dir: Path) -> Path:
    """Where the gateway of a native start keeps its certificate, as lingbi.launch.edge says."""
    inside, outside = gateway_folders(state_dir)
    there = [part for part in (state_dir, *state_dir.parents) if part.exists()]
    return inside if os.geteuid() or all(part.stat().st_mode & 0o001 for part in there) else outside


def collect(places: Places, writer: Writer) -> None:
    """Write what lies in files, natively and for containers, to an archive. Raises Refusal for what cannot be read."""
    found = {name: file for name, file in files(places) if file.is_file()}
    for name, file in sorted(found.items()):
        try:
            data, mode = file.read_bytes(), file.stat().st_mode & 0o755
        except OSError as error:
            raise Refusal(
                f"{file} cannot be read: {error.strerror}; run scripts/backup as the user whom it belongs to"
            ) from None
        writer.add_bytes(name, mode, data)


def files(places: Places) -> Iterator[tuple[str, Path]]:
    """(name in the archive, file) of all that may be there."""
    yield "env", places.root / ".env"
    secrets, values = places.root / "secrets", places.values()
    yield from ((f"secrets/{file.relative_to(secrets).as_posix()}", file) for file in sorted(secrets.rglob("*")))
    if values.get(FOLDERS["tls"]):
        yield from ((f"tls/{name}", places.in_root(values[FOLDERS["tls"]]) / name) for name in TLS)
    if values.get(FOLDERS["servers"]):
        folder = places.in_root(values[FOLDERS["servers"]])
        yield from ((f"servers/{file.name}", file) for file in sorted(folder.glob("*.conf")))
    yield from ((f"state/{name}", places.state_dir / name) for name in STATE)
    for folder in reversed(gateway_folders(places.state_dir)):
        yield from ((f"gateway/tls/{name}", folder / "tls" / name) for name in GENERATED)
    for lock in sorted(places.models_dir.glob("*/.lingbi/lock.json")):
        yield f"locks/{lock.parts[-3]}.lock.json", lock
    start = started(places.state_dir / "start.json")
    yield from ((f"files/{name}", Path(path)) for name, path in sorted(start.items()) if IS_FILE.fullmatch(name))


def started(file: Path) -> dict[str, str]:
    """The settings of the last native start."""
    return start_settings(file.read_bytes()) if file.exists() else {}


def start_settings(data: bytes) -> dict[str, str]:
    try:
        settings = json.loads(data)["settings"]
        return {str(name): str(value) for name, value in settings.items()}
    except (ValueError, LookupError, TypeError, AttributeError):
        return {}
