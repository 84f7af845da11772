"""The tutorial's own lmdeploy commands work in their own pinned environment: offline, with no public tunnel."""

import subprocess
from pathlib import Path

import httpx
import pytest

from lingbi.images.messages import data_url
from lingbi.images.scenes import Scene, Thing, draw
from lingbi.launch.supervision import wait_until
from tests.conftest import DEMO, ROOT, answers, clean_environment, free_port

LMDEPLOY = ROOT / "scripts/lmdeploy"
PYTHON = ROOT / ".venv-lmdeploy/bin/python"


@pytest.fixture(scope="module", autouse=True)
def installed():
    """Their environment is there; the first run installs it."""
    subprocess.run([LMDEPLOY, "--help"], check=True, capture_output=True)


@pytest.fixture
def no_network(monkeypatch):
    """Every connection that leaves this machine is refused by a proxy nobody serves."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost,0.0.0.0")


def serve(kind: str, state_dir: Path, port: int):
    command = [LMDEPLOY, "serve", kind, f"{DEMO}/", "--server-name", "127.0.0.1", "--server-port", str(port)]
    log = state_dir.with_suffix(".log").open("w")
    return subprocess.Popen(command, env=clean_environment(state_dir), cwd=state_dir.parent, stdout=log, stderr=log)


def ask_about_blue_square(url: str) -> str:
    content = [
        {"type": "text", "text": "它是什么颜色?"},
        {"type": "image_url", "image_url": {"url": data_url(draw(Scene((Thing("blue", "square"),))), "PNG")}},
    ]
    body = {"model": httpx.get(f"{url}/v1/models").json()["data"][0]["id"], "temperature": 0.01, "max_tokens": 32}
    answer = httpx.post(
        f"{url}/v1/chat/completions", json=body | {"messages": [{"role": "user", "content": content}]}, timeout=60
    )
    return answer.json()["choices"][0]["message"]["content"]


@pytest.mark.parametrize(("kind", "path"), [("gradio", "/"), ("api_server", "/v1/models")])
def test_lmdeploy_serves(kind, path, tmp_path, no_network):
    port = free_port()
    process = serve(kind, tmp_path / "state", port)
    try:
        assert wait_until(lambda: process.poll() is not None or answers(f"http://127.0.0.1:{port}{path}"), 120)
        log = tmp_path / "state.log"
        assert process.poll() is None, log.read_text()
        # Gradio prints this where no tunnel was asked for.
        assert kind != "gradio" or wait_until(lambda: "set `share=True`" in log.read_text(), 20), log.read_text()
        assert kind != "api_server" or "蓝" in ask_about_blue_square(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(30)


def test_pipeline_describes_an_image(tmp_path, no_network):
    draw(Scene((Thing("purple", "star"),))).save(tmp_path / "star.png")
    script = f"""
from lmdeploy import pipeline
from lmdeploy.vl import load_image
pipe = pipeline({str(DEMO)!r})
response = pipe(('请描述图中内容', load_image('star.png')))
print(response.text, response.input_token_len, response.generate_token_len, response.finish_reason)
"""
    done = subprocess.run(
        [PYTHON, "-c", script],
        env=clean_environment(tmp_path / "state"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert "紫" in last and "星" in last and last.endswith("stop")
