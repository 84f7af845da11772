"""What lingbi's tower sees is what stock lmdeploy's sees, in fp32 and by transformers' own code."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lingbi.engine.patches import CLIP_CONFIG, CLIP_NAME
from lingbi.hook import STOCK
from lingbi.model import catalogue
from tests.conftest import DEMO, ROOT
from tests.geometries import PUBLISHED, random_weights

LEAST_COSINE = 0.999
SIZES = [(640, 480), (490, 490), (200, 900)]
SEE_AS_STOCK = """
import sys, torch
from lmdeploy.vl.model.xcomposer2 import Xcomposer2VisionModel
from tests.gpu.test_tower import images
model = Xcomposer2VisionModel(sys.argv[1], device="cuda:0")
with torch.device("cuda:0"):
    features = [model.forward([picture])[0].float().cpu() for picture in images()]
torch.save(features, sys.argv[2])
"""

pytestmark = pytest.mark.gpu


def images() -> list:
    """Smooth noise, the same each time."""
    values = np.random.default_rng(0).integers(0, 256, (len(SIZES), 24, 24, 3), dtype=np.uint8)
    return [Image.fromarray(part).resize(size) for part, size in zip(values, SIZES, strict=True)]


def least_cosine(folder: Path, work_dir: Path) -> float:
    """The least cosine between stock's and lingbi's features [tokens, hidden] of any token of any picture."""
    from lingbi.vision.tower import GpuVisionModel

    # Stock looks for CLIP's configuration by its name, which may be a folder where it runs.
    shutil.copytree(CLIP_CONFIG, work_dir / CLIP_NAME)
    env = os.environ | {STOCK: "1", "PYTHONPATH": os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))}
    found = work_dir / "features.pt"
    subprocess.run([sys.executable, "-c", SEE_AS_STOCK, str(folder), str(found)], cwd=work_dir, env=env, check=True)
    model = GpuVisionModel(str(folder), catalogue.HD_NUM)
    ours = [model.forward([model.prepare(image)])[0].float() for image in images()]
    pairs = zip(torch.load(found), ours, strict=True)
    return min(torch.cosine_similarity(stock, own, dim=-1).min().item() for stock, own in pairs)


def test_the_demos_tower_sees_as_stocks(tmp_path):
    assert least_cosine(DEMO, tmp_path) >= LEAST_COSINE


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the published tensor lists are not beside this repository")
@pytest.mark.parametrize("model", catalogue.MODELS, ids=lambda model: model.name)
def test_a_published_tower_sees_as_stocks(tmp_path, model):
    with random_weights(model, tmp_path / "weights") as folder:
        assert least_cosine(folder, tmp_path) >= LEAST_COSINE
