"""Configuration of InternLM-XComposer2, for the published geometries and for the demo."""

from transformers import PretrainedConfig

HD_MAX_LENGTH = 16384


class InternLMXcomposer2Config(PretrainedConfig):
    """The geometry of the language model and of the vision tower.

    Args:
        img_size: side in pixels that a picture is resized to; None for 4khd, which cuts tiles of 336.
        vision_config: fields of a `CLIPVisionConfig`; None stands for openai/clip-vit-large-patch14-336.
        vision_merge: n x n neighbouring patches become one picture token (1 in the published models, 4khd merges 2 x 2 by itself).
        tie_plora: whether all layers share their PLoRA matrices (never in the published models).
        vision_stem: (channels, stride) of convolutions before the tower; None in the published models.
    """

    model_type = "internlmxcomposer2"
    keys_to_ignore_at_inference = ["past_key_values"]

    def __init__(
        self,
        vocab_size=92544,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=None,
        max_position_embeddings=32768,
        initializer_range=0.02,
        rms_norm_eps=1e-5,
        rope_theta=1000000,
        rope_scaling=None,
        use_cache=True,
        bias=False,
        img_size=None,
        vision_config=None,
        vision_merge=1,
        vision_stem=None,
        tie_plora=False,
        pad_token_id=2,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
        **kwargs,
    ):
        if bias:
            raise ValueError("bias: true is not supported: no InternLM-XComposer2 has biases in its language model")
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.num_key_value_heads = num_key_value_heads or num_attention_heads
        self.max_position_embeddings = max_position_embeddings
        self.initializer_range = initializer_range
        self.rms_norm_eps = rms_norm_eps
        self.rope_theta = rope_theta
        self.rope_scaling = rope_scaling
        self.use_cache = use_cache
        self.bias = bias
        self.img_size = img_size
        self.vision_config = vision_config
        self.vision_merge = vision_merge
        self.vision_stem = vision_stem
        self.tie_plora = tie_plora
        super().__init__(
            pad_token_id=pad_token_id,
            bos_token_id=bos_token_id,
            eos_token_id=eos_token_id,
            tie_word_embeddings=tie_word_embeddings,
            **kwargs,
        )

    @property
    def is_hd(self):
        """True for 4khd, recognised as lmdeploy recognises it: by `max_length`."""
        return self.max_length == HD_MAX_LENGTH

    @property
    def wqkv_plora(self):
        """(rank, scale) of the PLoRA on wqkv; on all other matrices it is (256, 1)."""
        return (8, 2.0) if self.is_hd else (256, 1.0)
