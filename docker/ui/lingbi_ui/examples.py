"""Example questions with images that a visitor can ask with one click."""

from pathlib import Path
from typing import Any

from lingbi_ui.words import CHINESE

FOLDER = Path(__file__).parent / "examples"
EXAMPLES = (
    ("shapes.png", "请描述图中内容", "Describe the picture."),
    ("star.png", "它是什么颜色?", "What colour is it?"),
    ("chart.png", "这张图表说明了什么?", "What does this chart show?"),
    ("house.png", "画里有些什么?", "What can you see in this drawing?"),
)


def examples(language: str) -> list[dict[str, Any]]:
    """All examples in one language: {"text", "files": [path]}."""
    return [
        {"text": chinese if language == CHINESE else english, "files": [str(FOLDER / name)]}
        for name, chinese, english in EXAMPLES
    ]
