"""A published geometry with random weights, from a local hub to an answer: on a GPU whole, on a CPU with few layers.

`python -m tests.geometries [NAME ...]` does it on the CPU engine: every tensor in its published shape, the language
model of one layer, since three of the four need 18 GB of memory and more with all.
"""

import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from lingbi.model.catalogue import MODELS, Model
from lingbi.model.random import make
from tests.conftest import ROOT, lingbi, running_server
from tests.hub import running_hub

PUBLISHED = ROOT.parent / "shared/models"
TEXT_TOKENS = 147  # of 请描述图中内容 with the published tokenizer and chat template


@contextlib.contextmanager
def random_weights(model: Model, folder: Path, layers: int | None = None):
    """A published geometry with random weights, whole, in a new folder that goes with the block.

    layers: of the language model, None for all. KEPT_WEIGHTS=FOLDER in the environment keeps them there for the next block.
    """
    kept = os.environ.get("KEPT_WEIGHTS")
    folder = Path(kept) / f"{model.served_name}-{layers or 'whole'}" / model.served_name if kept else folder
    if not folder.exists():
        make(PUBLISHED / model.served_name, PUBLISHED / "tokenizer.model", folder, seed=0, layers=layers)
    try:
        yield folder
    finally:
        if not kept:
            shutil.rmtree(folder)


def expect_fetched_loaded_and_right(
    model: Model, engine: str, folder: Path, layers: int | None = None, asked: str = "", **settings: str
) -> None:
    """`scripts/up --model NAME` and `scripts/smoke`; the folder goes.

    layers: of the language model, None for all; asked: what --model says, the model's own name unless given.
    """
    make(PUBLISHED / model.served_name, PUBLISHED / "tokenizer.model", folder / "hub" / model.hub_id, 0, layers)
    settings = (settings or {"LINGBI_CACHE_FRACTION": "0.2"}) | {"LINGBI_MODELS_DIR": str(folder / "models")}
    try:
        with running_hub(folder / "hub") as hub:
            settings["LINGBI_HUB_ENDPOINT"] = hub.url
            with running_server(
                folder / "state", "--model", asked or model.name, "--engine", engine, **settings
            ) as report:
                smoke = lingbi("smoke", "--json", state_dir=folder / "state")
        assert smoke.returncode == 0, smoke.stderr
        checks = {check["name"]: check for check in json.loads(smoke.stdout.splitlines()[-1])["checks"]}
        assert report["model"] == model.served_name
        assert int(checks["prompt-tokens"]["detail"]) == TEXT_TOKENS + model.image_tokens(640, 480)
    finally:
        shutil.rmtree(folder)  # at full size 17 GB twice


def main(names=()) -> int:
    for model in (model for model in MODELS if model.hub_id and (not names or model.name in names)):
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            expect_fetched_loaded_and_right(model, "cpu", Path(folder) / "lab", layers=1)
        print(f"{model.name}: fetched, checked, loaded, smoke passed, {time.monotonic() - begun:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
