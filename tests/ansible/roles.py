"""The roles as files: their tasks, the variables that they use and set, their argument specs."""

import functools
from pathlib import Path

import jinja2
import yaml

ANSIBLE = Path(__file__).parents[2] / "ansible"
ROLES = sorted(folder.name for folder in (ANSIBLE / "roles").iterdir())
LISTS = ("tasks", "block", "rescue", "always")
EXPRESSIONS = ("when", "that", "until", "changed_when", "failed_when")  # Jinja without braces
INCLUDES = ("ansible.builtin.include_role", "ansible.builtin.import_role")


def task_files() -> list:
    """Every file with plays or tasks."""
    return [*ANSIBLE.glob("*.yml"), *(ANSIBLE / "playbooks").glob("*.yml"), *ANSIBLE.glob("roles/*/tasks/*.yml")]


def tasks_of(items):
    """Every play, block and task of a list of plays or tasks."""
    for item in items or []:
        yield item
        for name in LISTS:
            yield from tasks_of(item.get(name))


def tasks_in(files):
    """Every play, block and task of some files."""
    for file in files:
        yield from tasks_of(yaml.safe_load(file.read_text()))


def calls(files) -> list:
    """(role, entry point, whether Ansible holds it to its spec, names of the variables that it is given) of all calls."""
    found = [(task[name], task.get("vars", {})) for task in tasks_in(files) for name in INCLUDES if name in task]
    return [
        (call["name"], call.get("tasks_from", "main"), call.get("rolespec_validate", True), set(given))
        for call, given in found
    ]


def includes(files) -> set:
    """{(role, entry point)} that plays and tasks of some files run."""
    return {(role, entry) for role, entry, *_ in calls(files)}


@functools.cache
def specs(role: str) -> dict:
    """{entry point: its argument spec} of a role."""
    return yaml.safe_load((ANSIBLE / f"roles/{role}/meta/argument_specs.yml").read_text())["argument_specs"]


def arguments(role: str) -> dict:
    """{name: spec} of all arguments of a role's entry points."""
    return {name: option for spec in specs(role).values() for name, option in spec["options"].items()}


def role_tasks(role: str) -> list:
    return [*(ANSIBLE / f"roles/{role}/tasks").glob("*.yml")]


def facts(role: str) -> set:
    """Names that a role's tasks set for those that come after them."""
    found = set()
    for task in tasks_in(role_tasks(role)):
        found |= set(task.get("ansible.builtin.set_fact", ())) | {task.get("register")} - {None}
    return found


def names_used(role: str) -> set:
    """Names of variables that a role's tasks, variables and templates read."""
    folder = ANSIBLE / "roles" / role
    files = [*role_tasks(role), *folder.glob("vars/*.yml"), *folder.glob("defaults/*.yml")]
    templates = [template for file in files for template in templates_in(yaml.safe_load(file.read_text()))]
    templates += [file.read_text() for file in folder.glob("templates/*")]
    return {name for template in templates for name in names_in(template)}


def templates_in(value, key: str = ""):
    """Every text in YAML that Ansible takes as Jinja, expressions in braces."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from templates_in(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from templates_in(item, key)
    elif isinstance(value, str):
        yield f"{{{{ {value} }}}}" if key in EXPRESSIONS and "{{" not in value else value


def names_in(template: str) -> set:
    """Names that a Jinja template reads."""
    return {node.name for node in jinja2.Environment().parse(template).find_all(jinja2.nodes.Name)}
