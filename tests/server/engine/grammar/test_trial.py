"""A grammar that takes too much ends another process than this one, soon; what is wrong with others is told."""

import json
import shlex
import subprocess
import sys
import time

import pytest

from lingbi.engine.grammar import trial
from lingbi.engine.grammar.grammars import LIMITS, _schema_grammar

GOOD, BAD = {"type": "integer"}, {"type": "integer", "minimum": 2, "maximum": 1}
MEMORY = {"type": "integer", "multipleOf": 1000003}
TIME = {"type": "object", "patternProperties": {f"^a{number}$": {} for number in range(600)}}


def fault(*schemas, passed_over=()):
    return trial.first_fault([_schema_grammar(schema, True) for schema in schemas], LIMITS, passed_over)


def test_the_first_bad_grammar_is_told():
    assert fault(GOOD) is None and fault(GOOD, GOOD) is None
    number, reason = fault(GOOD, BAD, GOOD)
    assert number == 1 and "minimum (2)" in reason
    assert fault(GOOD, BAD, passed_over=("minimum (2)",)) is None


@pytest.mark.parametrize("schema", [MEMORY, TIME])
def test_a_grammar_without_bound_ends_its_process(schema):
    began = time.monotonic()
    with pytest.raises(trial.CostlyError) as ended:
        fault(schema)
    assert isinstance(ended.value.__cause__, subprocess.CalledProcessError) and ended.value.__cause__.returncode < 0
    assert time.monotonic() - began < 2 * trial.WAIT_S


def test_a_process_that_fails_is_told_in_the_log(monkeypatch, tmp_path, caplog):
    program = tmp_path / "program.py"
    program.write_text("raise SystemExit('no module')")
    monkeypatch.setattr(trial, "PROGRAM", program)
    with pytest.raises(trial.CostlyError):
        fault(GOOD)
    assert "could not be tried: no module" in caplog.text


def test_a_machine_may_have_narrower_bounds():
    program = [sys.executable, "-I", "-S", str(trial.PROGRAM), str(trial.PACKAGES)]
    task = {"grammars": [_schema_grammar(GOOD, True)], "limits": LIMITS, "passed_over": []}
    written = json.dumps(task | {"cpu_s": 5, "memory_bytes": 1 << 40})
    narrow = ["bash", "-c", f"ulimit -t 3 -v {4 << 20}; exec {shlex.join(program)}"]  # seconds, KiB
    assert subprocess.run(narrow, input=written, capture_output=True, check=True, text=True).stdout == "null"
