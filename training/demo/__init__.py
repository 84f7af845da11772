"""Training of the demo model: pictures, questions, the trainer and the held-out score."""

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
MODEL_FOLDER = REPOSITORY / "docker/server/models/demo"

# the scenes are the server's: what the model learns is what the server checks
sys.path.insert(0, str(REPOSITORY / "docker/server"))
