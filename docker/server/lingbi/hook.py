"""Runs at every start of this environment's Python (a line in lingbi.pth): registers the patches.

Nothing heavy may be imported here; each patch runs when its module is first imported.
"""

import os
import sys

import wrapt

# The libraries read these at import. No start may wait for or contact an outside service.
OFFLINE = {"HF_HUB_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False", "DO_NOT_TRACK": "1"}

# Set for a process that must run lmdeploy as published; scripts/bench compares with that.
STOCK = "LINGBI_STOCK"

# Module: the functions, as "module of this package:function", that correct it when it is imported.
PATCHES = {
    "lmdeploy.vl.model.xcomposer2": ("engine.patches:offline_clip",),
    "lmdeploy.serve.vl_async_engine": ("engine.patches:engine_by_machine",),
    "lmdeploy.turbomind.turbomind": (
        "engine.turbomind.streams:woken_streams",
        "engine.turbomind.streams:uncopied_features",
    ),
    "lmdeploy.turbomind.deploy.source_model.xomposer2": ("engine.turbomind.uploads:mapped_readers",),
    "lmdeploy.turbomind.deploy.target_model.base": ("engine.turbomind.uploads:exported_from_gpu",),
    "transformers.models.clip.modeling_clip": ("vision.clip:fused_attention", "vision.clip:patches_by_matrix"),
    "gradio.blocks": ("engine.patches:private_page",),
}


def register() -> None:
    for key, value in OFFLINE.items():
        os.environ.setdefault(key, value)
    # httpx's own command line imports rich and pygments, which is a third of the start time of most of our commands.
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]  # None: an import of it fails
    for module, patches in PATCHES.items() if STOCK not in os.environ else ():
        for patch in patches:
            wrapt.register_post_import_hook(f"lingbi.{patch}", module)


register()
