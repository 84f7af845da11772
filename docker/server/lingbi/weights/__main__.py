"""scripts/weights: list, verify, remove, export, import and share the models that are here."""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lingbi.errors import ConfigurationError, LingbiError
from lingbi.model import catalogue
from lingbi.model.resolve import Found, find_model, is_present
from lingbi.settings import Settings, load_settings
from lingbi.signals import end_at_signals
from lingbi.weights.archive import export, import_from
from lingbi.weights.folder import WeightsFolder, remove, size_on_disk
from lingbi.weights.hub import read_token
from lingbi.weights.lockfile import OWN_FOLDER, Lock
from lingbi.weights.peer import Peer
from lingbi.weights.progress import Progress, shown
from lingbi.weights.verification import describe, measure, reason_to_recheck, verify

Run = Callable[[argparse.Namespace, Settings], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 files do not match, 2 configuration, 3 the disk failed, 130 or 143 interrupted."""
    options = parse(arguments)
    end_at_signals(is_resumable=options.run in (run_export, run_import))
    try:
        status: int = options.run(options, load_settings())
    except LingbiError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except OSError as error:
        print(f"error: {error}; free space or repair the disk, then run it again", file=sys.stderr)
        return 3
    return status


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/weights", description="List, verify, remove, export, import and share the models that are here."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Run, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        return command

    model = f"{', '.join(model.name for model in catalogue.MODELS)}, a ModelScope id, or a folder"
    add("list", run_list, "show the models in the models folder: size, last use, state")
    command = add("verify", run_verify, "hash every file of a model and compare it with the lock")
    command.add_argument("model", help=model)
    command.add_argument("--lock", type=Path, help="lock file to check against (default: the folder's own)")
    add("remove", run_remove, "remove a model from the disk").add_argument("model", help=model)
    command = add("export", run_export, "write a model to an archive or folder that can be carried elsewhere")
    command.add_argument("model", help=model)
    command.add_argument("to", type=Path, help="FILE.tar, or a folder")
    command = add("import", run_import, "import what was exported elsewhere, verifying every file")
    command.add_argument("source", type=Path, help="FILE.tar, or a folder")
    command.add_argument("--to", type=Path, help="folder that will hold the model (default: models/MODEL)")
    command.add_argument("--lock", type=Path, help="accept only the bytes of this lock file")
    command = add("lock", run_lock, "print a model's lock, which says which bytes it has")
    command.add_argument("model", help=model)
    command.add_argument("--to", type=Path, help="file to write it to, in one step, in place of printing it")
    command = add(
        "share", run_share, "serve a model to other hosts as their hub (LINGBI_HUB_ENDPOINT), until interrupted"
    )
    command.add_argument("model", help=model)
    command.add_argument("--host", default="0.0.0.0", help="address to listen on (default: all)")
    command.add_argument("--port", type=int, required=True, help="port to listen on")
    command.add_argument(
        "--token-file", type=Path, required=True, help="file with the token that other hosts must send"
    )
    return parser.parse_args(arguments)


def run_list(options: argparse.Namespace, settings: Settings) -> int:
    models = stored_models(settings.models_dir)
    for model in models:
        print(model.line())
    print(f"{len(models)} models, {sum(model.size for model in models) / 1e9:.2f} GB, in {settings.models_dir}")
    return 0


@dataclass(frozen=True)
class StoredModel:
    """One model folder: its size on the disk in bytes, its state, and when it was last used (epoch, s)."""

    path: Path
    size: int
    state: str
    used_s: float | None

    def line(self) -> str:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.used_s)) if self.used_s else "never"
        return f"{self.path.name:<40} {self.size / 1e9:>7.2f} GB  last used {used:<16}  {self.state}"


def stored_models(models_dir: Path) -> list[StoredModel]:
    """Every model folder, by name, including those that are not complete."""
    if not models_dir.is_dir():
        return []
    folders = [path for path in sorted(models_dir.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    return [_stored_model(path) for path in folders if is_present(path) or (path / OWN_FOLDER).is_dir()]


def _stored_model(path: Path) -> StoredModel:
    folder = WeightsFolder(path)
    used_s = folder.used_file.stat().st_mtime if folder.used_file.exists() else None
    return StoredModel(path, size_on_disk(path), _state(folder), used_s)


def _state(folder: WeightsFolder) -> str:
    if folder.path.is_symlink():
        return f"shared, in {folder.path.resolve()}"
    lock = folder.lock()
    if lock is None:
        return "not fetched by lingbi" if is_present(folder.path) else "not complete: fetch it again to resume"
    reason = reason_to_recheck(folder.marker_file, folder.path, lock)
    return f"{lock.model} at {lock.revision}, digest {lock.digest[:12]}, {reason or 'verified'}"


def run_verify(options: argparse.Namespace, settings: Settings) -> int:
    path, progress = find_model(options.model, settings.models_dir).path, Progress()
    with shown(progress):
        faults = verify(path, options.lock, progress)
    print(f"{path}: {describe(faults, limit=20) or 'every file is verified'}")
    return 1 if faults else 0


def run_remove(options: argparse.Namespace, settings: Settings) -> int:
    found = find_model(options.model, settings.models_dir)
    if found.path.resolve().parent != settings.models_dir.resolve() and not found.path.is_symlink():
        raise ConfigurationError(f"{found.path} is not in {settings.models_dir}; remove other folders yourself")
    print(f"{found.path} removed, {remove(found.path) / 1e9:.2f} GB freed")
    return 0


def run_export(options: argparse.Namespace, settings: Settings) -> int:
    progress = Progress()
    with shown(progress):
        lock = export(find_model(options.model, settings.models_dir).path, options.to, progress)
    print(f"{options.to}: {lock.model}, {lock.total_bytes / 1e9:.2f} GB, digest {lock.digest[:12]}")
    return 0


def run_import(options: argparse.Namespace, settings: Settings) -> int:
    def place(lock: Lock) -> Path:
        return options.to or find_model(lock.model, settings.models_dir).path

    progress = Progress()
    with shown(progress):
        lock, path = import_from(options.source, place, progress, options.lock)
    print(f"{path}: {lock.model}, {lock.total_bytes / 1e9:.2f} GB, verified, digest {lock.digest[:12]}")
    return 0


def run_lock(options: argparse.Namespace, settings: Settings) -> int:
    """The lock of a fetch, or for weights that came another way one of the bytes that are there now."""
    found = find_model(options.model, settings.models_dir)
    lock = WeightsFolder(found.path).lock()
    if lock is None:
        check_present(found)
        progress = Progress()
        with shown(progress):
            lock = measure(found.path, found.hub_id or found.served_name, settings.hub_revision, progress)
        print(f"{found.path} was not fetched by lingbi: this lock says which bytes it has now", file=sys.stderr)
    if options.to:
        lock.write(options.to)
        print(f"{options.to}: {lock.model}, {lock.total_bytes / 1e9:.2f} GB, digest {lock.digest[:12]}")
    else:
        print(lock.text(), end="")
    return 0


def check_present(found: Found) -> None:
    if not found.is_present:
        raise ConfigurationError(f"{found.path} holds no model, so it has no lock; fetch it first (scripts/fetch)")


def run_share(options: argparse.Namespace, settings: Settings) -> int:
    path, token = find_model(options.model, settings.models_dir).path, read_token(options.token_file)
    try:
        peer = Peer((options.host, options.port), path, token)
    except (OSError, OverflowError) as error:
        raise ConfigurationError(
            f"cannot listen on {options.host} port {options.port}: {error}; stop what uses it, or pass another --port"
        ) from None
    print(f"sharing {peer.lock.model}, digest {peer.lock.digest[:12]}, on port {peer.server_port}", flush=True)
    peer.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
