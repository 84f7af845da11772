"""InternLM-XComposer2: a CLIP tower whose picture tokens a language model reads through PLoRA.

Written for lingbi from the interface that lmdeploy 0.4.1 uses and from the tensor lists of the published checkpoints; by its
configuration it builds the published geometries as well as the demo's.
"""

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from .build_mlp import CLIPVisionTower, VisProcessor, build_vision_projector
from .configuration_internlm_xcomposer2 import InternLMXcomposer2Config
from .modeling_internlm2 import InternLM2Model


class InternLMXComposer2ForCausalLM(PreTrainedModel):
    """The whole model; `vit`, `vision_proj` and `vis_processor` make picture tokens, the rest reads them."""

    config_class = InternLMXcomposer2Config
    base_model_prefix = "model"
    _no_split_modules = ["DecoderLayer", "CLIPVisionTower"]

    def __init__(self, config):
        super().__init__(config)
        self.model = InternLM2Model(config)
        self.output = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.vit = CLIPVisionTower(config)
        self.vision_proj = build_vision_projector(config, self.vit.vision_tower.config.hidden_size)
        self.vis_processor = VisProcessor(None if config.is_hd else config.img_size)
        if config.is_hd:
            self.plora_glb_GN = nn.Parameter(torch.zeros(1, 1, self.vision_proj[0].in_features))
            self.plora_sub_GN = nn.Parameter(torch.zeros(1, 1, 1, self.vision_proj[0].in_features))
        self.post_init()

    def _init_weights(self, module):
        if isinstance(module, nn.Linear | nn.Embedding):
            module.weight.data.normal_(std=self.config.initializer_range)
        if isinstance(module, nn.Linear) and module.bias is not None:
            module.bias.data.zero_()

    def get_input_embeddings(self):
        return self.model.tok_embeddings

    def set_input_embeddings(self, value):
        self.model.tok_embeddings = value

    def get_output_embeddings(self):
        return self.output

    def set_output_embeddings(self, value):
        self.output = value

    def forward(
        self,
        input_ids=None,
        inputs_embeds=None,
        im_mask=None,
        past_key_values=None,
        attention_mask=None,
        position_ids=None,
        use_cache=True,
        return_dict=True,
        **unused,
    ):
        """Logits [batch, tokens, vocabulary] of new tokens; the arguments are those of `InternLM2Model.forward`."""
        if inputs_embeds is None:
            inputs_embeds = self.model.tok_embeddings(input_ids)
        out = self.model(inputs_embeds, im_mask, past_key_values, attention_mask, position_ids)
        past = out.past_key_values if use_cache else None
        return CausalLMOutputWithPast(logits=self.output(out.last_hidden_state), past_key_values=past)

    def prepare_inputs_for_generation(
        self, input_ids, past_key_values=None, attention_mask=None, inputs_embeds=None, im_mask=None, **kwargs
    ):
        if past_key_values is not None:
            return dict(input_ids=input_ids[:, -1:], past_key_values=past_key_values, attention_mask=attention_mask)
        tokens = dict(input_ids=input_ids) if inputs_embeds is None else dict(inputs_embeds=inputs_embeds)
        return dict(tokens, im_mask=im_mask, attention_mask=attention_mask)

    @staticmethod
    def _reorder_cache(past_key_values, beam_idx):
        return tuple(tuple(x.index_select(0, beam_idx) for x in layer) for layer in past_key_values)
