"""scripts/release on a clone: what it writes, commits and tags, and what it refuses, each in one sentence."""

import datetime
import re
import shutil
import subprocess

import pytest

from tests.conftest import ROOT
from tests.host.archives import make_key, signers_of

COPIED = (
    "host",
    "scripts",
    "docker/uv-requirements.in",
    "VERSION",
    "compose.yaml",
    "CHANGELOG.md",
    "CHANGELOG.zh-CN.md",
)
CHANGELOGS = {"CHANGELOG.md": "## [Unreleased]", "CHANGELOG.zh-CN.md": "## [未发布]"}
TODAY = datetime.date.today


class Clone:
    """A repository on main with what scripts/release needs; its scripts/check passes or fails as it is told."""

    def __init__(self, folder):
        self.root = folder
        for name in COPIED:
            source, target = ROOT / name, folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
        for name, heading in CHANGELOGS.items():
            self.write(
                name, f"# Changes\n\n{heading}\n\n### Added\n\n- One thing.\n\n## [1.2.0] - 2026-01-02\n\n- Old.\n"
            )
        self.write("VERSION", "1.2.0\n")
        self.write("scripts/check", "#!/bin/sh\nexit 0\n")
        self.git("init", "--quiet", "--initial-branch=main")
        for name, value in (("user.name", "T"), ("user.email", "t@example.com"), ("commit.gpgsign", "false")):
            self.git("config", name, value)
        self.commit("Begin")

    def git(self, *arguments) -> str:
        done = subprocess.run(["git", *arguments], cwd=self.root, check=True, capture_output=True, text=True)
        return done.stdout

    def write(self, name, text) -> None:
        (self.root / name).write_text(text)

    def read(self, name) -> str:
        return (self.root / name).read_text()

    def commit(self, subject) -> None:
        self.git("add", ".")
        self.git("commit", "--quiet", "--message", subject)

    def release(self, *arguments) -> subprocess.CompletedProcess:
        return subprocess.run([self.root / "scripts/release", *arguments], capture_output=True, text=True)


@pytest.fixture
def clone(tmp_path):
    return Clone(tmp_path / "clone")


def test_a_version_is_written_committed_and_tagged(clone):
    done = clone.release("1.3.0")
    assert done.returncode == 0, done.stderr
    assert "git push origin main v1.3.0" in done.stdout
    assert clone.read("VERSION") == "1.3.0\n"
    assert set(re.findall(r"\{LINGBI_VERSION:-([^}]*)", clone.read("compose.yaml"))) == {"1.3.0"}
    for name, heading in CHANGELOGS.items():
        section = f"{heading}\n\n## [1.3.0] - {TODAY().isoformat()}\n\n### Added\n\n- One thing.\n\n## [1.2.0]"
        assert section in clone.read(name)
    assert clone.git("status", "--porcelain") == ""
    assert clone.git("log", "--format=%s", "-1") == "Version 1.3.0\n"
    assert clone.git("cat-file", "-t", "v1.3.0") == "tag\n"
    assert clone.git("rev-parse", "v1.3.0^{commit}") == clone.git("rev-parse", "HEAD")


def test_a_tag_is_signed_for_those_who_trust_the_key(clone, tmp_path):
    release, stranger = (make_key(tmp_path, name) for name in ("release", "stranger"))
    done = clone.release("1.3.0", "--key", release)
    assert done.returncode == 0, done.stderr

    def verify(key):
        trusted = ("-c", f"gpg.ssh.allowedSignersFile={signers_of(key)}")
        return subprocess.run(["git", *trusted, "verify-tag", "v1.3.0"], cwd=clone.root, capture_output=True, text=True)

    assert verify(release).returncode == 0 and 'Good "git" signature for release@lab' in verify(release).stderr
    assert verify(stranger).returncode != 0


