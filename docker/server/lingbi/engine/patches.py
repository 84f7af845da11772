"""Named corrections of lmdeploy 0.4.1, put in when its modules are imported (see hook.py).

They hold for lingbi's own server and for lmdeploy's commands and `pipeline` in this environment:
a start needs no network and opens no tunnel, the chat template follows from what a model folder
contains, one bad image harms nobody else (vision/encoder.py), and without a GPU the CPU engine serves.
"""

import os
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


def engine_by_machine(module) -> None:
    """Give lmdeploy's own commands and `pipeline` lingbi's engine: template by content, encoder and engine by machine.

    lmdeploy reads all of these from the path, and its encoder dies of the first bad image.
    """
    wrapt.wrap_object(module, "VLAsyncEngine", MachineEngine)


class MachineEngine(wrapt.ObjectProxy):
    """Stands for the class VLAsyncEngine where lmdeploy makes one; lingbi's own programs make a LocalEngine."""

    def __call__(self, model_path: str, backend_config=None, **options):
        from lingbi.engine.local import LocalEngine

        return LocalEngine(needs_of_machine(model_path), backend_config, **options)


def needs_of_machine(model_path: str):
    """What the engine of a folder needs on this machine, by its settings. Raises ConfigurationError."""
    from lingbi.engine.local import EngineNeeds
    from lingbi.model.folder import inspect
    from lingbi.model.gpus import choose_engine, find_gpus
    from lingbi.model.host_memory import available_mib, fit_of_worker
    from lingbi.settings import load_settings

    settings, gpus, folder = load_settings(), find_gpus(), inspect(model_path)
    engine = choose_engine(settings.engine, gpus).engine
    return EngineNeeds(folder, settings, fit_of_worker(folder, engine, gpus, available_mib(), settings))


def private_page(module) -> None:
    """Never open a public tunnel: lmdeploy's page asks for one in its code."""

    @wrapt.patch_function_wrapper(module, "Blocks.launch")
    def launch(wrapped, instance, args, kwargs):
        kwargs["share"] = False
        return wrapped(*args, **kwargs)
