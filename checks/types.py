"""mypy, strict, over every package. The modules that pyproject.toml lists with `ignore_errors` are not clean yet.

An error in any other module fails, and so does a listed module that has no error (any more): it belongs off the list.
`python -m checks.types --list` prints the modules that have errors, as the list in pyproject.toml has them.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import tomli

from checks.history import ROOT
from checks.untyped import listed

ERROR = re.compile(r"(?P<file>[^:\n]+)\.py:\d+: error: .*")
NOT_JUDGED = 2  # mypy's exit status where it could not judge


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Print what mypy finds; returns the exit status."""
    pyproject = (root / "pyproject.toml").read_text(encoding="utf-8")
    roots = tomli.loads(pyproject)["tool"]["mypy"]["mypy_path"]
    found = errors_by_module(run_mypy(pyproject.replace("ignore_errors = true", "ignore_errors = false"), root), roots)
    if arguments == ["--list"]:
        print("\n".join(f'    "{name}",' for name in sorted(found)))
        return 0
    wrong = verdict(found, listed(pyproject) or set())
    for line in wrong:
        print(line)
    return 1 if wrong else 0


def run_mypy(pyproject: str, root: Path) -> str:
    """What mypy prints with this configuration, in this folder. Raises SystemExit where it could not judge."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "pyproject.toml")
        file.write_text(pyproject, encoding="utf-8")
        command = [sys.executable, "-m", "mypy", "--config-file", str(file), "--no-error-summary"]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if done.returncode == NOT_JUDGED:
        raise SystemExit(done.stdout + done.stderr)
    return done.stdout


def errors_by_module(output: str, roots: list[str]) -> dict[str, list[str]]:
    """{module: its errors} of what mypy prints; roots: the folders that modules are imported from."""
    found: dict[str, list[str]] = {}
    for match in ERROR.finditer(output):
        found.setdefault(module_of(match["file"], roots), []).append(match[0])
    return found


def module_of(file: str, roots: list[str]) -> str:
    """The name under which a file (a path without its .py) is imported."""
    for root in roots:
        file = file.removeprefix(f"{root}/")
    return file.replace("/", ".").removesuffix(".__init__")


def verdict(found: dict[str, list[str]], not_clean_yet: set[str]) -> list[str]:
    """The lines that say what fails."""
    errors = [line for module in sorted(found.keys() - not_clean_yet) for line in found[module]]
    clean = sorted(not_clean_yet - found.keys())
    return errors + [f"{module} has no errors: take it off mypy's list in pyproject.toml" for module in clean]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
