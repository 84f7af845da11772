"""Named corrections of lmdeploy 0.4.1, put in when its modules are imported (see hook.py).

They hold for lingbi's own server and for lmdeploy's commands and `pipeline` in this environment:
a start needs no network and opens no tunnel, the chat template follows from what a model folder
contains, one bad picture harms nobody else (vision/encoder.py), and without a GPU the CPU engine serves.
"""

import os
from functools import lru_cache
from pathlib import Path

import wrapt

CLIP_NAME = "openai/clip-vit-large-patch14-336"
CLIP_CONFIG = Path(__file__).parents[1] / "model" / "clip"


def offline_clip(module) -> None:
    """Read CLIP's config from this package: lmdeploy asks a hub for it though the weights are local."""
    fetch = module._CLIPVisionModel_from_pretrained

    def from_pretrained(name, *args, **kwargs):
        return fetch(os.fspath(CLIP_CONFIG) if name == CLIP_NAME else name)

    module._CLIPVisionModel_from_pretrained = from_pretrained


def own_encoder(module) -> None:
    """Encode pictures with lingbi's encoder, on the device of the engine that serves."""
    module.ImageEncoder = build_encoder


def build_encoder(model_path: str):
    """What lmdeploy's VLAsyncEngine takes for its ImageEncoder."""
    from lingbi.settings import load_settings
    from lingbi.vision.cache import FeatureCache
    from lingbi.vision.encoder import ImageEncoder

    settings = load_settings()
    cache_bytes = settings.picture_cache_mib << 20
    if _choice().engine == "turbomind":
        from lingbi.vision.tower import GpuVisionModel

        model = GpuVisionModel(model_path, settings.hd_num)
        model.pin_ahead(cache_bytes)
    else:
        from lingbi.engine.cpu.checkpoint import CpuVisionModel

        model = CpuVisionModel(model_path, settings.hd_num)
    after_vision()
    return ImageEncoder(model, FeatureCache(cache_bytes))


def after_vision() -> None:
    """Called when the vision tower is loaded; a worker puts its own in place, to tell its progress."""


def engine_by_machine(module) -> None:
    """Choose template and engine by content and machine; lmdeploy reads them from the path."""
    from lmdeploy.messages import TurbomindEngineConfig
    from lmdeploy.model import ChatTemplateConfig

    @wrapt.patch_function_wrapper(module, "VLAsyncEngine.__init__")
    def init(wrapped, instance, args, kwargs):
        from lingbi.model.folder import inspect
        from lingbi.settings import load_settings

        model_path = args[0] if args else kwargs.pop("model_path")
        folder = inspect(model_path)
        template = kwargs.get("chat_template_config") or ChatTemplateConfig(folder.template)
        template.model_name = template.model_name or folder.template
        kwargs["chat_template_config"] = template
        kwargs["model_name"] = kwargs.get("model_name") or folder.served_name
        kwargs["backend_config"] = kwargs.get("backend_config") or TurbomindEngineConfig()
        links = load_settings().state_dir / "models"
        return wrapped(os.fspath(folder.link_in(links)), **kwargs)

    def build(self, model_path, backend_config, chat_template_config, tp=1, **kwargs):
        if _choice().engine == "turbomind":
            from lingbi.engine.turbomind.streams import feature_dtype

            build_turbomind(self, model_path, backend_config, chat_template_config, tp, **kwargs)
            self.vl_encoder.model.feature_dtype = feature_dtype(self.engine)
        else:
            build_cpu(self, model_path, backend_config)

    build_turbomind = module.VLAsyncEngine._build_turbomind
    module.VLAsyncEngine._build_turbomind = build


def build_cpu(engine, model_path: str, backend_config) -> None:
    """Give lmdeploy's AsyncEngine the CPU engine in TurboMind's place."""
    from lingbi.engine.cpu.scheduler import CpuEngine
    from lingbi.settings import load_settings

    settings = load_settings()
    if backend_config.session_len is None:
        backend_config.session_len = engine.chat_template.session_len
    engine.backend_config = backend_config
    engine.engine = CpuEngine(
        model_path,
        stop_words=engine.chat_template.stop_words,
        threads=settings.cpu_threads,
        sequences=settings.cpu_sequences,
        prefill_tokens=settings.cpu_prefill_tokens,
    )


def private_page(module) -> None:
    """Never open a public tunnel: lmdeploy's page asks for one in its code."""

    @wrapt.patch_function_wrapper(module, "Blocks.launch")
    def launch(wrapped, instance, args, kwargs):
        kwargs["share"] = False
        return wrapped(*args, **kwargs)


@lru_cache(maxsize=1)
def _choice():
    from lingbi.model.gpus import choose_engine, find_gpus
    from lingbi.settings import load_settings

    return choose_engine(load_settings().engine, find_gpus())
