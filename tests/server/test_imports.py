"""A start does not spend time on what nobody uses."""

import gc
import subprocess
import sys

import pytest
from pydantic import BaseModel

from lingbi.imports import built_when_used, uncollected


def loaded(code: str, *arguments) -> str:
    """What a new Python of this environment prints."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_model_is_built_at_its_first_use_and_is_as_any_other():
    with built_when_used():

        class Later(BaseModel):
            number: int

    class Now(BaseModel):
        number: int

    assert (Later.__pydantic_complete__, Now.__pydantic_complete__) == (False, True)
    assert Later(number="3").number == 3 and Later.__pydantic_complete__
    assert Later.model_json_schema()["properties"] == Now.model_json_schema()["properties"]


def test_nothing_is_collected_in_the_block_only():
    with pytest.raises(ImportError), uncollected():
        assert not gc.isenabled()
        raise ImportError
    assert gc.isenabled()


def test_a_workers_models_of_an_openapi_document_wait_until_it_is_asked_for(tmp_path):
    """As worker.py imports them, with the service behind them; then the document is whole."""
    code = """
import sys
from lingbi.worker import Worker
from lingbi.settings import load_settings
worker = Worker(load_settings(engine="cpu", model="demo", state_dir=sys.argv[1]))
from lingbi.api import create_app
from fastapi.openapi import models
before = models.OpenAPI.__pydantic_complete__
paths = create_app(worker.service).app.openapi()["paths"]
print(before, "/v1/chat/completions" in paths, models.OpenAPI.__pydantic_complete__)
"""
    assert loaded(code, tmp_path).split() == ["False", "True", "True"]


@pytest.mark.parametrize("command", ["container", "smoke"])
def test_commands_load_no_command_line_of_httpx(command):
    assert loaded(f"import sys, lingbi.{command}; print('httpx' in sys.modules, 'rich' in sys.modules)").split() == [
        "True",
        "False",
    ]
