"""Every role says what it takes and Ansible holds callers to it; its README says where to begin, in both languages."""

import re

import pytest
import yaml

from tests.ansible import roles, variables
from tests.ansible.play import played

NO_ARGUMENTS = {("lingbi", "variables")}  # it only loads defaults, in every play
CHECKS = ("judge.yml", "report.yml")  # what playbooks begin with
READMES = ("README.md", "README.zh-CN.md")


def test_specs_declare_the_entry_points_that_are_run_and_no_others():
    run = roles.includes(roles.task_files()) - NO_ARGUMENTS
    assert len(run) > 20
    assert run == {(role, entry) for role in roles.ROLES for entry in roles.specs(role)}


@pytest.mark.parametrize("role", roles.ROLES)
def test_a_spec_declares_what_its_role_reads_of_others_and_nothing_else(role):
    """Of others: variables of the inventory and facts of other roles, but for those that the role itself has them set."""
    prefixes = tuple(f"{other}_" for other in roles.ROLES if other != role)
    called = {name for name, _ in roles.includes(roles.role_tasks(role))}
    used, declared = roles.names_used(role), set(roles.arguments(role))
    foreign = {name for name in used if name.startswith(prefixes)}
    assert foreign - set().union(*map(roles.facts, called)) <= declared
    if role != "lingbi":  # its spec declares the variables of all roles
        assert declared <= used


def test_a_variable_has_one_type_in_all_specs():
    kinds = {}
    for role in roles.ROLES:
        for name, option in roles.arguments(role).items():
            kinds.setdefault(name, set()).add((option["type"], option.get("elements")))
    assert {name: found for name, found in kinds.items() if len(found) > 1} == {}
    undeclared = {name for name in kinds if name.startswith("lingbi_")} - set(variables.options())
    assert {name for name in undeclared if not name.startswith("lingbi_run_")} == set()


@pytest.mark.parametrize("role", [role for role in roles.ROLES if role != "lingbi"])
def test_defaults_are_those_of_the_spec(role):
    file = roles.ANSIBLE / f"roles/{role}/defaults/main.yml"
    defaults = yaml.safe_load(file.read_text()) if file.exists() else {}
    told = {name: option["default"] for name, option in roles.arguments(role).items() if "default" in option}
    assert defaults == {name: value for name, value in told.items() if name.startswith(f"{role}_")}
    # A variable of a run has no file of defaults: each use gives the default itself.
    text = "".join(file.read_text() for file in roles.role_tasks(role))
    for name in set(told) - set(defaults):
        uses, with_default = (re.findall(rf"\b{name}\b{end}", text) for end in ("", r" \| default\(false\)"))
        assert told[name] is False and len(uses) == len(with_default) > 0


def attempt(role, entry):
    """A block that runs an entry point and goes on when it fails."""
    call = {"ansible.builtin.include_role": {"name": role, "tasks_from": entry}}
    return {"block": [call], "rescue": [{"ansible.builtin.debug": {"msg": f"refused {role} {entry}"}}]}


def test_ansible_refuses_every_entry_point_without_its_arguments(controller, tmp_path):
    entries = [(role, entry) for role in roles.ROLES for entry in roles.specs(role)]
    play = {"hosts": "localhost", "gather_facts": False, "tasks": [attempt(*names) for names in entries]}
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    done = played(controller, tmp_path, "-i", "localhost,", "-c", "local", tmp_path / "play.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    for role, entry in entries:
        assert f"refused {role} {entry}\n" in done.stdout.replace('"', "")
        required = [name for name, option in roles.specs(role)[entry]["options"].items() if option.get("required")]
        assert f"missing required arguments: {', '.join(sorted(required))}" in done.stdout, (role, entry)


def test_each_playbook_begins_with_a_check_of_the_whole_inventory_and_checks_it_once():
    """What other calls take is a part of that, or comes from the playbooks: there Ansible would check again on every host."""
    for playbook in roles.ANSIBLE.glob("*.yml"):
        first = yaml.safe_load(playbook.read_text())[0]["ansible.builtin.import_playbook"]
        assert first in {f"playbooks/{name}" for name in CHECKS}, playbook
    checks = [file for file in roles.task_files() if file.name in CHECKS]
    for file in checks:
        role, entry, is_held, _ = roles.calls([file])[0]
        assert (role, entry, is_held) == ("lingbi", "main", True)
    others = [file for file in roles.task_files() if file not in checks]
    held = [(role, entry) for role, entry, is_held, _ in roles.calls(others) if is_held]
    assert set(held) == NO_ARGUMENTS


def test_calls_that_ansible_does_not_check_give_what_their_role_takes():
    everywhere = set(variables.options()).union(*map(roles.facts, roles.ROLES))
    unchecked = [call for call in roles.calls(roles.task_files()) if not call[2]]
    assert len(unchecked) > 30
    for role, entry, _, given in unchecked:
        options = roles.specs(role)[entry]["options"]
        required = {name for name, option in options.items() if option.get("required")}
        of_run = {name for name in required if name.startswith("lingbi_run_")}
        assert given <= set(options) and required - everywhere - of_run <= given, (role, entry)


@pytest.mark.parametrize("name", READMES)
@pytest.mark.parametrize("role", roles.ROLES)
def test_a_readme_names_all_entry_points_and_shows_one(role, name):
    text = (roles.ANSIBLE / f"roles/{role}" / name).read_text()
    assert set(re.findall(r"^- `(\w+)`", text, re.M)) - {"variables"} == set(roles.specs(role))
    assert "(meta/argument_specs.yml)" in text
    (example,) = re.findall(r"```yaml\n(.*?)```", text, re.S)
    (task,) = yaml.safe_load(example)
    (call,) = (task[name] for name in roles.INCLUDES if name in task)
    assert call["name"] == role
    options = roles.specs(role).get(call.get("tasks_from", "main"), {"options": {}})["options"]
    assert set(task.get("vars", {})) <= set(options)


@pytest.mark.parametrize("role", roles.ROLES)
def test_both_readmes_of_a_role_have_the_same_shape(role):
    english, chinese = ((roles.ANSIBLE / f"roles/{role}" / name).read_text() for name in READMES)
    for pattern in (r"^#+ .*", r"^- `\w+`", r"`[\w./-]+`"):
        assert sorted(re.findall(pattern, english, re.M)) == sorted(re.findall(pattern, chinese, re.M)), pattern
