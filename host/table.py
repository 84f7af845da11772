"""The table of the machine's settings for the READMEs: `python3 -m host.table [zh]`; a test compares both."""

from __future__ import annotations

import sys

from host.env_file import deployment_settings

HEADS = {"en": ("setting", "default", "meaning", "none"), "zh": ("设置", "默认值", "含义", "无")}


def table(language: str) -> str:
    """The Markdown table in a language: en or zh."""
    *head, none = HEADS[language]
    rows = [head, ["---"] * 3]
    for setting in deployment_settings():
        default = none if setting.default is None else f"`{setting.default}`"
        rows.append([f"`LINGBI_{setting.name}`", default, setting.help if language == "en" else setting.chinese])
    rows[2][1] = {"en": "of `VERSION`", "zh": "`VERSION` 文件"}[language]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    print(table(*(sys.argv[1:] or ["en"])), end="")
