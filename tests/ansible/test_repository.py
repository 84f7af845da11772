"""The playbooks as files: lint, variables and their documents, compose files and what they demand."""

import json
import re
import subprocess

import pytest
import yaml

from tests.ansible import roles, variables
from tests.ansible.plugins import load_filters

ANSIBLE = roles.ANSIBLE


def test_ansible_lint_is_content(controller):
    done = subprocess.run(
        [controller / "ansible-lint", "--offline", "--profile", "production", "--strict"],
        cwd=ANSIBLE,
        capture_output=True,
        text=True,
        env={
            "PATH": f"{controller}:/usr/bin:/bin",
            "HOME": "/tmp",
            "NO_COLOR": "1",
            "ANSIBLE_INVENTORY": str(ANSIBLE / "inventory/example.yml"),  # without one every playbook is refused
        },
    )
    assert done.returncode == 0, done.stdout + done.stderr


def known_options(controller, modules):
    """{module: names of its options and their aliases} as the locked Ansible has them."""
    done = subprocess.run(
        [controller / "ansible-doc", "--json", "--type", "module", *modules],
        capture_output=True,
        text=True,
        cwd=ANSIBLE,
        env={"PATH": f"{controller}:/usr/bin:/bin", "HOME": "/tmp", "ANSIBLE_CONFIG": str(ANSIBLE / "ansible.cfg")},
    )
    assert done.returncode == 0, done.stderr
    documents = {name: found["doc"]["options"] for name, found in json.loads(done.stdout).items()}
    return {
        name: {option for key, spec in options.items() for option in (key, *spec.get("aliases", []))}
        for name, options in documents.items()
    }


def test_every_module_gets_only_what_the_locked_ansible_and_our_modules_know(controller):
    """An option of a later Ansible, or one that a module of ours has lost, fails on a host at its first run only."""
    own = {file.stem for file in (ANSIBLE / "library").glob("*.py")}
    used = [
        (file.relative_to(ANSIBLE), name, given[name])
        for file in roles.task_files()
        for task in roles.tasks_in([file])
        for given in (task, task.get("module_defaults", {}))
        for name in given
        if (name in own or name.startswith("ansible.builtin.")) and "import_playbook" not in name
    ]
    assert len(used) > 100
    known = known_options(controller, sorted({name for _, name, _ in used}))
    wrong = [
        f"{file}: {name}: {sorted(unknown)}"
        for file, name, arguments in used
        if isinstance(arguments, dict) and name != "ansible.builtin.set_fact"
        if (unknown := set(arguments) - known[name])
    ]
    assert wrong == []


def test_defaults_and_specs_say_the_same():
    defaults = yaml.safe_load(variables.DEFAULTS.read_text())
    specs = {name: spec["default"] for name, spec in variables.options().items() if not spec.get("required")}
    assert defaults == specs


def test_every_variable_that_is_used_is_declared_and_the_other_way_round():
    text = "\n".join(file.read_text() for file in ANSIBLE.rglob("*.yml") if "argument_specs" not in file.name)
    text += "\n".join(file.read_text() for file in ANSIBLE.rglob("*.j2"))
    used = set(re.findall(r"\blingbi_[a-z_]+\b", text))
    filters = set(load_filters())
    groups = {"lingbi_servers", "lingbi_gateways", "lingbi_database"}
    others = {name for name in used if name.startswith("lingbi_run_")} | groups | filters
    assert used - others == set(variables.options())


def test_switches_in_templates_are_read_as_booleans():
    """`-e NAME=false` gives the string "false", which a bare `if NAME` in a template takes for true."""
    switches = "|".join(name for name, spec in variables.options().items() if spec["type"] == "bool")
    bare = re.compile(rf"\b(?:if|elif|and|or|not|when:) +(?:not +)?(?:{switches})\b(?! *\| *bool)")
    files = [*ANSIBLE.rglob("*.yml"), *ANSIBLE.rglob("*.j2")]
    found = [
        f"{file.relative_to(ANSIBLE)}: {line.strip()}"
        for file in files
        for line in file.read_text().splitlines()
        if bare.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("name", variables.DOCUMENTS)
def test_the_documents_hold_the_table_of_variables(name):
    text = (variables.ROOT / name).read_text()
    assert variables.written(text, variables.DOCUMENTS[name]) == text, "run: python -m tests.ansible.variables"


@pytest.mark.parametrize("name", ["docs/rollout", "docs/rollout-reference"])
def test_both_documents_have_the_same_shape(name):
    english, chinese = ((variables.ROOT / f"{name}{language}.md").read_text() for language in ("", ".zh-CN"))
    for pattern in (r"^#+ ", r"^```", r"^\|", r"^- ", r"^\d\. "):
        assert len(re.findall(pattern, english, re.M)) == len(re.findall(pattern, chinese, re.M)), pattern
    blocks = (
        [re.sub(r" *#.*", "", block) for block in re.findall(r"```\w+\n.*?```", text, re.S)]
        for text in (english, chinese)
    )
    assert next(blocks) == next(blocks)


@pytest.mark.parametrize(
    ("role", "overrides"),
    [
        ("server", "model-host gpu-ids model-folder"),
        ("gateway", "servers-folder tls"),
        ("agents", "agents"),
        ("database", "database-host"),
    ],
)
def test_each_unit_gives_what_its_compose_files_demand(role, overrides):
    files = ["compose.yaml", *(f"compose.{name}.yaml" for name in overrides.split())]
    demanded = {name for file in files for name in re.findall(r"\$\{(\w+):?\?", (variables.ROOT / file).read_text())}
    given = yaml.safe_load((ANSIBLE / f"roles/{role}/vars/main.yml").read_text())[f"{role}_environment"]
    assert demanded <= set(given), demanded - set(given)


def test_the_user_in_the_containers_is_the_owner_of_the_secrets():
    for name, role in (("server", "server"), ("ui", "gateway"), ("gateway", "gateway")):
        (user,) = re.findall(r"^USER (\d+)", (variables.ROOT / f"docker/{name}/Dockerfile").read_text(), re.M)
        assert f"unit_owner: {user}\n" in (ANSIBLE / f"roles/{role}/tasks/main.yml").read_text()


def test_the_databases_secrets_belong_to_the_user_of_its_image():
    """Debian's image of PostgreSQL has made it user 999 since its first version; the service runs as `postgres`."""
    tasks = (ANSIBLE / "roles/database/tasks/main.yml").read_text()
    assert "unit_owner: 999\n" in tasks and "user: postgres" in (variables.ROOT / "compose.yaml").read_text()


def test_the_example_is_an_inventory(controller, tmp_path):
    listed = subprocess.run(
        [controller / "ansible-inventory", "-i", ANSIBLE / "inventory/example.yml", "--list"],
        capture_output=True,
        text=True,
    )
    assert listed.returncode == 0 and "gpu3" in listed.stdout, listed.stderr
    known = set(variables.options()) | {"lingbi_servers", "lingbi_gateways"}
    assert set(re.findall(r"\blingbi_\w+", (ANSIBLE / "inventory/example.yml").read_text())) <= known
