"""The models that lingbi serves, and the facts about them that follow from their geometry."""

import math
from dataclasses import dataclass

TEMPLATE = "internlm-xcomposer2"
TEMPLATE_4KHD = "internlm-xcomposer2-4khd"

# Tokens of lmdeploy's chat template around one picture, with the published tokenizer:
# beginning of sequence, 136 before the picture, and 6 after the question.
TEMPLATE_TOKENS = 1 + 136 + 6


@dataclass(frozen=True)
class Model:
    """A model of the family.

    name: what people type; served_name: its id in the API; picture_side: pixels of the square that
    a picture is resized to (None: tiles, 4khd); session_len: tokens of prompt and answer together.
    """

    name: str
    served_name: str
    hidden_size: int
    picture_side: int | None
    session_len: int
    template: str = TEMPLATE
    hub_id: str | None = None

    def picture_tokens(self, width: int, height: int) -> int:
        """Prompt tokens that a picture of this size (pixels) costs."""
        if self.picture_side is None:
            return tiled_picture_tokens(width, height)
        return (self.picture_side // 14) ** 2


def _published(name: str, **facts) -> Model:
    served_name = f"internlm-xcomposer2-{name}"
    return Model(name, served_name, hub_id=f"Shanghai_AI_Laboratory/{served_name}", **facts)


MODELS = (
    _published("vl-7b", hidden_size=4096, picture_side=490, session_len=4096),
    _published("7b", hidden_size=4096, picture_side=224, session_len=4096),
    _published("4khd-7b", hidden_size=4096, picture_side=None, session_len=16384, template=TEMPLATE_4KHD),
    _published("vl-1_8b", hidden_size=2048, picture_side=490, session_len=4096),
)
DEMO = "demo"
DEMO_SERVED_NAME = "internlm-xcomposer2-demo"


def find(name: str) -> Model | None:
    """The published model of this short name, or None."""
    return next((model for model in MODELS if model.name == name), None)


def recognise(config: dict) -> Model | None:
    """The published model with the geometry of a config.json, or None."""
    side = None if is_4khd(config) else config.get("img_size")
    for model in MODELS:
        if (model.hidden_size, model.picture_side) == (config.get("hidden_size"), side):
            return model
    return None


def is_4khd(config: dict) -> bool:
    """Whether lmdeploy 0.4.1 takes this config for the tiled 4khd model in its vision part."""
    return config["architectures"][0] == "InternLM2ForCausalLM"


def tiled_picture_tokens(width: int, height: int, tiles: int = 25) -> int:
    """Prompt tokens of a picture on 4khd-7b: tiles of 336 pixels, 144 tokens each, an overview,
    and a separator a tile row and at the overview's ends (hd_num 25, lmdeploy's choice)."""
    ratio = max(width, height) / min(width, height)
    long_side = 1
    while long_side * math.ceil(long_side / ratio) <= tiles:
        long_side += 1
    long_side -= 1
    short_side = math.ceil(int(long_side * 336 / ratio) / 336)
    rows = short_side if width >= height else long_side
    return (long_side * short_side + 1) * 144 + 1 + (rows + 1) * 12
