"""What a worker's imports need not spend: a quarter of the time until the demo model is ready."""

import contextlib
import gc

from pydantic import BaseModel


@contextlib.contextmanager
def uncollected():
    """No garbage collection in the block: what an import makes stays, and a full collection looks at all of it again."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextlib.contextmanager
def built_when_used():
    """Pydantic builds the models that are defined in the block at their first use.

    For FastAPI's models of an OpenAPI document: they take 0.7 s, and few servers are ever asked for theirs.
    """
    usual = BaseModel.model_config
    BaseModel.model_config = usual | {"defer_build": True}
    try:
        yield
    finally:
        BaseModel.model_config = usual
