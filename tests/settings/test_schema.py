"""One list of all settings: as the classes declare them, in both languages, and what the documents show."""

import dataclasses
import inspect
import json
import re

import pytest
import yaml
from jsonschema import Draft202012Validator

import host.schema
import lingbi.settings
import lingbi_gateway.settings
import lingbi_ui.settings
from host.bundle import make as bundle
from lingbi import deployment
from lingbi.launch import up
from settings import schema, tables
from settings.schema import ROOT, Untranslated, with_chinese

COMMITTED = json.loads(schema.FILE.read_text())
SETTINGS = COMMITTED["properties"]


def test_the_committed_schema_is_what_the_classes_say():
    assert schema.FILE.read_text() == schema.text(schema.schema()), "run: scripts/settings"
    assert schema.PARTS.read_text() == schema.text(schema.of_other_parts(schema.schema())), "run: scripts/settings"


@pytest.mark.parametrize("name", tables.PAGES)
def test_the_documents_hold_the_tables_of_the_schema(name):
    text = (ROOT / name).read_text()
    assert tables.written(text, COMMITTED, tables.PAGES[name]) == text, "run: scripts/settings"


def declared() -> set:
    """Every setting, asked of the classes by other means than the schema's."""
    fields = {f"LINGBI_{name.upper()}" for name in lingbi.settings.Settings.model_fields}
    fields |= {f"LINGBI_UI_{name.upper()}" for name in lingbi_ui.settings.Settings.model_fields}
    fields |= {f"LINGBI_GATEWAY_{item.name.upper()}" for item in dataclasses.fields(lingbi_gateway.settings.Settings)}
    return fields | deployment.NAMES


def test_every_declared_setting_is_in_the_schema():
    assert SETTINGS.keys() == declared()


@pytest.mark.parametrize("name", tables.PAGES)
def test_the_documents_name_every_setting_once(name):
    rows = re.findall(r"^\| `(LINGBI_\w+)`", (ROOT / name).read_text(), re.M)
    assert sorted(rows) == sorted(declared())


def test_it_is_a_schema_that_its_own_defaults_satisfy():
    Draft202012Validator.check_schema(COMMITTED)
    defaults = {name: found["default"] for name, found in SETTINGS.items() if "default" in found}
    assert defaults["LINGBI_PORT"] == 23333 and defaults["LINGBI_GATEWAY_PORT"] == 6006
    Draft202012Validator(COMMITTED).validate(defaults)
    wrong = {"LINGBI_PORT": 0, "LINGBI_MODLE": "demo", "LINGBI_GATEWAY_TLS": "yes", "LINGBI_CACHE_FRACTION": 1}
    found = list(Draft202012Validator(COMMITTED).iter_errors(wrong))
    assert len(found) == len(wrong), found


def test_what_the_containers_fix_is_what_compose_gives_and_supervisor():
    places = [*yaml.safe_load((ROOT / "compose.yaml").read_text())["x-places"], "LINGBI_PLAIN_KEYS_DIR"]
    numbered = re.findall(r"^environment=(LINGBI_\w+)=", (ROOT / "docker/server/supervisord.conf").read_text(), re.M)
    by_the_start = ["LINGBI_PLACEMENT_FILE"]
    assert {name for name, found in SETTINGS.items() if found.get("x-fixed")} == {*places, *numbered, *by_the_start}


def test_defaults_of_this_machine_are_told_in_words():
    text = schema.FILE.read_text()
    assert [name for name, found in SETTINGS.items() if str(found.get("default", "")).startswith("/")] == []
    assert str(ROOT) not in text and "/tmp" not in text and "/root" not in text


def test_options_are_those_of_scripts_up():
    shown = {found["x-option"] for found in SETTINGS.values() if "x-option" in found}
    assert shown == {"--model", "--engine", "--host", "--port"}
    for option in shown:
        assert vars(up.parse([option, "1"] if option != "--engine" else [option, "cpu"]))[option[2:]] is not None


@pytest.mark.parametrize(
    ("chinese", "said"),
    [
        ({}, "has no translation of 'how many'"),
        ({"how many": "多少", "how few": "多少"}, "translates 'how few', which no"),
    ],
)
def test_a_missing_translation_and_one_of_nothing_are_named(chinese, said):
    with pytest.raises(Untranslated, match=said):
        with_chinese({"LINGBI_X": {"description": "how many"}}, chinese)


def test_each_program_says_the_same_of_a_misspelt_name():
    """The images have only their own folders, so each has its copy; host/ and Ansible share one."""
    modules = (host.schema, lingbi.settings, lingbi_ui.settings, lingbi_gateway.settings)
    assert len({inspect.getsource(module.remedy) for module in modules}) == 1
    assert host.schema.remedy("LINGBI_MODLE", declared()) == "did you mean LINGBI_MODEL?"
    assert host.schema.remedy("X", declared()) == "remove it"


def test_a_machine_reads_it_without_anything_installed():
    told = {setting.name: setting for setting in host.schema.declared()}
    assert told["LINGBI_PORT"] == ("LINGBI_PORT", "server", "23333", "port of worker 0; worker i adds i", True, "")
    assert told["LINGBI_PICTURE_URLS"].default == "true" and told["LINGBI_VERSION"].default is None
    assert schema.FILE in bundle.files()


def test_both_documents_have_the_same_shape():
    english, chinese = ((ROOT / name).read_text() for name in tables.PAGES)
    for pattern in (r"^#+ ", r"^```", r"^\|", r"^<!-- \w+"):
        assert len(re.findall(pattern, english, re.M)) == len(re.findall(pattern, chinese, re.M)), pattern
