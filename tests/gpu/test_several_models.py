"""Two published geometries together on one card: both are ready within their shares, and each answers as it does alone.

Random weights, so what shows a mix-up are the tokens of greedy answers. 35 GB of disk; about three minutes.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from lingbi.model import catalogue
from tests.client import CHAT, SCENES, client_options, question
from tests.conftest import free_port, lingbi
from tests.geometries import PUBLISHED, random_weights
from tests.gpu.card import card_used_mib

NAMES = ("vl-7b", "4khd-7b")
CARD_MIB, SAME_MIB = 60 << 10, 512
QUESTIONS, TOKENS = 3, 24

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not PUBLISHED.exists(), reason="the published tensor lists are not beside this repository"),
]


def texts(server: dict) -> list[str]:
    """Greedy answers to questions about pictures, one after the other."""
    options = {"max_tokens": TOKENS, "temperature": 0, "ignore_eos": True}
    with httpx.Client(**client_options(server) | {"timeout": 120}) as client:
        answers = [client.post(CHAT, json=question(server, scene, **options)) for scene in SCENES[:QUESTIONS]]
    for answer in answers:
        assert answer.status_code == 200 and answer.json()["model"] == server["model"], answer.text
        assert answer.json()["usage"]["completion_tokens"] == TOKENS
    return [answer.json()["choices"][0]["message"]["content"] for answer in answers]


def asked(state_dir: Path, folders: list[Path]) -> tuple[list[list[str]], list[dict], int]:
    """Start these models on one card of which they may take so much together, ask all at once, and stop:
    (their answers, their /ready, MiB of the card that were taken)."""
    port, before = free_port(), card_used_mib()
    named = [word for folder in folders for word in ("--model", folder)]
    # Each answer is computed from its beginning and in the same steps, since others would round otherwise.
    settings = {"LINGBI_GPU_MEMORY_MIB": str(CARD_MIB), "LINGBI_KEPT_SESSIONS": "0", "LINGBI_PREFILL_TOKENS": "2048"}
    settings |= {"LINGBI_MAX_BATCH_SIZE": "16", "LINGBI_QUANT_POLICY": "0", "CUDA_VISIBLE_DEVICES": "0"}
    try:
        options = ("--json", "--server-only", "--engine", "turbomind", "--port", port, *named)
        up = lingbi("up", *options, state_dir=state_dir, **settings)
        assert up.returncode == 0, up.stderr
        key = (state_dir / "api-key").read_text().split()[0]
        urls = [f"http://127.0.0.1:{port + number}" for number in range(len(folders))]
        ready = [httpx.get(f"{url}/ready").json() for url in urls]
        servers = [{"url": url, "key": key, "model": told["model"]} for url, told in zip(urls, ready, strict=True)]
        with ThreadPoolExecutor() as pool:
            answers = list(pool.map(texts, servers))
        return answers, ready, card_used_mib() - before
    finally:
        down = lingbi("down", state_dir=state_dir)
        assert down.returncode == 0, down.stderr


def test_two_models_share_a_card_and_answer_as_each_alone(tmp_path):
    models = [catalogue.find(name) for name in NAMES]
    with random_weights(models[0], tmp_path / NAMES[0]) as one, random_weights(models[1], tmp_path / NAMES[1]) as two:
        together, ready, used_mib = asked(tmp_path / "together", [one, two])
        taken = [told["gpu"]["total_mib"] for told in ready]
        print(json.dumps({"used_mib": used_mib, "planned_mib": taken, "gpu": [told["gpu"] for told in ready]}))
        assert sum(taken) <= CARD_MIB and used_mib <= CARD_MIB + SAME_MIB
        for number, folder in enumerate((one, two)):
            (alone,), _, _ = asked(tmp_path / f"alone-{number}", [folder])
            assert alone == together[number]
    assert together[0] != together[1]
