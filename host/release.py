"""scripts/release: make a version from what is committed: VERSION, Compose's default, both changelogs, a commit and a tag. No push."""

from __future__ import annotations

import argparse
import datetime
import re
import subprocess
import sys
from pathlib import Path

from host.bundle import signature
from host.env_file import ROOT
from host.errors import Refusal
from host.machine import run

BRANCH = "main"
COMPOSE, COMPOSE_DEFAULT = "compose.yaml", re.compile(r"(\$\{LINGBI_VERSION:-)[^}]*(\})")
VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")
UNRELEASED = {"CHANGELOG.md": "## [Unreleased]", "CHANGELOG.zh-CN.md": "## [未发布]"}


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 released (with --dry-run: a release is possible), 2 refused and nothing was changed."""
    options = parse(arguments)
    tag = f"v{options.version}"
    try:
        check_version(options.version, known_versions())
        check_repository(tag)
        files = written(options.version, datetime.date.today())
        if options.key:
            signature.sign(b"", options.key)  # a key that cannot sign is told before anything is committed
        check_style()
        if not options.dry_run:
            release(files, options.version, tag, options.key)
    except Refusal as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    print(told(list(files), tag, options.dry_run))
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/release", description=__doc__.split(": ", 1)[1].capitalize())
    parser.add_argument("version", help="the new version, as in 1.2.0")
    parser.add_argument("--key", type=Path, help="key to sign the tag with (scripts/signature new-key)")
    parser.add_argument("--dry-run", action="store_true", help="check everything, and change nothing")
    return parser.parse_args(arguments)


def check_version(version: str, known: list[str]) -> None:
    """Raise Refusal unless it is a version greater than all known ones."""
    if not VERSION.fullmatch(version):
        raise Refusal(f"{version!r} is no version; give three numbers, as in 1.2.0")
    last = max(known, key=numbers)
    if numbers(version) <= numbers(last):
        raise Refusal(f"{version} is not greater than {last}, the last version; give a greater one")


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def known_versions() -> list[str]:
    """The version in VERSION, and the tagged ones."""
    tags = git("tag", "--list", "v*").split()
    return [(ROOT / "VERSION").read_text(encoding="utf-8").strip()] + [
        tag[1:] for tag in tags if VERSION.fullmatch(tag[1:])
    ]


def check_repository(tag: str) -> None:
    """Raise Refusal unless everything is committed on the branch from which versions are made."""
    branch = git("branch", "--show-current").strip()
    if branch != BRANCH:
        raise Refusal(
            f"this is the branch {branch or '(none)'!r}, and versions are made of {BRANCH}: git switch {BRANCH}"
        )
    changed = git("status", "--porcelain").splitlines()
    if changed:
        raise Refusal(f"{changed[0][3:]} is not committed ({len(changed)} in all); commit or stash what you changed")


def written(version: str, today: datetime.date) -> dict[str, str]:
    """{file: its new text}, without files that do not change. Raises Refusal."""
    texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in UNRELEASED}
    after = {name: with_section(text, name, version, today) for name, text in texts.items()}
    changed = {name: text for name, text in after.items() if text != texts[name]}
    compose = COMPOSE_DEFAULT.sub(rf"\g<1>{version}\g<2>", (ROOT / COMPOSE).read_text(encoding="utf-8"))
    return {"VERSION": f"{version}\n", COMPOSE: compose, **changed}


def with_section(text: str, name: str, version: str, today: datetime.date) -> str:
    """A changelog with a section for the version: its own, or else the unreleased one. Raises Refusal."""
    if re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", text, re.M):
        return text
    heading = UNRELEASED[name]
    before, found, after = text.partition(f"\n{heading}\n")
    if not re.search(r"^- ", after.partition("\n## ")[0], re.M):
        raise Refusal(f"{name} has nothing under {heading!r}; write there what is new in {version}")
    return f"{before}{found}\n## [{version}] - {today.isoformat()}\n{after}"


def check_style() -> None:
    """Raise Refusal unless scripts/check passes, which prints what is wrong."""
    if subprocess.run([str(ROOT / "scripts/check")], stdout=sys.stderr).returncode:
        raise Refusal("scripts/check does not pass; see the lines above, and commit a fix")


def release(files: dict[str, str], version: str, tag: str, key: Path | None) -> None:
    """Write the files, commit them and tag the commit. If one of them fails, restore what was there and raise Refusal."""
    for name, text in files.items():
        (ROOT / name).write_text(text, encoding="utf-8")
    try:
        git("commit", "--quiet", "--message", f"Version {version}", "--", *files)
    except Refusal:
        git("restore", "--staged", "--worktree", "--", *files)
        raise
    try:
        make_tag(tag, f"lingbi {version}", key)
    except Refusal:
        git("reset", "--quiet", "--hard", "HEAD~1")  # everything else was committed before
        raise


def make_tag(tag: str, message: str, key: Path | None) -> None:
    """Tag the commit, signed where there is a key. Raises Refusal, and then there is no tag."""
    how = [*signature.tag_options(key), "tag", "--sign"] if key else ["tag", "--annotate"]
    git(*how, "--message", message, tag)
    # git 2.39 makes an unsigned tag, and ends well, where ssh-keygen fails.
    if key and "-----BEGIN SSH SIGNATURE-----" not in git("cat-file", "tag", tag):
        git("tag", "--delete", tag)
        raise Refusal(f"git tag failed: {tag} was not signed with {key}; nothing was changed")


def git(*arguments: str) -> str:
    """The output of a git command. Raises Refusal with git's error message."""
    done = run("git", "-C", str(ROOT), *arguments)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise Refusal(f"git {arguments[0]} failed: {said or f'exit status {done.returncode}'}")
    return done.stdout


def told(files: list[str], tag: str, is_dry: bool) -> str:
    """What was done, or would be done, and what is left to do."""
    names = ", ".join(files)
    if is_dry:
        return f"{tag} can be made: it would write {names}, commit them and tag the commit; nothing was changed"
    return f"{tag} is committed and tagged ({names}); look at it with `git show {tag}`, then: git push origin {BRANCH} {tag}"


if __name__ == "__main__":
    sys.exit(main())
