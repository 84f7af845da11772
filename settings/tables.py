"""The tables of settings in docs/settings.md and docs/settings.zh-CN.md, from the schema."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Property = dict[str, Any]  # the schema of one setting
ROOT = Path(__file__).resolve().parents[1]
PLACE = re.compile(r"(<!-- (\w+): made by scripts/settings -->\n).*?(<!-- end -->)", re.S)


@dataclass(frozen=True)
class Language:
    """What a table says in a language, besides the settings' own sentences."""

    head: tuple[str, ...]
    nothing: str
    empty: str
    fixed: str
    option: str
    kinds: dict[str, str]
    bounds: dict[str, str]


ENGLISH = Language(
    head=("setting", "default", "values", "meaning"),
    nothing="none",
    empty="empty",
    fixed="; fixed in containers",
    option="{} ({})",
    kinds={"path": "path", "string": "text"},
    bounds={
        "minimum maximum": "{} to {}",
        "minimum": "{} or more",
        "exclusiveMinimum exclusiveMaximum": "between {} and {}",
    },
)
CHINESE = Language(
    head=("设置", "默认值", "取值", "含义"),
    nothing="无",
    empty="空",
    fixed="；容器中固定",
    option="{}（{}）",
    kinds={"path": "路径", "string": "文本"},
    bounds={
        "minimum maximum": "{} 至 {}",
        "minimum": "不小于 {}",
        "exclusiveMinimum exclusiveMaximum": "{} 与 {} 之间",
    },
)
PAGES = {"docs/settings.md": ENGLISH, "docs/settings.zh-CN.md": CHINESE}


def written(text: str, schema: dict[str, Any], language: Language) -> str:
    """A page's text with its tables as they should be: each stands between two comments, the first of which has the part."""
    return PLACE.sub(lambda place: place[1] + table(schema, place[2], language) + place[3], text)


def table(schema: dict[str, Any], part: str, language: Language) -> str:
    """The table of a part's settings, as Markdown."""
    rows = [language.head, ("---",) * len(language.head)]
    rows += [row(name, found, language) for name, found in schema["properties"].items() if found["x-part"] == part]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def row(name: str, found: Property, language: Language) -> tuple[str, ...]:
    """The cells of a setting."""
    shown = f"`{name}`"
    if "x-option" in found:
        shown = language.option.format(shown, f"`{found['x-option']}`")
    sentences = found["x-chinese"] if language is CHINESE else found
    meaning = sentences["description"] + (language.fixed if found.get("x-fixed") else "")
    return shown, default(found, language), values(found, language), meaning


def default(found: Property, language: Language) -> str:
    """What a setting is where nobody sets it."""
    if "x-default" in found:
        return str(found["x-chinese"]["default"] if language is CHINESE else found["x-default"])
    if "default" not in found:
        return language.nothing
    return code(found["default"]) if found["default"] != "" else language.empty


def values(found: Property, language: Language) -> str:
    """Which values a setting may have."""
    if found["type"] == "boolean":
        return f"{code(True)}, {code(False)}"
    if "enum" in found:
        return ", ".join(map(code, found["enum"]))
    if found["type"] == "string":
        return language.kinds[found.get("format", "string")]
    bounds = [key for key in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum") if key in found]
    return language.bounds[" ".join(bounds)].format(*(f"{found[key]:.10g}" for key in bounds))


def code(value: object) -> str:
    """A value as it stands in the environment."""
    return f"`{str(value).lower()}`" if isinstance(value, bool) else f"`{value}`"
