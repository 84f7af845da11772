"""Loads the playbooks' plugins by their files: they are named for Ansible, and none may hide the package lingbi."""

import importlib.util
import sys
import types
from pathlib import Path

ANSIBLE = Path(__file__).parents[2] / "ansible"


def load(path: str):
    """A plugin of ansible/, as Ansible loads it; where Ansible is not installed here its base classes are empty."""
    for name in ("ansible", "ansible.module_utils", "ansible.plugins", "ansible.errors"):
        sys.modules.setdefault(name, types.ModuleType(name))
    _stub("ansible.module_utils.basic", "AnsibleModule")
    _stub("ansible.plugins.callback", "CallbackBase")
    _stub("ansible.plugins.action", "ActionBase")
    sys.modules["ansible.errors"].AnsibleFilterError = sys.modules["ansible.errors"].__dict__.get(
        "AnsibleFilterError", type("AnsibleFilterError", (Exception,), {})
    )
    for name in ("lingbi_docker", "lingbi_unit", "lingbi_server", "lingbi_upstreams"):  # each needs those before it
        if f"ansible.module_utils.{name}" not in sys.modules:
            module = _load(f"ansible.module_utils.{name}", ANSIBLE / f"module_utils/{name}.py")
            setattr(sys.modules["ansible.module_utils"], name, module)
    return _load(f"playbook_{Path(path).stem}", ANSIBLE / path)


def load_filters() -> dict:
    """{name in the playbooks: function} of all filter plugins; a name that stands in two of them is an error."""
    filters = {}
    for file in sorted((ANSIBLE / "filter_plugins").glob("*.py")):
        for name, function in load(f"filter_plugins/{file.name}").FilterModule().filters().items():
            assert name not in filters, f"{name} stands in two filter plugins"
            filters[name] = function
    return filters


def _stub(name: str, cls: str) -> None:
    module = sys.modules.setdefault(name, types.ModuleType(name))
    if not hasattr(module, cls):
        setattr(module, cls, type(cls, (), {"__init__": lambda self, *a, **k: None}))


def _load(name: str, path: Path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
