"""Builds the engine of a process: it configures the libraries first, then creates the engine."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING

from lingbi.garbage import uncollected
from lingbi.logs import adopt, remote_code_logged
from lingbi.model.gpus import TURBOMIND

if TYPE_CHECKING:
    from lingbi.engine.local import EngineNeeds, LocalEngine

# Python's default of 5 ms is as long as a token takes, and an image passes through several threads on its way to the
# engine. This is set only on a GPU: waiting threads wake up as often, which would take cores from the CPU engine.
THREAD_TURN_S = 1e-4


def build_engine(needs: EngineNeeds) -> LocalEngine:
    """Build the engine for these needs. The imports stand inside because lmdeploy takes seconds to import."""
    with uncollected():
        from lmdeploy.utils import get_logger

        from lingbi.engine.local import LocalEngine
    is_debugging = needs.settings.log_level == "DEBUG"
    # lmdeploy logs whole prompts at INFO, and users' questions do not belong in a log.
    os.environ.setdefault("TM_LOG_LEVEL", "INFO" if is_debugging else "ERROR")
    logger = get_logger("lmdeploy")
    logger.setLevel("DEBUG" if is_debugging else "WARNING")
    adopt(logger)
    if needs.engine == TURBOMIND:
        from lingbi.engine.turbomind.workspaces import shrink_reserves

        shrink_reserves(needs.cards)
        sys.setswitchinterval(THREAD_TURN_S)
    with remote_code_logged(logging.getLogger("lingbi.remote_code")):
        return LocalEngine(needs)
