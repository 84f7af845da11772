"""A worker on demand is a copy of a process that has imported everything; such a copy can use the GPU."""

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.gpu


def test_a_copy_of_a_process_that_has_imported_everything_can_use_the_gpu():
    command = [sys.executable, "-m", "tests.gpu.forks"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    before = json.loads(done.stdout.splitlines()[-1])["before"]
    assert before["initialised"] is False and before["devices"] == []
