"""Whether lingbi's decoder computes what a folder's own code computes: asked once, when a model is loaded.

The whole short prompt is the one call that every published variant of the code answers rightly, whatever it makes of
positions and caches. An answer that differs, or none, means a model that lingbi does not know: a start must not
serve it. What the code does beyond that call is looked at too, for people (scripts/verify-model).
"""

import logging
from dataclasses import dataclass
from typing import Any

import torch

from lingbi.engine.cpu.decoder import Decoder
from lingbi.errors import StartError

log = logging.getLogger(__name__)
TOKENS = 24
IMAGE_TOKENS = slice(6, 14)
# Of 92544 logits after 24 layers in bfloat16 with random weights it is 0.9998; another rotation gives 0.2.
LEAST_COSINE = 0.99
BY_POSITION, BY_LENGTH, UNKNOWN = "by position", "by cache length", "unknown"


@dataclass(frozen=True)
class Conventions:
    """What a folder's own code does.

    cosine: least of its logits to the decoder's; rotation: how it rotates several new tokens on top of a cache;
    attention: the class that attends.
    """

    cosine: float
    rotation: str
    attention: str


def check_agreement(model: torch.nn.Module, decoder: Decoder, where: str) -> float:
    """The cosine of the last token's logits to those of the folder's own code. Raises StartError where they differ.

    where: the folder, for people.
    """
    prompt, image_mask = _prompt(model)
    try:
        own = _whole(model, prompt, image_mask).logits[0, -1]
    except Exception as error:  # whatever remote code may raise
        raise StartError(
            f"the code in {where} cannot compute a prompt of {TOKENS} tokens on the CPU "
            f"({type(error).__name__}: {error}); fetch the published files again, or update the folder's code"
        ) from error
    found = decoder(prompt[0], image_mask[0], decoder.new_cache())
    cosine = float(torch.cosine_similarity(own.float(), found.float(), dim=0))
    log.info("the decoder agrees with the folder's own code: cosine %.6f of the logits", cosine)
    if not cosine >= LEAST_COSINE:  # also for NaN
        raise StartError(
            f"the code in {where} computes another model than InternLM-XComposer2 as published: the logits of a short "
            f"prompt have a cosine of {cosine:.4f} to lingbi's, and at least {LEAST_COSINE} is needed; fetch the published "
            "files again, or serve the folder on a GPU"
        )
    return cosine


def conventions(model: torch.nn.Module, decoder: Decoder, where: str) -> Conventions:
    """What the folder's own code does with positions and caches. Raises StartError as `check_agreement`."""
    cosine = check_agreement(model, decoder, where)
    return Conventions(cosine, _rotation(model, decoder), type(model.model.layers[0].attention).__name__)


def _rotation(model: torch.nn.Module, decoder: Decoder) -> str:
    """How the code rotates the second half of a prompt on top of the first half's cache."""
    prompt, image_mask = _prompt(model)
    half = TOKENS // 2 + 2  # the halves differ, or rows of the wrong table would have the right number
    begun = _whole(model, prompt[:, :half], image_mask[:, :half])
    try:
        ended = model(
            inputs_embeds=prompt[:, half:],
            im_mask=image_mask[:, half:],
            attention_mask=torch.ones(1, TOKENS, dtype=torch.long),
            position_ids=torch.arange(half, TOKENS)[None],
            past_key_values=begun.past_key_values,
            use_cache=True,
        ).logits[0, -1]
    except RuntimeError:  # shapes that do not fit: rows of the whole table for half of the tokens
        return BY_LENGTH
    found = decoder(prompt[0], image_mask[0], decoder.new_cache())
    cosine = float(torch.cosine_similarity(ended.float(), found.float(), dim=0))
    return BY_POSITION if cosine >= LEAST_COSINE else UNKNOWN


def _whole(model: torch.nn.Module, prompt: torch.Tensor, image_mask: torch.Tensor) -> Any:
    tokens = prompt.shape[1]
    mask = torch.ones(1, tokens, dtype=torch.long)
    return model(inputs_embeds=prompt, im_mask=image_mask, attention_mask=mask, use_cache=True)


def _prompt(model: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings [1, TOKENS, hidden] and mask [1, TOKENS] of a prompt with an image's tokens in it."""
    step = max(1, model.config.vocab_size // TOKENS)
    prompt = model.model.tok_embeddings(torch.arange(TOKENS)[None] * step)
    image_mask = torch.zeros(1, TOKENS, dtype=torch.bool)
    image_mask[0, IMAGE_TOKENS] = True
    return prompt, image_mask
