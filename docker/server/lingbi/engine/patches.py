"""Named corrections of lmdeploy 0.4.1, applied when its modules are imported (see hook.py).

They apply to lingbi's own server and to lmdeploy's commands and `pipeline` in this environment: a start needs no network
and opens no tunnel, the chat template follows from the contents of a model folder, a bad image fails only its own request
(vision/encoder.py), and the CPU engine serves where there is no GPU.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import wrapt

if TYPE_CHECKING:
    from lingbi.engine.local import EngineNeeds, LocalEngine

CLIP_NAME = "openai/clip-vit-large-patch14-336"
CLIP_CONFIG = Path(__file__).parents[1] / "model" / "clip"


def offline_clip(module: Any) -> None:
    """Read CLIP's config from this package: lmdeploy downloads it from a hub although the weights are local."""
    fetch = module._CLIPVisionModel_from_pretrained

    def from_pretrained(name: str, *args: Any, **kwargs: Any) -> Any:
        return fetch(os.fspath(CLIP_CONFIG) if name == CLIP_NAME else name)

    module._CLIPVisionModel_from_pretrained = from_pretrained


def engine_by_machine(module: Any) -> None:
    """Make lmdeploy's own commands and `pipeline` use lingbi's engine.

    It takes the template from the folder's contents, and encoder and engine from the machine. lmdeploy derives all of
    these from the path, and its encoder dies at the first bad image.
    """
    wrapt.wrap_object(module, "VLAsyncEngine", MachineEngine)


class MachineEngine(wrapt.ObjectProxy[Any]):
    """Replaces the class VLAsyncEngine where lmdeploy creates one; lingbi's own programs create a LocalEngine."""

    def __call__(self, model_path: str, backend_config: Any = None, **options: Any) -> "LocalEngine":
        from lingbi.engine.local import LocalEngine

        return LocalEngine(needs_of_machine(model_path), backend_config, **options)


def needs_of_machine(model_path: str) -> "EngineNeeds":
    """The needs of a folder's engine on this machine, from the settings. Raises ConfigurationError."""
    from lingbi import planner
    from lingbi.engine.local import EngineNeeds
    from lingbi.model.resources import find_resources
    from lingbi.settings import load_settings

    settings = load_settings()
    placement = planner.place_folder(model_path, settings, find_resources())
    return EngineNeeds(placement.folder, settings, placement.fit)


def private_page(module: Any) -> None:
    """Never open a public tunnel, which the code of lmdeploy's page asks for."""

    @wrapt.patch_function_wrapper(module, "Blocks.launch")
    def launch(wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        kwargs["share"] = False
        return wrapped(*args, **kwargs)
