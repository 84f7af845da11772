"""The page starts without Gradio's work on its own type stubs."""

import subprocess

from tests.ui.conftest import PYTHON

WATCHED = """
import sys
opened = []
sys.addaudithook(lambda event, arguments: event == "open" and opened.append(str(arguments[0])))
import lingbi_ui.app
print(sum(name.endswith(".pyi") for name in opened), sum(name.endswith(".pyc") for name in opened))
"""


def test_no_stub_is_read_or_written():
    done = subprocess.run([PYTHON, "-c", WATCHED], capture_output=True, text=True)
    stubs, modules = map(int, done.stdout.split())
    assert stubs == 0 and modules > 500, done
