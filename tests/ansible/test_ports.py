"""The firewall's table of docs/rollout.md names the ports that the playbooks use, in both languages."""

import re

import pytest

from tests.ansible import variables
from tests.ansible.plugins import load

compose = load("filter_plugins/compose.py")
OTHERS = {22, 443, 5000}  # SSH, https, and the registry of the examples
PAGES = {"docs/rollout.md": "## Open the firewall\n", "docs/rollout.zh-CN.md": "## 打开防火墙\n"}


def used() -> set:
    """Every port that a host of a lab listens on, from where it is declared."""
    defaults = {name: spec.get("default") for name, spec in variables.options().items()}
    exporters = re.findall(r":(\d+):\1\"", (variables.ROOT / "compose.agents.yaml").read_text())
    own = {defaults["lingbi_gateway_port"], defaults["lingbi_weights_port"]}
    return own | {compose.server_port(variables.ROOT / "compose.yaml")} | set(map(int, exporters))


def ports(page: str) -> list:
    """The ports of each row of a page's table."""
    section = (variables.ROOT / page).read_text().split(PAGES[page])[1].split("\n## ")[0]
    rows = re.findall(r"^\| .+? \| .+? \| ([\d, ]+) \| .+ \|$", section, re.M)
    return [tuple(map(int, row.split(", "))) for row in rows]


@pytest.mark.parametrize("page", PAGES)
def test_the_table_has_every_port_and_no_other(page):
    assert len(used()) == 5
    assert {port for row in ports(page) for port in row} == used() | OTHERS


def test_both_tables_are_the_same():
    english, chinese = map(ports, PAGES)
    assert english == chinese and len(english) == 10
