"""A real worker in which one part stops when a file appears: `python -m tests.system.broken_worker PART FILE`.

`install` does the same to the worker of a process that calls it before lingbi is imported.

PART: encoder (its thread sleeps for ever), model (the engine's thread does), loop (the event loop
does), or fails (the encoder raises on every picture).
"""

import sys
import time
from pathlib import Path

import wrapt

part, file = None, None


def install(chosen_part: str, chosen_file: Path) -> None:
    """Have a part of this process's worker break when the file appears."""
    global part, file
    part, file = chosen_part, chosen_file
    module, patch = BREAK[part]
    if module in sys.modules:
        patch(sys.modules[module])
    else:
        wrapt.register_post_import_hook(patch, module)


def hang_if_told() -> None:
    while file.exists():
        time.sleep(0.1)


def break_encoder(module) -> None:
    @wrapt.patch_function_wrapper(module, "CpuVisionModel.forward")
    def forward(wrapped, instance, args, kwargs):
        if part == "fails" and file.exists():
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        hang_if_told()
        return wrapped(*args, **kwargs)


def break_model(module) -> None:
    @wrapt.patch_function_wrapper(module, "Decoder.__call__")
    def compute(wrapped, instance, args, kwargs):
        hang_if_told()
        return wrapped(*args, **kwargs)


def break_loop(module) -> None:
    @wrapt.patch_function_wrapper(module, "Readiness.report")
    def report(wrapped, instance, args, kwargs):
        hang_if_told()
        return wrapped(*args, **kwargs)


BREAK = {
    "encoder": ("lingbi.engine.cpu.checkpoint", break_encoder),
    "fails": ("lingbi.engine.cpu.checkpoint", break_encoder),
    "model": ("lingbi.engine.cpu.decoder", break_model),
    "loop": ("lingbi.http.readiness", break_loop),
}

if __name__ == "__main__":
    install(sys.argv[1], Path(sys.argv[2]))
    from lingbi.worker import main as worker

    worker.exit_now(worker.main())
