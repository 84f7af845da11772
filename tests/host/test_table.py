"""The READMEs' table of the machine's settings is the one that is declared."""

import pytest

from host.table import table
from tests.conftest import ROOT


@pytest.mark.parametrize(("file", "language"), [("README.md", "en"), ("README.zh-CN.md", "zh")])
def test_it_is_as_declared(file, language):
    text = (ROOT / file).read_text()
    assert f"-->\n{table(language)}<!-- end -->" in text, "make it anew: python3 -m host.table"
