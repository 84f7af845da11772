"""The documents' examples in Python, as a reader runs them in this folder one after another."""

import os
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT

ADDRESS = "http://127.0.0.1:6006"  # where the documents' server is


@pytest.mark.parametrize(
    ("document", "said", "read"),
    [
        ("operations.md", "红", "objects=[Thing(colour='red', shape='circle', position='centre')]"),
        ("operations.zh-CN.md", "红", "物体=[Thing(颜色='红色', 形状='圆形', 位置='中间')]"),
    ],
)
def test_a_picture_is_described_and_read_into_a_class(demo_server, document, said, read):
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / document).read_text(), re.S)
    program = "".join(examples)
    assert len(examples) == 2 and ADDRESS in program
    done = subprocess.run(
        [sys.executable, "-c", program.replace(ADDRESS, demo_server["url"])],
        env=os.environ | {"KEY": demo_server["key"]},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    described, told = done.stdout.splitlines()
    assert said in described and told == read
