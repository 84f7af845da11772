"""Two GPUs hold one copy of a model: the answers of one GPU, within the memory that was planned. About four minutes.

It prints a table (run it with -s), and writes what was found to tensor-parallel.json in $OUT or the temporary folder.
"""

import os
from pathlib import Path

import pytest

from lingbi.model.gpus import find_gpus
from tests.geometries import PUBLISHED
from tests.tensor_parallel.__main__ import measure

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(480),
    pytest.mark.skipif(len(find_gpus()) < 2, reason="it takes two GPUs"),
    pytest.mark.skipif(not PUBLISHED.exists(), reason="the published tensor lists are not beside this repository"),
]


def test_two_cards_answer_as_one_within_the_memory_that_was_planned(tmp_path):
    found = measure(Path(os.environ.get("OUT", tmp_path)) / "tensor-parallel.json")
    assert found["content"]["is_right"], found["content"]
    assert found["load"]["is_right"], found["load"]
    assert found["numbers"]["is_right"], found["numbers"]
    assert found["load"]["planned_within_5"], found["load"]
