"""What lies in the containers' volumes: read and written by tar in the stack's own containers."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

from host import stack
from host.backup import accounts
from host.backup.archive import Item
from host.env_file import ROOT
from host.errors import StartFailed

# {kind of volume: (service that runs, service for a stack that does not, folder, names in it)}
VOLUMES = {
    "state": ("server", "weights", "/var/lib/lingbi", "api-key keys accounts/host"),
    "gateway": ("gateway", "gateway", "/var/lib/lingbi-gateway", "tls/certificate.pem tls/key.pem tls/names"),
    "weights": ("server", "weights", "/models", "*/.lingbi/lock.json"),
}
SAVE = 'cd "$1" && for name in $2; do [ ! -f "$name" ] || echo "$name"; done | tar -cf - -T -'
RESTORE = 'umask 077 && cd "$1" && tar -xf - --no-same-owner'
RESTORE_DATABASE = f'cd "$1" && rm -f {" ".join(f"accounts/{name}" for name in accounts.BESIDE)}; {RESTORE}'
# Arguments: the folder, and the program's text, since the image has no host/.
SAVE_ACCOUNTS = (
    '[ -d "$1/accounts" ] || exit 0; python=/opt/venv/bin/python; [ -x "$python" ] || python=python3; '
    'exec "$python" -c "$2" "$1/accounts"'
)


def command(kind: str, script: str, is_running: bool, argument: str = "") -> list[str]:
    """The arguments of docker compose that run a shell script in a volume: beside what runs, or in a new container.

    argument: in place of the names.
    """
    running, alone, folder, names = VOLUMES[kind]
    names = argument or names
    if is_running:
        return ["exec", "--no-TTY", running, "sh", "-c", script, "sh", folder, names]
    run = ["run", "--rm", "--no-deps", "--no-TTY", "--entrypoint", "sh", alone]
    return [*run, "-c", script, "sh", folder, names]


def save() -> list[Item]:
    """The files of the volumes. Raises StartFailed."""
    found = []
    for kind in VOLUMES:
        is_running = stack.is_running(VOLUMES[kind][0])
        for item in unpacked(run(command(kind, SAVE, is_running))):
            found.append(Item(name_of(kind, item.name), item.data, item.mode))
    return found + [Item(name_of("state", item.name), item.data, item.mode) for item in save_accounts()]


def save_accounts() -> list[Item]:
    """The server's accounts, while its workers write. Raises StartFailed."""
    program = Path(accounts.__file__).read_text(encoding="utf-8")
    data = run(command("state", SAVE_ACCOUNTS, stack.is_running("server"), program))
    return unpacked(data) if data else []


def name_of(kind: str, name: str) -> str:
    """The name in the archive; the locks of weights are files like those of a native installation."""
    return f"locks/{name.split('/')[0]}.lock.json" if kind == "weights" else f"volume/{kind}/{name}"


def restore(items: list[Item]) -> None:
    """Put the files of the volumes back. Raises StartFailed."""
    for kind in ("state", "gateway"):
        start = f"volume/{kind}/"
        ours = [Item(item.name[len(start) :], item.data, item.mode) for item in items if item.name.startswith(start)]
        if ours:
            has_database = any(item.name == f"accounts/{accounts.DATABASE}" for item in ours)
            run(command(kind, RESTORE_DATABASE if has_database else RESTORE, False), packed(ours))


def run(arguments: list[str], given: bytes = b"") -> bytes:
    done = subprocess.run(
        stack.compose_command(*arguments),
        input=given,
        capture_output=True,
        cwd=str(ROOT),
        env=stack.clean_environment(),
    )
    if done.returncode:
        raise StartFailed(f"docker compose {' '.join(arguments[:4])} …: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def packed(items: list[Item]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for item in items:
            entry = tarfile.TarInfo(item.name)
            entry.size, entry.mode = len(item.data), item.mode
            archive.addfile(entry, io.BytesIO(item.data))
    return buffer.getvalue()


def unpacked(data: bytes) -> list[Item]:
    """The plain files of a tar; none of no bytes at all."""
    found = []
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        for entry in archive:
            stream = archive.extractfile(entry) if entry.isreg() else None
            if stream:
                found.append(Item(str(Path(entry.name)), stream.read(), entry.mode & 0o755))
    return found
