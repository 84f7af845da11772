"""What CUDA and cuBLAS hold in reserve is small, in a process of its own: a context's limits and cuBLAS's are for good."""

import os
import subprocess
import sys

import pytest

from lingbi.engine.turbomind.workspaces import WORKSPACES

LARGEST_MIB = 16  # one workspace of cuBLAS's own choice for an H100 has 32
TAKE = """
import torch
from lingbi.engine.turbomind.workspaces import shrink_reserves

def multiply():
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.mm(*sides)
    torch.cuda.synchronize()
    return torch.cuda.mem_get_info()[0]

shrink_reserves()
sides = [torch.ones(64, 64, device="cuda", dtype=torch.half) for _ in range(2)]
multiply()  # loads cuBLAS's kernels
print(multiply() - multiply() >> 20)
"""

pytestmark = pytest.mark.gpu


def taken_mib(**chosen: str) -> int:
    """MiB that a first product takes on one more stream."""
    environment = {name: value for name, value in os.environ.items() if name != WORKSPACES} | chosen
    done = subprocess.run([sys.executable, "-c", TAKE], env=environment, capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_a_product_on_another_stream_takes_no_workspace_worth_counting():
    assert taken_mib() < LARGEST_MIB


def test_what_the_operator_chose_stays():
    assert taken_mib(**{WORKSPACES: ":4096:8"}) >= 32
