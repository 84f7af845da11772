"""Rearranged weights of CLIP compute the same."""

import torch

from lingbi.vision.clip import PROJECTIONS, folded_activation, packed_projections


def clip_layers():
    from transformers import CLIPVisionConfig, CLIPVisionModel

    sizes = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4)
    config = CLIPVisionConfig(**sizes, image_size=28, patch_size=14, hidden_act="quick_gelu")
    torch.manual_seed(0)
    return CLIPVisionModel(config).double().vision_model.encoder.layers


def test_the_activation_folded_into_the_weights_computes_the_same():
    layers, x = clip_layers(), torch.randn(5, 64).double()
    expected = [layer.mlp(x) for layer in layers]
    folded_activation(layers)
    for layer, before in zip(layers, expected, strict=True):
        assert isinstance(layer.mlp.activation_fn, torch.nn.SiLU)
        # the weights go through float32 once
        torch.testing.assert_close(layer.mlp(x), before, rtol=1e-5, atol=1e-6)


def test_another_activation_stays():
    layers = clip_layers()
    layers[0].mlp.activation_fn = torch.nn.GELU()
    before = layers[0].mlp.fc1.weight.clone()
    folded_activation(layers)
    assert torch.equal(layers[0].mlp.fc1.weight, before) and isinstance(layers[0].mlp.activation_fn, torch.nn.GELU)


def test_packed_projections_are_query_key_and_value():
    layers, x = clip_layers(), torch.randn(5, 64).double()
    expected = [[getattr(layer.self_attn, name)(x) for name in PROJECTIONS] for layer in layers]
    packed_projections(layers)
    for layer, parts in zip(layers, expected, strict=True):
        torch.testing.assert_close(layer.self_attn.qkv_proj(x), torch.cat(parts, dim=1))
        assert not any(hasattr(layer.self_attn, name) for name in PROJECTIONS)
