"""The repository keeps its own rules: lint, format, and what must not stand in it."""

import re
import subprocess

import pytest
import yaml

from tests.conftest import ROOT

HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
CHECKS = [
    hook for repo in HOOKS["repos"] for hook in repo["hooks"] if "manual" in hook.get("stages", HOOKS["default_stages"])
]


def tracked_text(*patterns: str) -> dict:
    """{path: text} of the files that git would commit."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    files = [ROOT / name for name in names if name and not name.endswith((".bin", ".model", ".png"))]
    return {file: file.read_text() for file in files if file.is_file()}


@pytest.mark.parametrize("check", [hook["id"] for hook in CHECKS])
def test_the_tree_passes(check):
    """As scripts/check says, which is what is run here: neither can judge otherwise than the other."""
    done = subprocess.run([ROOT / "scripts/check", check], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Skipped" not in done.stdout, done.stdout  # it has something to judge


def test_no_check_is_fetched():
    assert [repo["repo"] for repo in HOOKS["repos"]] == ["local"]
    assert {hook["language"] for repo in HOOKS["repos"] for hook in repo["hooks"]} == {"system"}
    for hook in CHECKS:
        assert hook["entry"].startswith(".venv-test/bin/"), hook["id"]


def test_every_shell_script_is_checked():
    [shellcheck] = [hook for hook in CHECKS if hook["id"] == "shellcheck"]
    for file, text in tracked_text().items():
        if re.match(r"#!.*\b(ba)?sh\n", text):
            assert re.search(shellcheck["files"], str(file.relative_to(ROOT))), file


def test_shell_scripts_stop_at_errors():
    for file, text in tracked_text("scripts", ".ci").items():
        if text.startswith("#!/usr/bin/env bash"):
            assert "set -euo pipefail" in text or "exec " in text, file


def test_lock_files_name_no_host():
    for file, text in tracked_text("*.lock").items():
        assert not re.search(r"https?://|index-url", text), file
        assert re.search(r"--hash=sha256:", text), file


def test_text_is_as_editors_are_told():
    """What .editorconfig says of every file but those of a model, which the libraries wrote."""
    for file, text in tracked_text(":!docker/server/models").items():
        assert not text or text.endswith("\n"), file
        assert not re.search(r"[ \t\r]$", text, re.M), file


@pytest.mark.parametrize("name", ["README", "CONTRIBUTING", "CHANGELOG", "docs/operations"])
def test_both_languages_have_the_same_shape_and_commands(name):
    english, chinese = ((ROOT / f"{name}{language}.md").read_text() for language in ("", ".zh-CN"))
    for pattern in (r"^#+ ", r"^ *```", r"^\|", r"^- "):
        assert len(re.findall(pattern, english, re.M)) == len(re.findall(pattern, chinese, re.M)), pattern
    assert commands(english) == commands(chinese)
    assert commands(english) or name == "CHANGELOG"


def commands(text: str) -> list:
    """The commands of a document, without their comments and what they ask."""
    blocks = re.findall(r"^ *```bash\n(.*?)^ *```", text, re.M | re.S)
    lines = [line.strip() for block in blocks for line in block.splitlines() if '"text":' not in line]
    return [re.sub(r"\s+# .*", "", line) for line in lines]


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_a_readme_is_short_and_says_how_to_start_and_test(name):
    lines = (ROOT / name).read_text().splitlines()
    assert len(lines) <= 120
    assert [line.split("#")[0].strip() for line in lines if line.startswith("scripts/")] == [
        "scripts/up",
        "scripts/test",
    ]


def test_both_changelogs_tell_of_the_version():
    version = (ROOT / "VERSION").read_text().strip()
    for name in ("CHANGELOG.md", "CHANGELOG.zh-CN.md"):
        found = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d$", (ROOT / name).read_text(), re.M)
        assert found[0] == version, name


def test_committed_demo_weights_are_small():
    assert (ROOT / "docker/server/models/demo/pytorch_model.bin").stat().st_size < 8_000_000


def test_tests_run_in_their_groups(request):
    """pytest-xdist names a test's group here; where pytest has no such attribute, each process makes a lab of its own."""
    assert request.node._nodeid.startswith("tests/test_style.py::")
