"""Runs at every start of this environment's Python (a line in lingbi.pth): registers the patches.

Nothing heavy may be imported here; each patch runs when its module is first imported.
"""

import os

import wrapt

# Read by the libraries at import. No start may wait for, or talk to, anybody outside.
OFFLINE = {"HF_HUB_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False", "DO_NOT_TRACK": "1"}

PATCHES = {
    "lmdeploy.vl.model.xcomposer2": ("offline_clip", "rgb_pictures"),
    "lmdeploy.vl.engine": ("isolated_encoder", "vision_by_engine"),
    "lmdeploy.serve.vl_async_engine": ("engine_by_machine",),
    "gradio.blocks": ("private_page",),
}


def register() -> None:
    for key, value in OFFLINE.items():
        os.environ.setdefault(key, value)
    for module, patches in PATCHES.items():
        for patch in patches:
            wrapt.register_post_import_hook(f"lingbi.lmdeploy_patches:{patch}", module)


register()
