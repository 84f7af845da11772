"""Runs at every start of this environment's Python (a line in lingbi.pth): registers the patches.

Nothing heavy may be imported here; each patch runs when its module is first imported.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

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


class Patching:
    """A finder that registers the patches when the first module that has some is looked for: an import of wrapt, with asyncio
    and inspect, takes ten times as long as all else of Python's start, and most of our commands patch nothing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module as all finders find it, wrapt's among them; None for modules without patches."""
        if name not in PATCHES:
            return None
        from importlib.util import find_spec

        with self._lock:
            if self in sys.meta_path:
                register_patches()
                sys.meta_path.remove(self)
        return find_spec(name)


def register_patches() -> None:
    import wrapt

    for module, patches in PATCHES.items():
        for patch in patches:
            wrapt.register_post_import_hook(f"lingbi.{patch}", module)


def register() -> None:
    for key, value in OFFLINE.items():
        os.environ.setdefault(key, value)
    # httpx's own command line imports rich and pygments, which is a third of the start time of most of our commands.
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]  # None: an import of it fails
    if STOCK not in os.environ:
        sys.meta_path.insert(0, Patching())


register()
