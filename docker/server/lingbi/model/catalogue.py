"""The models that lingbi serves: the only place that states facts about them."""

import math
import re
from dataclasses import dataclass
from typing import Any, Protocol

TEMPLATE = "internlm-xcomposer2"
TEMPLATE_4KHD = "internlm-xcomposer2-4khd"

# Tokens of prompt and answer together: `max_length` of the published config.json, by which lmdeploy recognises 4khd.
SESSION_LEN, SESSION_LEN_4KHD = 4096, 16384

PATCH = 14  # pixels on each side of a patch, which the vision tower turns into one token
TILE = 336  # pixels on each side of a tile of 4khd-7b
TILE_TOKENS, ROW_TOKENS = 144, 12  # tokens of a tile, and of the separators in a row of tiles
HD_NUM = 25  # lmdeploy cuts an image into at most this many tiles

# Tokens that lmdeploy's template adds around one image, with the published tokenizer:
# beginning of sequence, 136 before the image, and 6 after the question.
TEMPLATE_TOKENS = 1 + 136 + 6

# System prompts from the code of the published repositories; the one of 7b lacks two words and the last line.
INSTRUCTION = """You are an AI assistant whose name is InternLM-XComposer (浦语·灵笔).
- InternLM-XComposer (浦语·灵笔) is a multi-modality conversational language model that is developed by Shanghai AI Laboratory (上海人工智能实验室). It is designed to be helpful, honest, and harmless.
- InternLM-XComposer (浦语·灵笔) can understand and communicate fluently in the language chosen by the user such as English and 中文.
- InternLM-XComposer (浦语·灵笔) is capable of comprehending and articulating responses effectively based on the provided image."""
INSTRUCTION_7B = INSTRUCTION.rpartition("\n")[0].replace("multi-modality conversational", "conversational")


@dataclass(frozen=True)
class Geometry:
    """Shape of the language model: widths, counts, and bytes of KV cache per token at 16 bits."""

    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int = 92544

    @classmethod
    def of(cls, config: dict[str, Any]) -> "Geometry":
        """The shape that a config.json describes."""
        return cls(
            hidden_size=config["hidden_size"],
            intermediate_size=config["intermediate_size"],
            layers=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            kv_heads=config["num_key_value_heads"],
            vocabulary=config["vocab_size"],
        )

    @property
    def kv_bytes(self) -> int:
        return 2 * 2 * self.layers * self.kv_heads * self.hidden_size // self.heads


GEOMETRY_7B = Geometry(4096, 14336, 32, 32, 8)
GEOMETRY_1_8B = Geometry(2048, 8192, 24, 16, 8)


class ModelFacts(Protocol):
    """The facts that determine how much memory a model needs; Model and folder.ModelFolder both provide them."""

    @property
    def served_name(self) -> str: ...
    @property
    def geometry(self) -> Geometry: ...
    @property
    def image_side(self) -> int | None: ...
    @property
    def session_len(self) -> int: ...
    @property
    def weight_bytes(self) -> int: ...


@dataclass(frozen=True)
class Model:
    """A model of the family.

    name: what people type; served_name: its id in the API; image_side: side in pixels of the square that
    an image is resized to (None: tiles, 4khd); session_len: tokens of prompt and answer together;
    weight_bytes: size of the published tensors (bf16); card_gb: memory of the recommended card (0: none);
    hub_id: ModelScope id; instruction: its system prompt.
    """

    name: str
    served_name: str
    geometry: Geometry
    image_side: int | None
    session_len: int
    weight_bytes: int
    card_gb: int
    purpose: str
    purpose_zh: str
    hub_id: str
    template: str = TEMPLATE
    instruction: str = INSTRUCTION

    @property
    def hidden_size(self) -> int:
        return self.geometry.hidden_size

    def image_tokens(self, width: int, height: int, hd_num: int = HD_NUM) -> int:
        """Prompt tokens that an image of this size (pixels) costs; hd_num: most tiles, if the model uses tiles."""
        return image_tokens(self.image_side, width, height, hd_num)

    def image_range(self, hd_num: int = HD_NUM) -> str:
        """Prompt tokens of an image, for people: the fewest and the most if the number depends on the size."""
        return "-".join(map(str, sorted(set(image_token_range(self.image_side, hd_num)))))


def _published(name: str, **facts: Any) -> Model:
    served_name = f"internlm-xcomposer2-{name}"
    return Model(name, served_name, hub_id=f"Shanghai_AI_Laboratory/{served_name}", **facts)


