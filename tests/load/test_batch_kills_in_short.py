"""Twenty workers are killed while a batch runs, and the run can fail; `python -m tests.load.batch_kills` has it whole."""

import json
import subprocess
import sys

from tests.conftest import ROOT
from tests.load.batch_kills import faults_of
from tests.load.batch_kills_cheap import is_right

KILLS, LINES = 20, 1500


def test_every_line_is_there_once_though_twenty_workers_end_meanwhile():
    command = [sys.executable, "-m", "tests.load.batch_kills", "--cheap", f"--kills={KILLS}", f"--lines={LINES}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["faults"] == [] and found["lines"] == LINES and len(found["killed"]) == KILLS
    assert len({seen["done"] for seen in found["killed"]}) > KILLS // 2, "they were not killed while it ran"


def test_the_run_sees_what_is_lost_twice_foreign_failed_and_wrong():
    def result(name: str, echo: str = "") -> dict:
        return {"custom_id": name, "response": {"body": {"echo": echo or name}}}

    assert faults_of(["a", "b"], [result("a"), result("b")], [], is_right) == []
    results = [result("a"), result("a"), result("c"), result("d", "another")]
    faults = faults_of(["a", "b", "d", "e"], results, [result("e")], is_right)
    assert faults[:3] == ["b is lost", "a is there 2 times", "c was not asked"]
    assert faults[3].startswith("e failed") and faults[4:] == ["d is answered wrongly"]
