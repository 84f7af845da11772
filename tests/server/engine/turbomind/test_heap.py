"""Blocks of a picture's size come from memory that is there already, in threads that begin later as well."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT

SIZE = 1225 * 4096 * 2  # a vl-7b picture's features
PAGES = SIZE // 4096
COUNT = 4
SCRIPT = f"""
import ctypes, resource, sys, threading
from lingbi.engine.turbomind.heap import share_one_heap, touch_ahead

malloc = ctypes.CDLL(None)
malloc.malloc.restype, malloc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
malloc.free.argtypes = [ctypes.c_void_p]

def fill():
    blocks = [malloc.malloc({SIZE}) for _ in range({COUNT})]
    for block in blocks:
        ctypes.memset(block, 1, {SIZE})
    for block in blocks:
        malloc.free(block)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    thread = threading.Thread(target=fill)
    thread.start()
    thread.join()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if "kept" in sys.argv:
    share_one_heap()
    loading = threading.Thread(target=touch_ahead, args=({COUNT}, {SIZE}))
    loading.start()
    loading.join()
print(faults(), faults())
"""


@pytest.mark.parametrize(
    ("how", "most_pages", "least_pages"), [("kept", 50, 0), ("as it is", 9 * PAGES, COUNT * PAGES // 2)]
)
def test_pages_that_an_images_copies_wait_for(how, most_pages, least_pages):
    """As it is: what glibc does by itself, in the first round at least, or there is nothing to gain here."""
    command = [sys.executable, "-c", SCRIPT, how]
    environment = {"PYTHONPATH": str(ROOT / "docker/server")}
    first, second = map(
        int, subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout.split()
    )
    assert least_pages <= first <= most_pages and second <= most_pages
