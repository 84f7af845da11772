"""Templates: files whose {{names}} are filled in."""

import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "templates"
NAME = re.compile(r"\{\{(\w+)\}\}")


def read(name: str) -> str:
    """The text of a template."""
    return (FOLDER / name).read_text(encoding="utf-8")


def fill(template: str, values: dict[str, Any]) -> str:
    """The template with each {{name}} replaced. Raises KeyError for a name without a value."""
    return NAME.sub(lambda match: str(values[match[1]]), template)
