"""Several models in containers behind one address, as the documents say: all loaded, and then on demand."""

import json
import os
import re
import subprocess
from pathlib import Path

import httpx
import pytest

from host.env_file import parse
from lingbi.launch.supervision import wait_until
from lingbi.model.catalogue import DEMO_SERVED_NAME
from tests.client import CHAT, SCENES, fault, http, question
from tests.compose.conftest import copy_repository, new_stack
from tests.compose.test_stack import block
from tests.conftest import ROOT
from tests.containers.images import worrying
from tests.images.conftest import EXPECTED, logs
from tests.load.swaps import read
from tests.on_demand import renamed_demo
from tests.system.test_several_models import answered, told

SHAPES = "shapes"
MODELS = [DEMO_SERVED_NAME, SHAPES]
ALIASES = f"gpt-4o={DEMO_SERVED_NAME},default={SHAPES}"
PAGES = (
    ("several-models.md", "A folder beside others, in containers"),
    ("several-models.zh-CN.md", "在容器中，文件夹与其他模型并列"),
)


def run(stack, line: str) -> subprocess.CompletedProcess:
    """A line as people type it in their clone."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LINGBI_")}
    return subprocess.run(
        ["bash", "-c", line], cwd=stack.root, env=environment, capture_output=True, text=True, timeout=400
    )


def as_here(line: str, folder: Path) -> str:
    """A documented line with this test's models in place of the published ones."""
    known = {"/data/mine": str(folder), "/models/mine": f"/models/{SHAPES}", " --model vl-1_8b": ""}
    known |= {"4khd-7b": f"/models/{SHAPES}", "vl-7b": "demo"}
    for name, own in known.items():
        line = line.replace(name, own)
    return line.split("  #")[0].rstrip()


@pytest.fixture(scope="module")
def several(all_images, tmp_path_factory):
    """A stack, by Compose alone, of the demo model and a folder of this machine that the documented line brought; `lines`: the
    documented ones."""
    folder = tmp_path_factory.mktemp("several")
    root, shapes = copy_repository(folder / "copy"), renamed_demo(folder / SHAPES)
    for path in (folder, *folder.parents[:2]):
        path.chmod(path.stat().st_mode | 0o755)
    commands, chinese = (block(*page) for page in PAGES)
    lines = [as_here(line, shapes) for line in commands.splitlines()]
    assert lines == [as_here(line, shapes) for line in chinese.splitlines()] and len(lines) == 2
    values = {"LINGBI_MODEL": f"demo,/models/{SHAPES}", "LINGBI_GATEWAY_ALIASES": ALIASES, "LINGBI_STAY_S": 1}
    with new_stack(root, LINGBI_GATEWAY_SERVERS="", **values) as stack:
        stack.lines = lines
        brought = run(stack, lines[0])
        assert brought.returncode == 0, brought.stderr
        done = stack.compose("up", "--wait", check=False)
        assert done.returncode == 0, done.stderr + stack.compose("logs").stdout
        yield stack


@pytest.fixture
def client(several):
    with http({"url": several.url, "key": several.key}) as client:
        yield client


def ask(client, scene=SCENES[0], **named):
    """A question that names its model so, or not at all."""
    asked = {key: value for key, value in question({"model": None}, scene, **named).items() if value is not None}
    return client.post(CHAT, json=asked)


def test_each_model_answers_by_content_and_is_listed_with_its_facts(client):
    for number, scene in enumerate(SCENES[:8]):
        assert answered(client, MODELS[number % 2], scene, streams=number % 4 > 1) is None
    facts = told(client)
    assert sorted(facts) == sorted(MODELS)
    for model in facts.values():
        assert (model["state"], model["hosts"], model["servers"], model["ready"]) == ("ready", 1, 1, 1)
        assert (model["session_length"], model["image_tokens"]) == (4096, [36, 36])
    assert [facts[name]["aliases"] for name in MODELS] == [["gpt-4o"], ["default"]]


def test_an_alias_works_and_an_unknown_model_is_one_404_with_the_names_that_there_are(several, client):
    for named, model in (({"model": "gpt-4o"}, DEMO_SERVED_NAME), ({}, SHAPES)):
        response = ask(client, **named)
        assert fault(SCENES[0], response) is None and response.json()["model"] == model
    missing = ask(client, model="vl-8b")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found"), missing.text
    assert all(name in missing.text for name in (*MODELS, "gpt-4o"))
    assert httpx.post(f"{several.url}{CHAT}", json={"model": "vl-8b"}).status_code == 401


def test_the_page_offers_both(several):
    offered = httpx.get(f"{several.url}/state").json()["models"]
    assert [(offer["id"], offer["phase"]) for offer in offered] == [(name, "ready") for name in MODELS]
    assert {offer["facts"][0] for offer in offered} == {"A picture takes 36 tokens of 4096"}


def test_scripts_smoke_asks_each_by_its_name(several):
    done = several.script("smoke")
    assert done.returncode == 0 and f", model {', '.join(MODELS)}" in done.stdout, done.stdout + done.stderr
    for name in MODELS:
        assert re.search(rf"^PASS  picture {name} ", done.stderr, re.M), done.stderr


@pytest.fixture(scope="module")
def in_turn(several):
    """The same stack on demand, by the documented line: it has the models that the documented start of several has, and a setting."""
    documented = (ROOT / "docs/on-demand.md").read_text().split("```bash\n")[1].splitlines()[0]
    assert documented in (ROOT / "docs/on-demand.zh-CN.md").read_text()
    setting, _, line = as_here(documented, Path("none")).partition(" ")
    assert (setting, line) == ("LINGBI_ON_DEMAND=true", several.lines[1])
    done = run(several, f"{setting} {line}")
    assert done.returncode == 0, done.stderr
    several.said = done.stdout
    return several


def test_on_demand_as_documented_they_take_turns(in_turn, client):
    assert parse((in_turn.root / ".env").read_text())["LINGBI_ON_DEMAND"] == "true"
    assert {name: model["state"] for name, model in told(client).items()} == dict.fromkeys(MODELS, "asleep")
    assert fault(SCENES[5], ask(client, SCENES[5], model="gpt-4o")) is None
    assert told(client)[DEMO_SERVED_NAME]["state"] == "ready"
    streamed = ask(client, SCENES[9], model=SHAPES, stream=True)
    text, model = read(streamed, True)
    assert model == SHAPES and streamed.text.startswith(": waiting for the model's turn\n"), streamed.text
    assert fault(SCENES[9], httpx.Response(200, json={"choices": [{"message": {"content": text}}]})) is None
    assert wait_until(lambda: [told(client)[name]["state"] for name in MODELS] == ["asleep", "ready"], 10), told(client)


def test_scripts_up_names_them_and_its_lines_work(in_turn):
    assert f"model    {', '.join(MODELS)} on cpu" in in_turn.said, in_turn.said
    lines = in_turn.said[in_turn.said.index("URL=") : in_turn.said.index("scripts/smoke checks")]
    assert "红色的圆形" in json.loads(run(in_turn, lines).stdout)["choices"][0]["message"]["content"]


def test_logs_hold_nothing_unexpected(several):
    for service in ("weights", "server", "ui", "gateway"):
        assert worrying(logs(several.container(service)), EXPECTED) == [], service
