"""A commit's subject is a line that fits: at most 72 characters.

As git's commit-msg hook it judges the message in a file (`python -m checks.commit_subjects FILE`), else every commit since
the last release.
"""

from __future__ import annotations

import sys
from pathlib import Path

from checks.history import ROOT, commits_since

MOST_CHARACTERS = 72
RULE = "checks/commit_subjects.py"


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Print what is wrong; returns the exit status."""
    wrong = wrong_message(Path(arguments[0]).read_text(encoding="utf-8")) if arguments else wrong_commits(root)
    for line in wrong:
        print(line)
    return 1 if wrong else 0


def wrong_message(message: str) -> list[str]:
    """What is wrong with a message that git has in hand; comments (#) are not part of it."""
    lines = [line for line in message.splitlines() if line.strip() and not line.startswith("#")]
    return fault_of(lines[0], "this commit") if lines else []


def wrong_commits(root: Path) -> list[str]:
    """What is wrong with the commits since the last release, or since this rule."""
    commits = commits_since(RULE, root)
    return [fault for commit in commits for fault in fault_of(commit.subject, f"commit {commit.id[:9]}")]


def fault_of(subject: str, whose: str) -> list[str]:
    """A sentence where a subject is too long, with the remedy; else nothing."""
    if len(subject) <= MOST_CHARACTERS:
        return []
    return [
        f"The subject of {whose} has {len(subject)} characters, and at most {MOST_CHARACTERS} fit; "
        f"shorten it (git commit --amend, git rebase -i) and move the why to the body: {subject!r}"
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
