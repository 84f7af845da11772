"""The clients that people use, at pinned versions, against the running stack: what each tells is judged by content.

Each is a script of its own in its own environment (python/, javascript/): it reads what to ask from standard input and
prints the answers. An exception in a client ends its script, and the test shows it.
"""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from lingbi.images.scenes import find_fault
from lingbi.smoke.checks import data_url
from tests import debian
from tests.client import QUESTION, SCENES
from tests.conftest import ROOT

HERE = Path(__file__).parent
SCENE = SCENES[7]
OF_AN_IMAGE = ("image", "stream", "tools", "response", "streamed_response", "response_tools")  # answers about SCENE
PYTHON = sorted(path.stem for path in (HERE / "python").glob("*.py") if path.stem != "asked")
JAVASCRIPT = sorted(path.stem for path in (HERE / "javascript").glob("*.mjs") if path.stem != "asked")


@pytest.fixture(scope="module")
def python_clients() -> Path:
    """The clients' Python, installed as their lock says."""
    command = (
        f"source {ROOT}/scripts/environment && "
        "install_on_newer $root/.venv-clients-test $root/tests/clients/requirements.lock 'The clients of the tests'"
    )
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return ROOT / ".venv-clients-test/bin/python"


@pytest.fixture(scope="module")
def javascript_clients() -> str:
    """Node.js, with the clients that package-lock.json names beside the scripts."""
    debian.ensure("nodejs", "npm", has=lambda: shutil.which("npm"))
    done = subprocess.run(
        ["npm", "ci", "--silent", "--no-audit", "--no-fund"], cwd=HERE, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return "node"


@pytest.fixture
def asked(demo_stack) -> str:
    """What every script reads."""
    question = {"url": demo_stack["url"] + "/v1", "key": demo_stack["key"], "model": demo_stack["model"]}
    return json.dumps(question | {"question": QUESTION, "image": data_url(SCENE)})


def answers_of(*command, asked: str) -> dict:
    done = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])  # LiteLLM prints advice before


def expect_right(answers: dict) -> None:
    """Every answer about the image names what it shows, and every other has text."""
    faults = {kind: find_fault("things", SCENE, answers[kind]) for kind in OF_AN_IMAGE if kind in answers}
    assert len(faults) >= 2 and not any(faults.values()), (faults, answers)
    assert all(answers.values()), answers


@pytest.mark.parametrize("client", PYTHON)
def test_python(python_clients, asked, client):
    answers = answers_of(python_clients, HERE / "python" / f"{client}.py", asked=asked)
    expect_right(answers)
    if client == "openai_sdk":
        assert answers["unknown_model"][:2] == ["NotFoundError", "model_not_found"]
        kind, code, message = answers["too_long"]
        assert (kind, code) == ("BadRequestError", "context_length_exceeded")
        assert "maximum context length is" in message
        first, *others = answers["parsed"]
        assert len(others) == 2 and all(other == first for other in others) and first["things"][0]["count"] >= 1


@pytest.mark.parametrize("client", JAVASCRIPT)
def test_javascript(javascript_clients, asked, client):
    answers = answers_of(javascript_clients, HERE / "javascript" / f"{client}.mjs", asked=asked)
    expect_right(answers)
    if client == "openai_sdk":
        assert answers["unknown_model"] == ["NotFoundError", "model_not_found"]
