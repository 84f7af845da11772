"""Shrinks the GPU memory that CUDA and cuBLAS reserve by default, for work that this server does not do."""

import ctypes
import logging
import os

import torch

log = logging.getLogger(__name__)
DRIVER = "libcuda.so.1"
STACK_LIMIT = 0  # CU_LIMIT_STACK_SIZE
# CUDA keeps 1024 for each thread that a card can hold at once: 264 MiB on an H100. Where the compiler counted more for a
# kernel, that kernel gets it all the same; only recursion could need what is saved here, and no kernel here recurses.
STACK_BYTES = 128
# cuBLAS and torch take a workspace for each handle and stream, on an H100 of 32 MiB every time. A worker is as fast without
# (docs/performance). Both read this when a handle is made: KiB, and how many of them.
WORKSPACES, SMALL_WORKSPACES = "CUBLAS_WORKSPACE_CONFIG", ":16:8"


def shrink_reserves(cards: int = 1) -> None:
    """Shrink the reserves on the first GPU that this process sees; call it before anything is computed there.

    It keeps the operator's own setting for cuBLAS. If CUDA refuses, it has no effect and logs a warning. cards: those that
    hold the model together. On several the stacks stay as they are: where a kernel needs more, CUDA waits for its card to be
    idle, which it never is while one of NCCL's kernels waits there for the other card.
    """
    os.environ.setdefault(WORKSPACES, SMALL_WORKSPACES)
    if cards > 1:
        return
    torch.zeros(1, device="cuda")  # creates the context, to which the limit applies
    status = ctypes.CDLL(DRIVER).cuCtxSetLimit(STACK_LIMIT, ctypes.c_size_t(STACK_BYTES))
    if status:
        log.warning("CUDA keeps its stacks of 1024 bytes for each thread: cuCtxSetLimit returned %s", status)
