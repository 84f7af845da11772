"""lmdeploy's VLAsyncEngine for a model folder on this machine: lingbi's vision encoder beside TurboMind or the CPU engine."""

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from lmdeploy.messages import TurbomindEngineConfig
from lmdeploy.model import ChatTemplateConfig
from lmdeploy.serve.async_engine import AsyncEngine
from lmdeploy.serve.vl_async_engine import VLAsyncEngine as PatchedEngine
from lmdeploy.vl.templates import get_vl_prompt_template

from lingbi.engine.prompt_forms import form_of
from lingbi.model.folder import ModelFolder
from lingbi.model.gpus import CPU, TURBOMIND
from lingbi.model.host_memory import CpuFit
from lingbi.model.share import share_of
from lingbi.model.sizing import Fit
from lingbi.settings import Settings
from lingbi.turns import reserve_of
from lingbi.vision.cache import FeatureCache
from lingbi.vision.encoder import ImageEncoder

if TYPE_CHECKING:
    import torch
    from lmdeploy.serve.vl_async_engine import VLAsyncEngine

    from lingbi.vision.tower import GpuVisionModel
else:
    VLAsyncEngine = inspect.unwrap(PatchedEngine)  # patches.engine_by_machine puts a proxy in the class's place
CPU_INSTANCES = 64  # handles of the CPU engine, whose fit limits the answers that it computes at once


def nobody(*_: int) -> None:
    """A listener that does nothing."""


@dataclass(frozen=True)
class EngineNeeds:
    """Everything that an engine needs to be created.

    fit: its settings and memory, of the kind for its device; on_vision_loaded: called after the vision tower is loaded
    and before the language model is; on_weights: called with (bytes done, bytes in all) while that is copied to a GPU;
    tower: what load_tower returned for the folder, for a GPU; pins_ahead: whether memory for features is pinned before there
    are any, which a start that nobody waits for has the time for.
    """

    folder: ModelFolder
    settings: Settings
    fit: Fit | CpuFit
    on_vision_loaded: Callable[[], None] = nobody
    on_weights: Callable[[int, int], None] = nobody
    tower: "torch.nn.Module | None" = None
    pins_ahead: bool = True

    @property
    def engine(self) -> str:
        return CPU if isinstance(self.fit, CpuFit) else TURBOMIND

    @property
    def cards(self) -> int:
        """GPUs that hold this copy of the model together; 1 on a CPU."""
        return 1 if isinstance(self.fit, CpuFit) else self.fit.cards

    def backend_config(self) -> TurbomindEngineConfig:
        """The fit as lmdeploy's configuration."""
        fit = self.fit
        if isinstance(fit, CpuFit):
            return TurbomindEngineConfig(session_len=fit.session_len, max_batch_size=CPU_INSTANCES)
        config = TurbomindEngineConfig(
            session_len=fit.session_len,
            max_batch_size=fit.max_batch_size + reserve_of(fit.max_batch_size),
            quant_policy=int(fit.quant_policy),
            max_prefill_token_num=fit.prefill_tokens,
            tp=fit.cards,
        )
        # TurboMind reads values from 1 up as a number of blocks; the config's own validation only allows fractions.
        config.cache_max_entry_count = float(fit.blocks)
        return config


class LocalEngine(VLAsyncEngine):  # type: ignore[misc]  # lmdeploy has no types
    """The engine that serves. Encoder and model come from the needs, not from what lmdeploy derives from a path.

    prompt_form: the form of lingbi's prompts; lmdeploy's own commands make theirs with vl_prompt_template.
    """

    def __init__(self, needs: EngineNeeds, config: TurbomindEngineConfig | None = None, **options: Any):
        self.needs = needs
        folder = needs.folder
        path = os.fspath(folder.link_in(needs.settings.state_dir / "models"))
        self.vl_encoder = build_encoder(needs, path)
        needs.on_vision_loaded()
        template = options.pop("chat_template_config", None) or ChatTemplateConfig(folder.template)
        template.model_name = template.model_name or folder.template
        options["model_name"] = options.get("model_name") or folder.served_name
        config = config or needs.backend_config()
        share_of(folder, config.tp)  # raises where so many cards cannot hold it together
        config.session_len = config.session_len or folder.session_len
        AsyncEngine.__init__(self, path, backend_config=config, chat_template_config=template, **options)
        self.vl_prompt_template = get_vl_prompt_template(path, self.chat_template, self.model_name)
        self.prompt_form = form_of(needs.settings.prompt_form, folder, self.chat_template)

    def _build_turbomind(
        self,
        model_path: str,
        backend_config: TurbomindEngineConfig,
        chat_template_config: ChatTemplateConfig,
        tp: int = 1,
        **options: Any,
    ) -> None:
        """Called by lmdeploy for its default backend; on a CPU the CPU engine takes its place."""
        if self.needs.engine == CPU:
            self._build_cpu(model_path, backend_config)
            return
        from lingbi.engine.turbomind.streams import feature_dtype
        from lingbi.engine.turbomind.uploads import watched

        with watched(self.needs.on_weights, self.needs.cards):
            super()._build_turbomind(model_path, backend_config, chat_template_config, tp, **options)
        cast("GpuVisionModel", self.vl_encoder.model).feature_dtype = feature_dtype(self.engine)

    def _build_cpu(self, model_path: str, backend_config: TurbomindEngineConfig) -> None:
        from lingbi.engine.cpu.scheduler import CpuEngine

        fit = self.needs.fit
        self.backend_config = backend_config
        self.engine = CpuEngine(
            model_path,
            stop_words=self.chat_template.stop_words,
            threads=self.needs.settings.cpu_threads,
            sequences=fit.max_batch_size + reserve_of(fit.max_batch_size),
            prefill_tokens=fit.prefill_tokens,
        )


def build_encoder(needs: EngineNeeds, path: str) -> ImageEncoder:
    """The vision encoder, on the device of the engine."""
    cache_bytes = needs.settings.picture_cache_mib << 20
    if needs.engine == TURBOMIND:
        from lingbi.vision.tower import GpuVisionModel

        model = GpuVisionModel(path, needs.settings.hd_num, loaded=needs.tower)
        if needs.pins_ahead:
            model.pin_ahead(cache_bytes)
    else:
        from lingbi.engine.cpu.checkpoint import CpuVisionModel

        model = CpuVisionModel(path, needs.settings.hd_num)
    return ImageEncoder(model, FeatureCache(cache_bytes))
