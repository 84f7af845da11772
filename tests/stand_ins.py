"""Model folders whose remote code behaves as that of the published repositories does, made from the demo's.

The published code cannot be part of this repository, and differs from the demo's in what tests must meet: how it
rotates, what it prints, what it asks of a machine, and which files lie beside it. Each difference is an edit of the
demo's code that is refused where the code has changed and the edit no longer fits.
"""

import json
import shutil
from pathlib import Path

from tests.conftest import DEMO

ROTATION = "        cos, sin = rotary_table(position_ids, self.head_dim, self.theta, inputs_embeds.dtype)\n"
# vl-7b, 7b and vl-1_8b: the first rows of the table for several tokens, the last row for one, whatever the positions.
ROTATION_BY_LENGTH = """        tokens = inputs_embeds.shape[1]
        rows = torch.arange(n_past + tokens, device=inputs_embeds.device)[None]
        rows = rows[:, -1:] if tokens == 1 else rows
        cos, sin = rotary_table(rows, self.head_dim, self.theta, inputs_embeds.dtype)
"""
ROTATION_BY_OTHER_RULE = (
    "        cos, sin = rotary_table(2 * position_ids, self.head_dim, self.theta, inputs_embeds.dtype)\n"
)
CONFIG_END = "        super().__init__(\n            pad_token_id=pad_token_id,\n"
KEPT_ATTENTION = '        self.attn_implementation = kwargs.get("attn_implementation")\n'
THETA = "        self.theta = config.rope_theta\n        self.head_dim = config.hidden_size // config.num_attention_heads\n        self.tok"
ATTENTION = "        self.attention = config.attn_implementation\n"
FORWARD = "        batch, tokens, _ = inputs_embeds.shape\n        n_past = "
FLASH = """        if self.attention == "flash_attention_2":
            import flash_attn  # noqa: F401 - CUDA only
"""
ATTENDED = "        out = F.scaled_dot_product_attention(\n"
DROPOUT = (
    "        dropout = self.attention_dropout if self.training else 0.0\n        query = query * (1.0 - dropout)\n"
)
TOWER = "        self.vit = CLIPVisionTower(config)\n"
POSITIONS = "        if self.stem_layers:\n            return  # the table"
CHAT = """
    def chat(
        self,
        tokenizer,
        query,
        image=None,
        meta_instruction: str = "You are an AI assistant whose name is Stand-in.\\n"
        "- Stand-in tells what is in an image.",
    ):
        raise RuntimeError("lingbi must read this, and never call it")

    @staticmethod
    def _reorder_cache("""
STALE_INDEX = {
    "metadata": {"total_size": 17333676032},
    "weight_map": {
        "model.norm.weight": "pytorch_model-00001-of-00002.bin",
        "output.weight": "pytorch_model-00002-of-00002.bin",
    },
}


def as_published_vl(to: Path) -> Path:
    """As vl-7b, 7b and vl-1_8b: rotation by length, prints, an attribute that only training has, other files, vl-1_8b's
    stale index; its `chat` has a system prompt of its own."""
    shutil.copytree(DEMO, to)
    language, whole, tower = (
        to / name for name in ("modeling_internlm2.py", "modeling_internlm_xcomposer2.py", "build_mlp.py")
    )
    edit(language, ROTATION, ROTATION_BY_LENGTH)
    edit(language, ATTENDED, DROPOUT + ATTENDED)
    edit(whole, TOWER, "        print(f'Set max length to {config.max_length}')\n" + TOWER)
    edit(whole, "\n    @staticmethod\n    def _reorder_cache(", CHAT)
    edit(tower, POSITIONS, "        print('Position interpolate from 24x24 to 35x35')\n" + POSITIONS)
    edit_json(to / "config.json", model_type="internlm")  # transformers warns of it
    (to / "pytorch_model.bin.index.json").write_text(json.dumps(STALE_INDEX))
    (to / "configuration.json").write_text('{"framework": "pytorch", "task": "visual-question-answering"}')
    (to / "logo_en.png").write_bytes(b"\x89PNG")
    (to / "zero_to_fp32.py").write_text("raise RuntimeError('not a part of the model')\n")
    return to


def as_published_4khd(to: Path) -> Path:
    """As 4khd-7b: rotation by position, and a config that asks for flash attention, which is CUDA only."""
    shutil.copytree(DEMO, to)
    language = to / "modeling_internlm2.py"
    edit(to / "configuration_internlm_xcomposer2.py", CONFIG_END, KEPT_ATTENTION + CONFIG_END)
    edit(language, THETA, ATTENTION + THETA)
    edit(language, FORWARD, FLASH + FORWARD)
    edit_json(to / "config.json", attn_implementation="flash_attention_2")
    return to


def of_another_model(to: Path) -> Path:
    """A folder of the right form whose code computes something else."""
    shutil.copytree(DEMO, to)
    edit(to / "modeling_internlm2.py", ROTATION, ROTATION_BY_OTHER_RULE)
    return to


def edit(file: Path, old: str, new: str) -> None:
    """Replace the one occurrence of a text."""
    text = file.read_text()
    assert text.count(old) == 1, f"{file.name} has changed: adapt tests/stand_ins.py"
    file.write_text(text.replace(old, new))


def edit_json(file: Path, **changes) -> None:
    """Set values of a JSON object."""
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
