"""mypy's verdict, with the list of modules that are not clean yet."""

import pytest

from checks import types

PYPROJECT = """
[tool.mypy]
strict = true
mypy_path = ["code"]
packages = ["parts"]

[[tool.mypy.overrides]]
module = ["parts.old"]
ignore_errors = true
"""
CLEAN, UNTYPED = "def f(x: int) -> int:\n    return x\n", "def f(x):\n    return x\n"


@pytest.fixture
def project(tmp_path):
    """A project whose only listed module, parts.old, is not clean, as it should be."""
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    folder = tmp_path / "code/parts"
    folder.mkdir(parents=True)
    for name, text in {"__init__": "", "old": UNTYPED, "new": CLEAN}.items():
        (folder / f"{name}.py").write_text(text)
    return tmp_path


def test_errors_of_listed_modules_are_let_pass(project, capsys):
    assert types.main([], project) == 0
    assert types.main(["--list"], project) == 0
    assert capsys.readouterr().out == '    "parts.old",\n'


@pytest.mark.parametrize(
    ("module", "text", "said"),
    [
        ("new", UNTYPED, "code/parts/new.py:1: error: Function is missing a type annotation"),
        ("__init__", UNTYPED, "code/parts/__init__.py:1: error: Function is missing a type annotation"),
        ("old", CLEAN, "parts.old has no errors: take it off mypy's list"),
    ],
)
def test_an_error_elsewhere_fails_and_a_clean_listed_module_too(project, capsys, module, text, said):
    (project / "code/parts" / f"{module}.py").write_text(text)
    assert types.main([], project) == 1
    assert said in capsys.readouterr().out


def test_what_mypy_cannot_judge_is_no_success(project):
    (project / "code/parts/new.py").write_text("def f(:\n")
    with pytest.raises(SystemExit, match="Invalid syntax"):
        types.main([], project)
