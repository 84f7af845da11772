"""A start does not spend time on what nobody uses."""

import gc
import subprocess
import sys

import pytest

from lingbi.garbage import uncollected


def loaded(code: str, *arguments) -> str:
    """What a new Python of this environment prints."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_is_collected_in_the_block_only():
    with pytest.raises(ImportError), uncollected():
        assert not gc.isenabled()
        raise ImportError
    assert gc.isenabled()


def test_a_worker_loads_no_fastapi(tmp_path):
    code = """
import sys
from lingbi.settings import load_settings
from lingbi.worker.main import Worker
import lingbi.http.app, lingbi.engine.cpu.scheduler, lmdeploy.serve.vl_async_engine
Worker(load_settings(engine="cpu", model="demo", state_dir=sys.argv[1]))
print("torch" in sys.modules, "fastapi" in sys.modules)
"""
    assert loaded(code, tmp_path).split() == ["True", "False"]


@pytest.mark.parametrize("command", ["launch.entrypoint", "smoke.main"])
def test_commands_load_no_command_line_of_httpx(command):
    code = f"import sys, lingbi.{command}; print('httpx' in sys.modules, 'rich' in sys.modules)"
    assert loaded(code).split() == ["True", "False"]
