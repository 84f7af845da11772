"""The tables of variables in docs/rollout-reference.md, made from the argument specs. `python -m tests.ansible.variables` writes them."""

import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
SPECS = ROOT / "ansible/roles/lingbi/meta/argument_specs.yml"
DEFAULTS = ROOT / "ansible/roles/lingbi/defaults/main.yml"
DOCUMENTS = {
    "docs/rollout-reference.md": 0,
    "docs/rollout-reference.zh-CN.md": 1,
}  # which of a variable's two sentences
HEADS = (("variable", "default", "meaning"), ("变量", "默认值", "含义"))
PLACE = re.compile(r"<!-- variables -->\n.*?<!-- /variables -->", re.S)


def options() -> dict:
    """{name: spec} of every variable."""
    return yaml.safe_load(SPECS.read_text())["argument_specs"]["main"]["options"]


def table(language: int) -> str:
    """The table in a language, as Markdown."""
    rows = [HEADS[language], ("---",) * 3]
    rows += [(f"`{name}`", shown(spec), spec["description"][language]) for name, spec in options().items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def shown(spec: dict) -> str:
    """A default as an inventory would have it."""
    if spec.get("required"):
        return ""
    value = spec["default"]
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list):
        return f"`[{', '.join(value)}]`"
    return f"`{value}`".replace("|", r"\|") if value != "" else "`''`"


def written(text: str, language: int) -> str:
    """A document's text with its table as it should be."""
    return PLACE.sub(lambda _: f"<!-- variables -->\n{table(language)}\n<!-- /variables -->", text)


def main() -> int:
    for name, language in DOCUMENTS.items():
        file = ROOT / name
        file.write_text(written(file.read_text(), language))
    return 0


if __name__ == "__main__":
    sys.exit(main())
