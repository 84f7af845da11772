"""The commits that a rule of this repository judges: those since the last release, or since the rule itself came."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Commit:
    """A commit: its id, its parents' ids, and the first line of its message."""

    id: str
    parents: tuple[str, ...]
    subject: str


def git(*arguments: str, root: Path = ROOT) -> str:
    """What git prints in this repository. Raises CalledProcessError where it fails, after git's own sentence."""
    return subprocess.run(["git", *arguments], cwd=root, check=True, stdout=subprocess.PIPE, text=True).stdout


def commits_since(rule: str, root: Path = ROOT, files: tuple[str, ...] = ()) -> list[Commit]:
    """The commits after the last tag, or where there is none after the one that added the file `rule`; newest first.

    Commits beside that one, on branches that did not know the rule, are not among them. files: only the commits that
    change one of these.
    """
    tag = last_tag(root)
    start = tag or commit_that_added(rule, root)
    if not start:
        return []
    knowing = [] if tag else ["--ancestry-path"]
    lines = git("log", "--format=%H%x00%P%x00%s", *knowing, f"{start}..HEAD", "--", *files, root=root).splitlines()
    fields = (line.split("\0") for line in lines)
    return [Commit(id, tuple(parents.split()), subject) for id, parents, subject in fields]


def last_tag(root: Path = ROOT) -> str | None:
    """The newest tag that HEAD descends from, or None."""
    tags = git("tag", "--merged", "HEAD", "--sort=-creatordate", root=root).split()
    return tags[0] if tags else None


def commit_that_added(file: str, root: Path = ROOT) -> str | None:
    """The oldest commit in which this file appears, or None where it is not committed."""
    commits = git("log", "--diff-filter=A", "--format=%H", "--", file, root=root).split()
    return commits[-1] if commits else None


def text_at(revision: str, file: str, root: Path = ROOT) -> str | None:
    """The text of a file in a commit, or None where the commit does not have it."""
    names = git("ls-tree", "--name-only", revision, "--", file, root=root)
    return git("show", f"{revision}:{file}", root=root) if names else None
