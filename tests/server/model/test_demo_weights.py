"""The committed demo weights still see: a part of the held-out score, on the CPU engine's own model code."""

from tests.conftest import DEMO
from training.demo.score import PASS_MARK, print_score, score_folder

IMAGES = 20  # seven questions each


def test_the_committed_weights_answer_questions_about_images_they_never_saw():
    verdicts = score_folder(str(DEMO), IMAGES)
    assert len(verdicts) == 7 * IMAGES
    assert print_score(verdicts) >= PASS_MARK, [verdict for verdict in verdicts if verdict.fault]
