"""The list of modules that mypy does not judge yet (pyproject.toml, `ignore_errors`): it may only shrink."""

from __future__ import annotations

import sys
from pathlib import Path

import tomli

from checks.history import ROOT, Commit, commits_since, git, text_at

FILE = "pyproject.toml"
RULE = "checks/untyped.py"


def main(root: Path = ROOT) -> int:
    """Print what the list gained; returns the exit status."""
    commits = commits_since(RULE, root, files=(FILE,))
    grown = grown_uncommitted(root) + [line for commit in commits for line in grown_in(commit, root)]
    for line in grown:
        print(line)
    return 1 if grown else 0


def grown_uncommitted(root: Path) -> list[str]:
    """What the list in the working tree has that none of the commits has which it follows: HEAD, and what is being merged."""
    merging = Path(git("rev-parse", "--path-format=absolute", "--git-path", "MERGE_HEAD", root=root).strip())
    merged = merging.read_text(encoding="ascii").split() if merging.exists() else []
    before = [listed_at(revision, root) for revision in ("HEAD", *merged)]
    return growth(listed((root / FILE).read_text(encoding="utf-8")), before, "The working tree")


def grown_in(commit: Commit, root: Path) -> list[str]:
    """What a commit's list has that none of its parents' has."""
    before = [listed_at(parent, root) for parent in commit.parents]
    return growth(listed_at(commit.id, root), before, f"Commit {commit.id[:9]}")


def growth(now: set[str] | None, before: list[set[str] | None], who: str) -> list[str]:
    """A sentence for each module that is new on the list. None: no list yet, which allows every module."""
    if now is None or None in before:
        return []
    new = now.difference(*(names for names in before if names is not None))
    return [
        f"{who} puts {name} on mypy's list in {FILE}, which only shrinks: annotate it instead" for name in sorted(new)
    ]


def listed_at(revision: str, root: Path) -> set[str] | None:
    """The list as it is in a commit; None where that has none."""
    text = text_at(revision, FILE, root)
    return None if text is None else listed(text)


def listed(pyproject: str) -> set[str] | None:
    """The modules whose errors mypy is told to ignore, by the text of pyproject.toml; None where it says nothing of mypy."""
    mypy = tomli.loads(pyproject).get("tool", {}).get("mypy")
    if mypy is None:
        return None
    ignored = (section["module"] for section in mypy.get("overrides", []) if section.get("ignore_errors"))
    return {name for names in ignored for name in names}


if __name__ == "__main__":
    sys.exit(main())
