"""Whether a copy (fork) of a process that has imported everything can use the GPU: `python -m tests.gpu.forks`, half a minute.

Prints a line of JSON: what the imports left of the driver in the first process, and what a copy of it then did on the GPU,
with the seconds of each step. Exit status 1 if the copy did not do all of them.
"""

import asyncio
import ctypes
import json
import os
import select
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

from lingbi.model import catalogue
from lingbi.worker.succession import IMPORTED, import_all
from lingbi.worker.takeover import opened_devices
from tests.conftest import DEMO

DRIVER = "libcuda.so.1"
NOT_INITIALISED = 3  # CUDA_ERROR_NOT_INITIALIZED: nobody has called cuInit in this process
COPY_S = 180


def driver() -> dict:
    """What this process has of the driver. initialised: whether cuInit was called; None without a driver."""
    import torch

    try:
        status = ctypes.CDLL(DRIVER).cuCtxGetCurrent(ctypes.byref(ctypes.c_void_p()))
    except OSError:
        status = None
    return {
        "initialised": None if status is None else status != NOT_INITIALISED,
        "devices": opened_devices(),
        "torch_initialised": torch.cuda.is_initialized(),
        "torch_in_bad_fork": torch.cuda._is_in_bad_fork(),
        "threads": len(os.listdir("/proc/self/task")),
    }


def multiply() -> str:
    import torch

    ones = torch.ones(1024, 1024, dtype=torch.half, device="cuda")
    return str((ones @ ones).float().mean().item())


def see() -> str:
    from lingbi.images.scenes import draw
    from lingbi.vision.tower import GpuVisionModel
    from lingbi.worker.probe import PROBE_SCENE

    model = GpuVisionModel(str(DEMO), catalogue.HD_NUM)
    return str(tuple(model.forward([model.prepare(draw(PROBE_SCENE))])[0].shape))


def answer() -> str:
    """Load TurboMind with the demo model, and ask it the probe's question, whose answer it must know."""
    from lingbi.worker.probe import ask_probe
    from tests.load.overhead import load_service

    with tempfile.TemporaryDirectory() as folder:
        os.environ["LINGBI_STATE_DIR"] = folder
        service = load_service(DEMO, 4)
        assert service.readiness.engine == "turbomind", service.readiness.reason
        return str(asyncio.run(ask_probe(service, is_demo=True)))


STEPS = (multiply, see, answer)


def use_gpu(out: int) -> None:
    """Take the steps, and write a line of JSON after each."""
    for step in STEPS:
        began = time.monotonic()
        try:
            told = {"result": step()}
        except Exception as error:
            traceback.print_exc()
            told = {"error": repr(error)}
        line = {"step": step.__name__, "s": round(time.monotonic() - began, 2)} | told
        os.write(out, json.dumps(line).encode() + b"\n")
        if "error" in told:
            return


def in_a_copy() -> list[dict]:
    """What a copy of this process says of its steps, within COPY_S."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(read)
        use_gpu(write)
        os._exit(0)  # the engine's threads never return
    os.close(write)
    said, deadline = b"", time.monotonic() + COPY_S
    while select.select([read], [], [], max(0.0, deadline - time.monotonic()))[0] and (more := os.read(read, 1 << 16)):
        said += more
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return [json.loads(line) for line in said.splitlines()]


def main() -> int:
    began = time.monotonic()
    import_all(IMPORTED)
    report = {"imports_s": round(time.monotonic() - began, 2), "before": driver(), "copy": in_a_copy()}
    report["works"] = [line["step"] for line in report["copy"] if "result" in line] == [step.__name__ for step in STEPS]
    print(json.dumps(report), flush=True)
    return int(not report["works"])


if __name__ == "__main__":
    assert Path(DEMO).exists()
    sys.exit(main())