def test_a_tag_that_cannot_be_signed_leaves_no_version_behind(clone, tmp_path):
    """A key that fails at once, and one that its agent gives up between the trial and the tag."""
    key = make_key(tmp_path, "release")
    clone.git("config", "gpg.ssh.program", "/bin/false")
    before = clone.git("log", "--format=%H")
    done = clone.release("1.3.0", "--key", key)
    assert done.returncode == 2 and "git tag failed: " in done.stderr, done.stderr
    key.write_text("no key")
    assert "ssh-keygen does not sign with it" in clone.release("1.3.0", "--key", key).stderr
    assert (clone.git("log", "--format=%H"), clone.git("tag"), clone.git("status", "--porcelain")) == (before, "", "")
    assert clone.read("VERSION") == "1.2.0\n"


def test_sections_that_are_written_already_stay(clone):
    for name, heading in CHANGELOGS.items():
        text = clone.read(name).replace(heading, f"{heading}\n\n## [2.0.0] - 2026-03-04")
        clone.write(name, text)
    clone.commit("What is new in 2.0.0")
    before = {name: clone.read(name) for name in CHANGELOGS}
    done = clone.release("2.0.0")
    assert done.returncode == 0, done.stderr
    assert {name: clone.read(name) for name in CHANGELOGS} == before
    assert clone.git("show", "--name-only", "--format=", "v2.0.0^{commit}") == "VERSION\ncompose.yaml\n"


def test_a_dry_run_changes_nothing(clone):
    done = clone.release("1.3.0", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "v1.3.0 can be made" in done.stdout and "nothing was changed" in done.stdout
    assert clone.read("VERSION") == "1.2.0\n"
    assert clone.git("tag") == "" and clone.git("log", "--format=%s") == "Begin\n"


def with_branch(clone):
    clone.git("switch", "--quiet", "--create", "other")


def with_change(clone):
    clone.write("CHANGELOG.md", "")


def with_new_file(clone):
    clone.write("host/new.py", "")


def with_failing_check(clone):
    clone.write("scripts/check", "#!/bin/sh\necho 'this is wrong'\nexit 1\n")
    clone.commit("Break")


def with_tag(clone):
    clone.git("tag", "v1.4.0")


def with_nothing_new(clone):
    for name in CHANGELOGS:
        clone.write(name, clone.read(name).replace("- One thing.\n", ""))
    clone.commit("Nothing")


def with_one_language(clone):
    name = "CHANGELOG.zh-CN.md"
    clone.write(name, clone.read(name).replace("- One thing.\n", ""))
    clone.commit("English only")


def with_hook(clone):
    hook = clone.root / ".git/hooks/commit-msg"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho 'the hook says no' >&2\nexit 1\n")
    hook.chmod(0o755)


@pytest.mark.parametrize(
    ("prepare", "version", "said"),
    [
        (None, "1.3", "'1.3' is no version; give three numbers"),
        (None, "v1.3.0", "'v1.3.0' is no version"),
        (None, "1.02.0", "'1.02.0' is no version"),
        (None, "1.2.0", "1.2.0 is not greater than 1.2.0"),
        (None, "1.1.9", "1.1.9 is not greater than 1.2.0"),
        (with_tag, "1.3.0", "1.3.0 is not greater than 1.4.0"),
        (with_branch, "1.3.0", "this is the branch 'other', and versions are made of main"),
        (with_change, "1.3.0", "CHANGELOG.md is not committed (1 in all)"),
        (with_new_file, "1.3.0", "host/new.py is not committed (1 in all)"),
        (with_nothing_new, "1.3.0", "CHANGELOG.md has nothing under '## [Unreleased]'"),
        (with_one_language, "1.3.0", "CHANGELOG.zh-CN.md has nothing under '## [未发布]'"),
        (with_failing_check, "1.3.0", "scripts/check does not pass"),
        (with_hook, "1.3.0", "git commit failed: the hook says no"),
    ],
)
def test_what_is_not_ready_is_refused_in_a_sentence_and_nothing_changes(clone, prepare, version, said):
    if prepare:
        prepare(clone)
    before = clone.git("log", "--format=%H"), clone.git("tag"), clone.git("status", "--porcelain")
    done = clone.release(version)
    assert done.returncode == 2, done.stdout
    assert f"error: {said}" in done.stderr
    assert len(done.stderr.partition("error: ")[2].splitlines()) == 1
    assert (clone.git("log", "--format=%H"), clone.git("tag"), clone.git("status", "--porcelain")) == before
    assert clone.read("VERSION") == "1.2.0\n"
