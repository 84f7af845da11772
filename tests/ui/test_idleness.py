"""The page starts without Gradio's work on its own type stubs, and hardly wakes while nobody asks."""

import subprocess
import time

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


def test_a_page_that_nobody_asks_wakes_a_hundred_times_a_second_at_most(lonely_page):
    """Gradio's own thousand times, and the hundred for progress that this page never tells, are a core's twelfth."""
    before = lonely_page.process.num_ctx_switches().voluntary
    time.sleep(2)
    assert (lonely_page.process.num_ctx_switches().voluntary - before) / 2 < 100
