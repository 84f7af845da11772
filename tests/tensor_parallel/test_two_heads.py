"""The demo model with two key-value heads computes what the demo model computes, and a part of it elsewhere does not."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.conftest import DEMO
from tests.tensor_parallel.two_heads import HEAD, make_two_heads

TOKENS, IMAGE = 60, slice(10, 46)


def logits(model) -> torch.Tensor:
    """Logits of a prompt with an image's tokens in it."""
    ids = torch.randint(3, 1000, (1, TOKENS), generator=torch.Generator().manual_seed(0))
    is_image = torch.zeros(1, TOKENS, dtype=torch.bool)
    is_image[:, IMAGE] = True
    with torch.inference_mode():
        return model(inputs_embeds=model.model.tok_embeddings(ids), im_mask=is_image).logits


def loaded(folder):
    return AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, torch_dtype=torch.float32).eval()


def test_two_key_value_heads_give_the_same_logits(tmp_path):
    expected = logits(loaded(DEMO))
    model = loaded(make_two_heads(DEMO, tmp_path / "model"))
    assert model.config.num_key_value_heads == 2
    torch.testing.assert_close(logits(model), expected, atol=1e-3, rtol=1e-3)
    wo = model.model.layers[0].attention.wo
    for weight in (wo.weight, wo.Plora_A.weight):  # what one card has, swapped with what the other has
        kept = weight.data.clone()
        weight.data = torch.cat((kept[:, HEAD:], kept[:, :HEAD]), dim=1)
        with pytest.raises(AssertionError):
            torch.testing.assert_close(logits(model), expected, atol=1e-1, rtol=1e-1)
        weight.data = kept
