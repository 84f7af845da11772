"""docs/architecture.md is true to the code: what it names is there, and both languages say the same."""

import ast
import json
import re
from pathlib import Path

import pytest
import tomli

from lingbi import api_errors
from tests.conftest import ROOT

PAGES = ("docs/architecture.md", "docs/architecture.zh-CN.md")
PICTURES = ("docs/architecture.svg", "docs/architecture.zh-CN.svg")
PACKAGE = ROOT / "docker/server/lingbi"
# Of what stands in backticks: a path has a folder or a known ending; a name within it may follow a colon.
PLACE = re.compile(r"(?P<path>(?:[\w.-]+/)+[\w.-]*|[\w.-]+\.(?:py|md|toml|ya?ml|json|svg))(?::(?P<name>\w[\w.]*))?")
MADE_LATER = {"run/server.json"}
PORTS = ("LINGBI_GATEWAY_PORT", "LINGBI_GATEWAY_INNER_PORT", "LINGBI_PORT", "LINGBI_UI_PORT")
SCHEMA = json.loads((ROOT / "settings/schema.json").read_text())["properties"]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def code_words(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", text)


def places(text: str) -> list[tuple[str, str | None]]:
    """(path, name in it or None) of each place that a text names."""
    found = [PLACE.fullmatch(word) for word in code_words(text)]
    return [(match["path"], match["name"]) for match in found if match and match["path"] not in MADE_LATER]


def find_fault(path: str, name: str | None) -> str | None:
    """Why a place is not there, or None."""
    found = [base / path for base in (ROOT, PACKAGE) if (base / path).exists()]
    if len(found) != 1:
        return f"{path}: {len(found)} of it are there"
    if name and name not in names_in(found[0]):
        return f"{path} has no {name}"
    return None


def names_in(file: Path) -> set[str]:
    """What a file declares, members of classes as Class.member; of one that is not Python, its words."""
    text = file.read_text(encoding="utf-8")
    return set(declared(ast.parse(text).body)) if file.suffix == ".py" else set(re.findall(r"\w+", text))


def declared(body: list[ast.stmt], prefix: str = ""):
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield prefix + node.name
        if isinstance(node, ast.ClassDef):
            yield from declared(node.body, f"{node.name}.")
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        yield from (prefix + target.id for target in targets if isinstance(target, ast.Name))


def rows(text: str) -> list[list[str]]:
    """The cells of each table row."""
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]


@pytest.mark.parametrize("page", PAGES)
def test_every_place_is_there(page):
    named = places(read(page))
    assert len(named) > 100
    assert [fault for place in named if (fault := find_fault(*place))] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_answer_of_the_index_names_a_place_in_a_file(page):
    [index] = re.findall(r"^## (?:Where it is decided|在哪里决定)\n(.*?)^## ", read(page), re.M | re.S)
    answers = [row[1] for row in rows(index)[2:]]
    assert len(answers) > 20
    assert [answer for answer in answers if not any(name for _, name in places(answer))] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_setting_exists(page):
    assert {word for word in code_words(read(page)) if word.startswith("LINGBI_")} - set(SCHEMA) == set()


@pytest.mark.parametrize("page", PAGES)
def test_every_refusal_of_a_worker_is_told_with_its_status(page):
    refusals = {(str(kind.status), kind.__name__) for kind in api_errors.Refusal.__subclasses__()}
    assert set(re.findall(r"\b(\d{3}) `([A-Z]\w+)`", read(page))) == refusals


@pytest.mark.parametrize("page", PAGES)
def test_the_packages_are_the_layers_of_the_import_contract(page):
    contracts = tomli.loads(read("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    [contract] = [contract for contract in contracts if contract["type"] == "layers"]
    [table] = re.findall(r"^## (?:Packages|包)\n(.*?)^## ", read(page), re.M | re.S)
    told = [re.findall(r"`(\w+)`", cells[0]) for cells in rows(table)]
    layers = [layer.split(" | ") for layer in contract["layers"]]
    assert [names for names in told if names] == layers


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page):
    targets = re.findall(r"\]\(([^)#]+)", read(page))
    assert len(targets) > 4
    assert [target for target in targets if not (ROOT / page).parent.joinpath(target).is_file()] == []


def test_both_languages_name_the_same_and_have_the_same_shape():
    english, chinese = map(read, PAGES)
    assert sorted(code_words(english)) == sorted(code_words(chinese))
    for pattern in (r"^#+ ", r"^- \*\*", r"^\d+\. ", r"^\| "):
        assert len(re.findall(pattern, english, re.M)) == len(re.findall(pattern, chinese, re.M)), pattern


@pytest.mark.parametrize("page", PAGES)
def test_a_page_stays_short(page):
    assert len(read(page).splitlines()) <= 240


def test_both_pictures_differ_in_words_only():
    english, chinese = (re.sub(r"(<text[^>]*>)[^<]*", r"\1", read(name)) for name in PICTURES)
    assert english == chinese


@pytest.mark.parametrize("picture", PICTURES)
def test_the_pictures_ports_are_the_settings_defaults(picture):
    told = {int(port) for port in re.findall(r":(\d{4,5})\b", read(picture))}
    assert told == {SCHEMA[name]["default"] for name in PORTS}
