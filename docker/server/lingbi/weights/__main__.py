"""scripts/weights: what models are here, are they right, remove one, carry one to a machine without internet."""

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from lingbi.errors import ConfigurationError, LingbiError
from lingbi.model import catalogue
from lingbi.model.resolve import find_model, is_present
from lingbi.settings import Settings, load_settings
from lingbi.signals import end_at_signals
from lingbi.weights.archive import export, import_from
from lingbi.weights.folder import WeightsFolder, remove, size_on_disk
from lingbi.weights.hub import read_token
from lingbi.weights.lockfile import OWN_FOLDER
from lingbi.weights.peer import Peer
from lingbi.weights.progress import Progress, shown
from lingbi.weights.verification import find_doubt, told, verify


def main(arguments=None) -> int:
    """Exit status: 0 done, 1 files are not right, 2 configuration, 3 the disk failed."""
    end_at_signals()
    options = parse(arguments)
    try:
        return options.run(options, load_settings())
    except LingbiError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except OSError as error:
        print(f"error: {error}; free space or mend the disk, and run it again", file=sys.stderr)
        return 3


def parse(arguments=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/weights", description=__doc__.split(": ")[1].capitalize())
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add(commands, "list", run_list, "show the models folder: sizes, last use, state")
    model = f"{', '.join(model.name for model in catalogue.MODELS)}, a ModelScope id, or a folder"
    command = _add(commands, "verify", run_verify, "hash every file of a model and compare with its lock")
    command.add_argument("model", help=model)
    command.add_argument("--lock", type=Path, help="lock file to check by (default: the folder's own)")
    _add(commands, "remove", run_remove, "remove a model from the disk").add_argument("model", help=model)
    command = _add(commands, "export", run_export, "write a model as an archive or folder to carry away")
    command.add_argument("model", help=model)
    command.add_argument("to", type=Path, help="FILE.tar, or a folder")
    command = _add(commands, "import", run_import, "take in what was exported elsewhere, proven file by file")
    command.add_argument("source", type=Path, help="FILE.tar, or a folder")
    command.add_argument("--to", type=Path, help="folder that will hold the model (default: models/MODEL)")
    command.add_argument("--lock", type=Path, help="accept only the bytes of this lock file")
    _add(commands, "lock", run_lock, "print the lock of a model: which bytes it is").add_argument("model", help=model)
    command = _add(commands, "share", run_share, "be a hub for other hosts (LINGBI_HUB_ENDPOINT), until it is ended")
    command.add_argument("model", help=model)
    command.add_argument("--host", default="0.0.0.0", help="address to listen on (default: all)")
    command.add_argument("--port", type=int, required=True, help="port to listen on")
    command.add_argument("--token-file", type=Path, required=True, help="token that the other hosts must send")
    return parser.parse_args(arguments)


def _add(commands, name: str, run, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run)
    return parser


@dataclass(frozen=True)
class Held:
    """One folder of a volume: its size on disk in bytes, its state, and when it was last used (epoch s)."""

    path: Path
    size: int
    state: str
    used_s: float | None

    def line(self) -> str:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.used_s)) if self.used_s else "never"
        return f"{self.path.name:<40} {self.size / 1e9:>7.2f} GB  last used {used:<16}  {self.state}"


def run_list(options, settings: Settings) -> int:
    held = contents(settings.models_dir)
    for item in held:
        print(item.line())
    print(f"{len(held)} models, {sum(item.size for item in held) / 1e9:.2f} GB, in {settings.models_dir}")
    return 0


def contents(models_dir: Path) -> list:
    """Every model folder of a volume, also those that are not complete, by name."""
    if not models_dir.is_dir():
        return []
    folders = [path for path in sorted(models_dir.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    return [_describe(path) for path in folders if is_present(path) or (path / OWN_FOLDER).is_dir()]


def _describe(path: Path) -> Held:
    folder = WeightsFolder(path)
    used = folder.used_file.stat().st_mtime if folder.used_file.exists() else None
    return Held(path, size_on_disk(path), _state(folder), used)


def _state(folder: WeightsFolder) -> str:
    if folder.path.is_symlink():
        return f"shared, in {folder.path.resolve()}"
    lock = folder.lock()
    if lock is None:
        return "not fetched by lingbi" if is_present(folder.path) else "not complete: fetch it again to go on"
    doubt = find_doubt(folder.marker_file, folder.path, lock)
    return f"{lock.model} at {lock.revision}, bytes {lock.digest[:12]}, {doubt or 'proven'}"


def run_verify(options, settings: Settings) -> int:
    path, progress = find_model(options.model, settings.models_dir).path, Progress()
    with shown(progress):
        faults = verify(path, options.lock, progress)
    print(f"{path}: {told(faults, shown=20) or 'every file is right'}")
    return 1 if faults else 0


def run_remove(options, settings: Settings) -> int:
    found = find_model(options.model, settings.models_dir)
    if found.path.resolve().parent != settings.models_dir.resolve() and not found.path.is_symlink():
        raise ConfigurationError(f"{found.path} is not in {settings.models_dir}; remove other folders yourself")
    print(f"{found.path} removed, {remove(found.path) / 1e9:.2f} GB free again")
    return 0


def run_export(options, settings: Settings) -> int:
    progress = Progress()
    with shown(progress):
        lock = export(find_model(options.model, settings.models_dir).path, options.to, progress)
    print(f"{options.to}: {lock.model}, {lock.total_bytes / 1e9:.2f} GB, bytes {lock.digest[:12]}")
    return 0


def run_import(options, settings: Settings) -> int:
    progress = Progress()
    with shown(progress):
        lock, path = import_from(options.source, lambda lock: _place(options, settings, lock), progress, options.lock)
    print(f"{path}: {lock.model}, {lock.total_bytes / 1e9:.2f} GB, all right, bytes {lock.digest[:12]}")
    return 0


def run_lock(options, settings: Settings) -> int:
    folder = WeightsFolder(find_model(options.model, settings.models_dir).path)
    if folder.lock() is None:
        raise ConfigurationError(f"{folder.path} has no lock: it was not fetched by lingbi")
    print(folder.lock_file.read_text(), end="")
    return 0


def run_share(options, settings: Settings) -> int:
    path, token = find_model(options.model, settings.models_dir).path, read_token(options.token_file)
    try:
        peer = Peer((options.host, options.port), path, token)
    except (OSError, OverflowError) as error:
        raise ConfigurationError(
            f"cannot listen on {options.host} port {options.port}: {error}; end what uses it, or give another --port"
        ) from None
    print(f"sharing {peer.lock.model}, bytes {peer.lock.digest[:12]}, on port {peer.server_port}", flush=True)
    peer.serve_forever()
    return 0


def _place(options, settings: Settings, lock) -> Path:
    """Where an import goes: --to, or the model's own folder."""
    return options.to or find_model(lock.model, settings.models_dir).path


if __name__ == "__main__":
    sys.exit(main())
