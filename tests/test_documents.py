"""What the documents point to is there: files in backticks, links, and the paths within commands."""

import datetime
import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

# The changelogs tell of files as they were.
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in (".", "docs", "ansible", "docker", "monitoring", "training")
    for path in (ROOT.glob("*.md") if folder == "." else (ROOT / folder).rglob("*.md"))
    if "CHANGELOG" not in path.name
)
CODE = re.compile(r"`((?:[\w.-]+/)+[\w.-]+\.(?:py|sh|conf|toml|json|ya?ml|md|svg))`")
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)")
COMMAND = re.compile(r"(?<![\w/.-])((?:scripts|tests|ansible|docs)/[\w./-]*\w)")
END = re.compile(r"""(?:--until |"ends_at": ")(20\d\d)-""")
YEARS = 5  # for which a copied command goes on to work
BASES = (ROOT, ROOT / "docker/server/lingbi", ROOT / "ansible")
MADE_LATER = {"run/server.json", ".lingbi/lock.json", "ansible/inventory.yml", "ansible/lab.yml"}


def commands(text: str) -> str:
    return "\n".join(re.findall(r"```bash\n(.*?)```", text, re.S))


def missing(document: str) -> list[str]:
    file = ROOT / document
    text = file.read_text(encoding="utf-8")
    named = [name for name in CODE.findall(text) if not any((base / name).exists() for base in (*BASES, file.parent))]
    linked = [name for name in LINK.findall(text) if not (file.parent / name).exists()]
    run = [name for name in COMMAND.findall(commands(text)) if not (ROOT / name).exists()]
    return sorted({*named, *linked, *run} - MADE_LATER)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_everything_it_points_to_is_there(document):
    assert missing(document) == []


def test_documents_are_found():
    assert {"README.md", "docs/architecture.zh-CN.md", "ansible/README.md"} <= set(DOCUMENTS)


def test_a_path_that_is_not_there_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.test_documents.ROOT", tmp_path)
    text = "`engines/heap.py` [x](gone.md) [y](https://example.org/z.md)\n```bash\nscripts/gone tests/gone.py\n```\n"
    Path(tmp_path / "page.md").write_text(text)
    assert missing("page.md") == ["engines/heap.py", "gone.md", "scripts/gone", "tests/gone.py"]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_keys_in_its_commands_end_in_years_to_come(document):
    """A date that is past is refused, and so would be a command that somebody copies."""
    lines = commands((ROOT / document).read_text(encoding="utf-8")).splitlines()
    ends = [int(year) for line in lines if "scripts/usage" not in line for year in END.findall(line)]
    assert all(year > datetime.date.today().year + YEARS for year in ends), ends
