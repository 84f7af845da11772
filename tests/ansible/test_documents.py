"""The documents beside the playbooks: what they name is there, and both languages say the same."""

import re

import pytest
import yaml

from tests.ansible import roles, variables
from tests.ansible.plugins import load

upstreams = load("library/gateway_upstreams.py")
LANGUAGES = ("", ".zh-CN")


def read(name):
    return (variables.ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_overview_lists_each_playbooks_parts_in_their_order(language):
    rows = dict(re.findall(r"^\| `(\w+)\.yml` \| [^|]+ \| (.*) \|$", read(f"ansible/README{language}.md"), re.M))
    assert set(rows) == {file.stem for file in roles.ANSIBLE.glob("*.yml")}
    for playbook, parts in rows.items():
        plays = yaml.safe_load((roles.ANSIBLE / f"{playbook}.yml").read_text())
        imports = [play["ansible.builtin.import_playbook"] for play in plays if "hosts" not in play]
        assert [f"playbooks/{part}.yml" for part in re.findall(r"`(\w+)`", parts)] == imports


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_overview_leads_to_every_role(language):
    linked = re.findall(
        rf"\[`(\w+)`\]\(roles/(\w+)/README{re.escape(language)}\.md\)", read(f"ansible/README{language}.md")
    )
    assert sorted(linked) == [(role, role) for role in roles.ROLES]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_sequence_names_files_and_variables_that_are_there(language):
    text = read(f"docs/rollout-sequence{language}.md")
    files = re.findall(r"`((?:ansible/)?(?:roles|library|module_utils|playbooks)/[\w/.]+)`", text)
    assert len(files) > 10
    missing = [name for name in files if not (roles.ANSIBLE / name.removeprefix("ansible/")).is_file()]
    assert missing == []
    assert set(re.findall(r"`(lingbi_\w+)`", text)) <= set(variables.options())


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_sequence_tells_the_bounds_that_the_modules_have(language):
    rows = dict(re.findall(r"^\| (\w+) \| (.*) \|$", read(f"docs/rollout-sequence{language}.md"), re.M))
    docker = upstreams.docker
    told = {name: [int(seconds) for seconds in re.findall(r"(\d+) s\b", row)] for name, row in rows.items()}
    assert told["drain"] == [upstreams.LOCK_WAIT_S, docker.COMMAND_S]
    assert told["ready"] == [docker.COMMAND_S + docker.MARGIN_S]
    assert told["prune"] == [docker.COMMAND_S]


@pytest.mark.parametrize("name", ["docs/rollout-sequence", "ansible/README"])
def test_both_languages_have_the_same_shape(name):
    english, chinese = (read(f"{name}{language}.md") for language in LANGUAGES)
    for pattern in (r"^#+ ", r"^```", r"^- ", r"^\|", r"`[\w./-]+`", r"\d+ s\b"):
        assert sorted(re.findall(pattern, english, re.M)) == sorted(re.findall(pattern, chinese, re.M)), pattern
