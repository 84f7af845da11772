"""Rules that are about commits: a subject that fits, and a list of untyped modules that only shrinks."""

import subprocess

import pytest

from checks import commit_subjects, untyped
from checks.history import commits_since

LONG = "x" * (commit_subjects.MOST_CHARACTERS + 1)


class Repository:
    """A git repository of a test, with the files that the rules came with."""

    def __init__(self, folder):
        self.folder = folder
        self.git("init", "--quiet", "--initial-branch=main")
        self.commit("The rules come", **{commit_subjects.RULE: "", untyped.RULE: "", untyped.FILE: pyproject("a", "b")})

    def git(self, *arguments):
        options = ("-c", "user.name=T", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *options, *arguments], cwd=self.folder, check=True, capture_output=True)

    def write(self, **files):
        for name, text in files.items():
            (self.folder / name).parent.mkdir(exist_ok=True)
            (self.folder / name).write_text(text)

    def commit(self, subject, **files):
        self.write(**files)
        self.git("add", ".")
        self.git("commit", "--quiet", "--allow-empty", "--message", subject)


@pytest.fixture
def repository(tmp_path):
    return Repository(tmp_path)


def pyproject(*modules) -> str:
    return f"[tool.mypy]\n[[tool.mypy.overrides]]\nmodule = {list(modules)}\nignore_errors = true\n"


def test_commits_before_the_rule_are_not_judged(repository):
    assert commits_since(commit_subjects.RULE, repository.folder) == []
    repository.commit("One more")
    assert [commit.subject for commit in commits_since(commit_subjects.RULE, repository.folder)] == ["One more"]


def test_commits_beside_the_rule_are_not_judged(tmp_path):
    repository = Repository(tmp_path)
    repository.git("switch", "--quiet", "--orphan", "beside")
    repository.commit(LONG, beside="")
    repository.git("switch", "--quiet", "main")
    repository.git("merge", "--quiet", "--allow-unrelated-histories", "--message", "Merge", "beside")
    assert commit_subjects.main([], repository.folder) == 0


def test_a_release_begins_anew(repository, capsys):
    repository.commit(LONG)
    assert commit_subjects.main([], repository.folder) == 1
    assert f"has {len(LONG)} characters, and at most 72 fit" in capsys.readouterr().out
    repository.git("tag", "--annotate", "--message", "1", "v1.0.0")
    assert commit_subjects.main([], repository.folder) == 0


@pytest.mark.parametrize(
    ("message", "is_right"),
    [
        (LONG[1:], True),
        (LONG, False),
        (f"Short\n\n{LONG}\n", True),
        (f"# {LONG}\nShort\n", True),
        (f"\n{LONG}\n", False),
        ("", True),
    ],
)
def test_the_subject_of_a_message_fits(tmp_path, message, is_right):
    file = tmp_path / "COMMIT_EDITMSG"
    file.write_text(message)
    assert commit_subjects.main([str(file)]) == (0 if is_right else 1)


def test_the_list_may_lose_a_module_and_gain_none(repository, capsys):
    repository.commit("Fewer", **{untyped.FILE: pyproject("a")})
    assert untyped.main(repository.folder) == 0
    repository.write(**{untyped.FILE: pyproject("a", "c")})
    assert untyped.main(repository.folder) == 1
    assert "The working tree puts c on mypy's list" in capsys.readouterr().out
    repository.commit("More", **{untyped.FILE: pyproject("a", "c")})
    repository.commit("Something else")
    assert untyped.main(repository.folder) == 1


def test_the_list_begins_with_any_modules(repository):
    repository.commit("No list", **{untyped.FILE: "[tool.other]\n"})
    repository.commit("A list", **{untyped.FILE: pyproject("c")})
    assert untyped.main(repository.folder) == 0


def test_a_merge_may_list_what_either_side_lists(repository):
    repository.git("switch", "--quiet", "--create", "side")
    repository.commit("Without b", **{untyped.FILE: pyproject("a")})
    repository.git("switch", "--quiet", "main")
    repository.commit("Without a", **{untyped.FILE: pyproject("b")})
    repository.git("merge", "--quiet", "--strategy=ours", "side")
    assert untyped.main(repository.folder) == 0
    repository.commit("Both again", **{untyped.FILE: pyproject("a", "b")})
    assert untyped.main(repository.folder) == 1
