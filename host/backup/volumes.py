"""What lies in the containers' volumes: read and written by tar in the stack's own containers, as streams."""

from __future__ import annotations

import contextlib
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from host import stack
from host.backup import accounts
from host.backup.archive import Item, Writer, write
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


def save(writer: Writer, with_uploads: bool) -> None:
    """Write the files of the volumes to an archive. Raises StartFailed."""
    program = Path(accounts.__file__).read_text(encoding="utf-8")
    script = SAVE_ACCOUNTS if with_uploads else f"{SAVE_ACCOUNTS} {accounts.WITHOUT_UPLOADS}"
    unpack(command("state", script, stack.is_running("server"), program), _named("state", writer))
    for kind in VOLUMES:
        unpack(command(kind, SAVE, stack.is_running(VOLUMES[kind][0])), _named(kind, writer))


def _named(kind: str, writer: Writer) -> Callable[[str, int, int, BinaryIO], None]:
    def add(name: str, mode: int, size: int, stream: BinaryIO) -> None:
        writer.add(name_of(kind, name), mode, size, stream)

    return add


def name_of(kind: str, name: str) -> str:
    """The name in the archive; the locks of weights are files like those of a native installation."""
    return f"locks/{name.split('/')[0]}.lock.json" if kind == "weights" else f"volume/{kind}/{name}"


def restore(items: list[Item]) -> None:
    """Put the files of the volumes back. Raises StartFailed."""
    for kind in ("state", "gateway"):
        start = f"volume/{kind}/"
        ours = {item.name[len(start) :]: item for item in items if item.name.startswith(start)}
        if ours:
            script = RESTORE_DATABASE if f"accounts/{accounts.DATABASE}" in ours else RESTORE
            feed(command(kind, script, False), ours)


def unpack(arguments: list[str], add: Callable[[str, int, int, BinaryIO], None]) -> None:
    """Hand over each plain file of the tar that a command of docker compose writes, or of no bytes at all.

    add: takes a file's name, mode, size and bytes. Raises StartFailed.
    """
    with _running(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        if process.stdout.peek(1):
            with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                for entry in archive:
                    stream: Any = archive.extractfile(entry) if entry.isreg() else None
                    if stream:
                        add(str(PurePosixPath(entry.name)), entry.mode & 0o755, entry.size, stream)
        while process.stdout.read(1 << 16):  # what fills a tar's last record; closed early, the pipe would end tar
            continue


def feed(arguments: list[str], items: dict[str, Item]) -> None:
    """Give a command of docker compose a tar of files to read. Raises StartFailed."""
    is_whole = False
    with _running(arguments, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        with contextlib.suppress(BrokenPipeError):  # tar may end before it has read what fills the last record
            with tarfile.open(fileobj=process.stdin, mode="w|", format=tarfile.PAX_FORMAT) as archive:
                for name, item in items.items():
                    with item.open() as stream:
                        write(archive, name, item.mode, item.size, stream)
                is_whole = True
            process.stdin.close()
        if not is_whole:
            raise BrokenPipeError("it ended before it had read all")


@contextlib.contextmanager
def _running(arguments: list[str], **pipes: Any) -> Iterator[Any]:
    """A command of docker compose, while it runs. Raises StartFailed with its words if it, or the tar in the pipe, fails."""
    fault: Exception | None = None
    with tempfile.TemporaryFile() as told:
        process = subprocess.Popen(
            stack.compose_command(*arguments), **pipes, stderr=told, cwd=str(ROOT), env=stack.clean_environment()
        )
        try:
            yield process
        except (tarfile.TarError, EOFError, BrokenPipeError) as error:
            fault = error
        finally:
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(BrokenPipeError):
                    if pipe:
                        pipe.close()
            process.wait()
        told.seek(0)
        words = told.read().decode(errors="replace").strip()
    if process.returncode or fault:
        raise StartFailed(f"docker compose {' '.join(arguments[:4])} …: {words or fault}")
