"""Training of the demo model: images, questions, the trainer and the held-out score."""

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
MODEL_FOLDER = REPOSITORY / "docker/server/models/demo"

# the scenes come from the server, so that the model learns what the server checks
sys.path.insert(0, str(REPOSITORY / "docker/server"))
