"""What one of several cards has of a model that they hold together: TurboMind's tensor parallelism.

TurboMind 0.4.1 divides heads, neurons and the KV cache among the cards. Every card has all of the token embeddings, of the
output matrix and of the norms, and of PLoRA the matrices that are not along heads or neurons (lmdeploy's
`turbomind/deploy/target_model/plora.py`). The vision tower is on the first card alone.
"""

from dataclasses import dataclass, replace

from lingbi.errors import ConfigurationError
from lingbi.model.catalogue import Geometry, ModelFacts

PLORA_RANK = 256
WIDTH = 2  # bytes of a number


@dataclass(frozen=True)
class Share:
    """The facts of a model as the first of several cards has it, which is the fullest one; see catalogue.ModelFacts."""

    model: ModelFacts
    cards: int

    @property
    def served_name(self) -> str:
        return self.model.served_name

    @property
    def image_side(self) -> int | None:
        return self.model.image_side

    @property
    def session_len(self) -> int:
        return self.model.session_len

    @property
    def geometry(self) -> Geometry:
        """The shape with this card's neurons and key-value heads; the width of a head is as before."""
        whole = self.model.geometry
        part = replace(whole, intermediate_size=whole.intermediate_size // self.cards)
        return replace(part, kv_heads=whole.kv_heads // self.cards)

    @property
    def weight_bytes(self) -> int:
        shape = self.model.geometry
        copied = copied_bytes(shape)
        return copied + (language_bytes(shape) - copied) // self.cards + tower_weights(self.model)


def share_of(model: ModelFacts, cards: int) -> ModelFacts:
    """The model as each of so many cards has it; with one card the model itself.

    Raises ConfigurationError for one whose tensors cannot be divided so, and for a tiled one.
    """
    if cards == 1:
        return model
    if fault := fault_in_sharing(model, cards):
        raise ConfigurationError(f"{model.served_name} {fault}; LINGBI_TP=1")
    return Share(model, cards)


def can_share(model: ModelFacts, cards: int) -> bool:
    """Whether so many cards can hold a model together."""
    return cards == 1 or fault_in_sharing(model, cards) is None


def fault_in_sharing(model: ModelFacts, cards: int) -> str | None:
    """Why so many cards cannot hold a model together; None: they can."""
    shape = model.geometry
    if shape.kv_heads % cards or shape.heads % cards or shape.intermediate_size % cards:
        return f"has {shape.kv_heads} key-value head(s), which {cards} cards cannot share"
    if model.image_side is None:
        return (
            "runs on one card only: its vision tower takes new memory with every new shape of a picture, which can stop "
            "cards that work together for ever (docs/tensor-parallel.md)"
        )
    return None


def cards_of(model: ModelFacts) -> int:
    """How many cards hold it together."""
    return model.cards if isinstance(model, Share) else 1


def tower_weights(model: ModelFacts) -> int:
    """Size in bytes of the vision tower's tensors."""
    whole = model.model if isinstance(model, Share) else model
    return max(0, whole.weight_bytes - language_bytes(whole.geometry))


def language_bytes(shape: Geometry) -> int:
    """Size of the language model's tensors."""
    hidden, neurons, keys = (
        shape.hidden_size,
        shape.intermediate_size,
        shape.kv_heads * shape.hidden_size // shape.heads,
    )
    matrices = (hidden + 2 * keys) * hidden + hidden * hidden + 3 * hidden * neurons
    down, up = 4 * hidden + neurons, (hidden + 2 * keys) + 2 * hidden + 2 * neurons
    layer = matrices + PLORA_RANK * (down + up) + 2 * hidden
    return WIDTH * (shape.layers * layer + 2 * shape.vocabulary * hidden + hidden)


def copied_bytes(shape: Geometry) -> int:
    """Size of the tensors that every card has whole: PLoRA's first matrix of wqkv, w1 and w3, its second of wo and w2,
    norms, token embeddings and output."""
    hidden = shape.hidden_size
    return WIDTH * (shape.layers * (5 * PLORA_RANK * hidden + 2 * hidden) + 2 * shape.vocabulary * hidden + hidden)
