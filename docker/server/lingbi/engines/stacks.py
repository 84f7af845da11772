"""Gives back the stacks that CUDA keeps for threads, which no kernel here uses."""

import ctypes
import logging

import torch

log = logging.getLogger(__name__)
DRIVER = "libcuda.so.1"
STACK_LIMIT = 0  # CU_LIMIT_STACK_SIZE
# CUDA keeps 1024 for each thread that a card can hold at once: 264 MiB on an H100. Where the compiler counted more for a
# kernel, that kernel gets it all the same; only recursion could need what is saved here, and no kernel here recurses.
STACK_BYTES = 128


def shrink_stacks() -> None:
    """Of the GPU that this process sees first; without effect, and with a line in the log, where CUDA declines."""
    torch.zeros(1, device="cuda")  # makes the context, whose limit it is
    status = ctypes.CDLL(DRIVER).cuCtxSetLimit(STACK_LIMIT, ctypes.c_size_t(STACK_BYTES))
    if status:
        log.warning("CUDA keeps its stacks of 1024 bytes for each thread: cuCtxSetLimit returned %s", status)
