"""Builds the engine of a process: what libraries must be told before it, and then the engine itself."""

import logging
import os
import sys
from typing import TYPE_CHECKING

from lingbi.garbage import uncollected
from lingbi.logs import adopt, remote_code_logged
from lingbi.model.gpus import TURBOMIND

if TYPE_CHECKING:
    from lingbi.engine.local import EngineNeeds, LocalEngine

# Python's own 5 ms are as long as a token takes, and an image's way to the engine leads through several threads. On a
# GPU only: whoever waits wakes as often, which costs a CPU engine's cores.
THREAD_TURN_S = 1e-4


def build_engine(needs: "EngineNeeds") -> "LocalEngine":
    """The LocalEngine for EngineNeeds (both of local.py, which imports lmdeploy and takes seconds)."""
    with uncollected():
        from lmdeploy.utils import get_logger

        from lingbi.engine.local import LocalEngine
    is_debugging = needs.settings.log_level == "DEBUG"
    # lmdeploy logs whole prompts at INFO; people's questions do not belong in a log.
    os.environ.setdefault("TM_LOG_LEVEL", "INFO" if is_debugging else "ERROR")
    logger = get_logger("lmdeploy")
    logger.setLevel("DEBUG" if is_debugging else "WARNING")
    adopt(logger)
    if needs.engine == TURBOMIND:
        from lingbi.engine.turbomind.workspaces import shrink_reserves

        shrink_reserves()
        sys.setswitchinterval(THREAD_TURN_S)
    with remote_code_logged(logging.getLogger("lingbi.remote_code")):
        return LocalEngine(needs)
