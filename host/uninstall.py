"""scripts/uninstall: end lingbi here and remove what it made, in containers and natively. This folder itself stays."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from host import stack
from host.backup.places import STATE, gateway_folders
from host.commands import values as settings
from host.env_file import ROOT
from host.errors import Refusal, StartFailed
from host.images import leftovers
from host.machine import look

SOFTWARE = (".venv", ".venv-ui", ".venv-fetch", ".venv-lmdeploy", ".venv-lab", ".venv-test")
OWN = (".env", "secrets", "models")  # goes with --data only
# The state folder may be one that others use too: what has these names goes, and with --data the keys and records as well.
IN_STATE = ("logs", "run", "cache", "gateway", "pictures", "models", "weights", "tools", "pre-commit", "install.lock")
KEPT = (*STATE, "locks", "accounts")
REST = """\
not removed: what other programs may use too. `uv cache clean` and `rm -rf ~/.cache/pip` empty the packages' caches in your home,
`uv python uninstall 3.10 3.13` removes CPythons that uv brought; base images and the rest of the builder's cache are
Docker's (`docker image prune --all`, `docker builder prune`). This folder: rm -rf {root}"""


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 removed, 2 refused before anything was removed, 3 something did not end."""
    parser = argparse.ArgumentParser(prog="scripts/uninstall", description=__doc__.split(": ", 1)[1].capitalize())
    parser.add_argument(
        "--data", action="store_true", help="also settings, keys, logins and weights (scripts/backup first)"
    )
    parser.add_argument("--keep-cache", action="store_true", help="leave caches of builds to other clones of lingbi")
    options = parser.parse_args(arguments)
    try:
        remove_all(options.data, options.keep_cache)
    except (Refusal, StartFailed) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    return 0


def remove_all(with_data: bool, keeps_cache: bool) -> None:
    """Raises Refusal before anything is removed, StartFailed where something does not end."""
    engine = look().engine
    values = settings()
    if engine:
        check_own(values)
    end_native()
    if engine:
        remove_containers(values, with_data, keeps_cache)
    for path in to_remove(ROOT, state_dir(), with_data):
        remove(path)
    say(REST.format(root=ROOT))
    if not with_data:
        say(
            "kept: .env, secrets/, models/, keys and the containers' volumes, as far as they are here; --data removes them"
        )


def check_own(values: dict[str, str]) -> None:
    """Raise Refusal where another folder's stack has this project's name: its containers and volumes would go."""
    project = values.get("COMPOSE_PROJECT_NAME") or "lingbi"
    others = sorted({folder for folder in stack.folders(project, "--all") if Path(folder).resolve() != ROOT})
    if others:
        raise Refusal(f"the containers of {project} belong to {others[0]}; run scripts/uninstall there")


def end_native() -> None:
    """Remove the systemd unit and end what runs natively, with the installation's own commands. Raises StartFailed."""
    python = ROOT / ".venv/bin/python"
    if not python.exists():
        return
    for module in (("lingbi.launch.service", "remove", "--if-there"), ("lingbi.launch.down",)):
        if subprocess.run([str(python), "-m", *module]).returncode:
            raise StartFailed("what runs natively did not end; see the lines above. Nothing was removed")


def remove_containers(values: dict[str, str], with_data: bool, keeps_cache: bool) -> None:
    """Containers, networks, images of all versions and caches; with the data, volumes too. Raises StartFailed."""
    volumes = ["--volumes"] if with_data else []
    if stack.compose("--profile", "*", "down", "--remove-orphans", "--rmi", "all", *volumes).returncode:
        raise StartFailed("the containers were not removed; see the lines above")
    gone = leftovers.remove_images(leftovers.images(values["LINGBI_IMAGE_PREFIX"], stack.SERVICES))
    freed_gb = 0.0 if keeps_cache else leftovers.remove_cache(leftovers.cache())
    say(f"removed: {', '.join(gone) or 'no further image'}; {freed_gb:.1f} GB of builds' cache")


def state_dir() -> Path:
    return Path(os.environ.get("LINGBI_STATE_DIR") or ROOT / ".lingbi").absolute()


def to_remove(root: Path, state: Path, with_data: bool) -> list[Path]:
    """What lies in the folder and in the state folder, and is there."""
    found = [root / name for name in (*SOFTWARE, *(OWN if with_data else ()))]
    found += sorted((root / "monitoring/prometheus/targets").glob("*.yml"))
    if with_data and state == root / ".lingbi":
        found.append(state)
    else:
        found += [
            state / name for name in (*IN_STATE, *(KEPT if with_data else ())) if with_data or not has_tls(state / name)
        ]
    found += [gateway_folders(state)[1], *uploads(state / "files")] if with_data else []
    return [path for path in found if path.exists() or path.is_symlink()]


def uploads(folder: Path) -> list[Path]:
    """Files that were uploaded for batches; the folder itself, where it holds nothing else."""
    ours = sorted(folder.glob("file-*"))
    return [folder] if ours and len(ours) == len(list(folder.iterdir())) else ours


def has_tls(path: Path) -> bool:
    """Whether it is a gateway's folder with a certificate that clients trust: that goes with the data."""
    return path.name == "gateway" and (path / "tls").exists()


def remove(path: Path) -> None:
    """Remove a file or a folder. Raises StartFailed."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(str(path))
        else:
            path.unlink()
    except OSError as error:
        raise StartFailed(f"{error.filename or path} was not removed: {error.strerror}; remove it by hand") from None
    say(f"removed: {path}")


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