MODELS = (
    _published(
        "vl-7b",
        geometry=GEOMETRY_7B,
        image_side=490,
        session_len=SESSION_LEN,
        weight_bytes=17_333_676_032,
        card_gb=24,
        purpose="benchmarks, chat",
        purpose_zh="评测、对话",
    ),
    _published(
        "7b",
        geometry=GEOMETRY_7B,
        image_side=224,
        session_len=SESSION_LEN,
        weight_bytes=17_331_691_520,
        card_gb=24,
        purpose="visual chat (its text-image composition is not served)",
        purpose_zh="图文对话（不提供图文创作）",
        instruction=INSTRUCTION_7B,
    ),
    _published(
        "4khd-7b",
        geometry=GEOMETRY_7B,
        image_side=None,
        session_len=SESSION_LEN_4KHD,
        weight_bytes=17_194_999_808,
        card_gb=24,
        purpose="pictures up to 4K, chat",
        purpose_zh="最高 4K 的图片、对话",
        template=TEMPLATE_4KHD,
    ),
    _published(
        "vl-1_8b",
        geometry=GEOMETRY_1_8B,
        image_side=490,
        session_len=SESSION_LEN,
        weight_bytes=4_902_467_584,
        card_gb=8,
        purpose="benchmarks, chat, small cards; the CPU, slowly",
        purpose_zh="评测、对话、小显存；CPU 上可用但较慢",
    ),
)
DEMO = "demo"
DEMO_SERVED_NAME = "internlm-xcomposer2-demo"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def names() -> list[str]:
    """Every name by which people can choose a model."""
    return [*(model.name for model in MODELS), DEMO]


def find(name: str) -> Model | None:
    """The published model with this short name, API id or ModelScope id (case does not matter), or None."""
    wanted = name.lower()
    return next(
        (model for model in MODELS if wanted in (model.name, model.served_name, model.hub_id.lower())),
        None,
    )


def served_name(name: str) -> str | None:
    """The id in the API of the model that people call so; None of one that is not published."""
    if name.lower() in (DEMO, DEMO_SERVED_NAME):
        return DEMO_SERVED_NAME
    model = find(name)
    return model.served_name if model else None


def recognise(config: dict[str, Any]) -> Model | None:
    """The published model with the geometry of a config.json, or None."""
    side = image_side(config)
    for model in MODELS:
        if (model.hidden_size, model.image_side) == (config.get("hidden_size"), side):
            return model
    return None


def instruction(config: dict[str, Any]) -> str:
    """The system prompt of the published model with the geometry of a config.json; the usual one if there is none."""
    known = recognise(config)
    return known.instruction if known else INSTRUCTION


def image_side(config: dict[str, Any]) -> int | None:
    """Side in pixels of the square that an image is resized to; None: tiles."""
    return None if is_4khd(config) else config.get("img_size")


def is_4khd(config: dict[str, Any]) -> bool:
    """Whether the vision code of lmdeploy 0.4.1 treats this config as the tiled 4khd model."""
    return bool(config["architectures"][0] == "InternLM2ForCausalLM")


def image_tokens(side: int | None, width: int, height: int, hd_num: int) -> int:
    """Prompt tokens of an image: one for each patch of the vision tower, or those of its tiles (side None)."""
    return tiled_image_tokens(width, height, hd_num) if side is None else (side // PATCH) ** 2


def image_token_range(side: int | None, hd_num: int) -> tuple[int, int]:
    """The fewest and the most prompt tokens of an image, whatever its size; side as in image_tokens."""
    tokens = [image_tokens(side, *size, hd_num) for size in _whole_tiles(hd_num)]
    return min(tokens), max(tokens)


def tiled_image_tokens(width: int, height: int, hd_num: int) -> int:
    """Prompt tokens of an image on 4khd-7b: an overview, as many tiles as hd_num allows, and the separators of every
    row of tiles and of the overview."""
    ratio = max(width, height) / min(width, height)
    long_side = 1
    while (long_side + 1) * math.ceil((long_side + 1) / ratio) <= hd_num:
        long_side += 1
    short_side = math.ceil(int(long_side * TILE / ratio) / TILE)
    rows = short_side if width >= height else long_side
    return (long_side * short_side + 1) * TILE_TOKENS + 1 + (rows + 1) * ROW_TOKENS


def largest_image(hd_num: int) -> tuple[int, int]:
    """(width, height) of the image that costs the most tokens on 4khd-7b: all its tiles are in one column."""
    return TILE, TILE * hd_num


def _whole_tiles(hd_num: int) -> list[tuple[int, int]]:
    """(width, height) of every image that is exactly filled by at most hd_num tiles in whole rows and columns."""
    counts = range(1, hd_num + 1)
    return [(columns * TILE, rows * TILE) for columns in counts for rows in range(1, hd_num // columns + 1)]
