"""Loads the language model into TurboMind, reading every shard once.

lmdeploy 0.4.1 reads the first shard three times and all of them once more for the vision tower, splits the tensors on one
CPU thread and copies them from there. Here the shards are memory-mapped, several threads copy tensors to the GPU ahead of
their turn, and they are split there.
"""

import contextlib
import logging
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
import wrapt

from lingbi.model.checkpoint import read_mapped

log = logging.getLogger(__name__)
UPLOADERS = 8
AHEAD_BYTES = 1 << 30  # GPU memory that tensors copied ahead of their turn may take beside the model
AHEAD_OF_SEVERAL_BYTES = AHEAD_BYTES // 4  # the same on the first of several small cards that hold it together
STAGING_BYTES = 32 << 20  # pinned host memory of each uploader
LAYER = re.compile(r"model\.layers\.(\d+)\.")


_listener: ContextVar[Callable[[int, int], None]] = ContextVar("listener", default=lambda done, all_bytes: None)
_ahead_bytes: ContextVar[int] = ContextVar("ahead_bytes", default=AHEAD_BYTES)


@contextlib.contextmanager
def watched(listener: Callable[[int, int], None], cards: int = 1) -> Iterator[None]:
    """Within the block, call listener with (bytes done, bytes in all) while a language model is copied to the GPU, or to so
    many cards that hold it together.

    These are context variables because lmdeploy creates its readers far below the call that starts a load, and passes
    them no arguments.
    """
    tokens = _listener.set(listener), _ahead_bytes.set(AHEAD_BYTES if cards == 1 else AHEAD_OF_SEVERAL_BYTES)
    try:
        yield
    finally:
        _listener.reset(tokens[0])
        _ahead_bytes.reset(tokens[1])


def mapped_readers(module: Any) -> None:
    """Give lmdeploy's reader of this model all shards at once, memory-mapped, so that none is read only for its shapes."""

    def get_mgrs(self: Any) -> Iterator[Any]:
        tensors: dict[str, torch.Tensor] = {}
        for name in self.ckpt_files:
            tensors |= read_mapped(Path(self.ckpt_path) / name)
        if getattr(self, "is_exporting", False):
            tensors = Uploads(tensors, _listener.get(), GpuCopies(), _ahead_bytes.get())
        yield self.Reader(tensors, {}, True, self.model_info())

    module.Xcomposer2Model.get_mgrs = get_mgrs

    @wrapt.patch_function_wrapper(module, "Xcomposer2Reader.__init__")
    def init(wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tensors = args[0]
        wrapped(*args, **kwargs)
        instance.params = tensors  # lmdeploy copies it into a plain dict, which would not upload


def exported_from_gpu(module: Any) -> None:
    """Keep the tensors of lmdeploy's reader on the GPU while it exports weights."""

    @wrapt.patch_function_wrapper(module, "BaseOutputModel.export")
    def export(wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        instance.input_model.is_exporting = True
        try:
            return wrapped(*args, **kwargs)
        finally:
            instance.input_model.is_exporting = False
            torch.cuda.empty_cache()


class GpuCopies:
    """Copies tensors to the GPU from any thread, through pinned memory and a stream of each thread's own."""

    def __init__(self) -> None:
        self._lanes = threading.local()

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        lane = self._lanes
        if not hasattr(lane, "staging"):
            lane.staging = torch.empty(STAGING_BYTES, dtype=torch.uint8, device="cpu", pin_memory=True)
            lane.stream = torch.cuda.Stream()
        uploaded = torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")
        # The memory may have belonged to a tensor that the default stream still uses.
        lane.stream.wait_stream(torch.cuda.default_stream())
        pieces = zip(_as_bytes(tensor).split(STAGING_BYTES), _as_bytes(uploaded).split(STAGING_BYTES), strict=True)
        with torch.cuda.stream(lane.stream):
            for source, target in pieces:
                lane.staging[: len(source)].copy_(source)
                target.copy_(lane.staging[: len(source)], non_blocking=True)
                lane.stream.synchronize()
        return uploaded


class Uploads(dict[str, torch.Tensor]):
    """Tensors by name, copied to the GPU by the time they are read: each once, in roughly the order of the layers."""

    def __init__(
        self,
        tensors: dict[str, torch.Tensor],
        on_weights: Callable[[int, int], None],
        copy: Callable[[torch.Tensor], torch.Tensor],
        most_ahead_bytes: int = AHEAD_BYTES,
    ):
        """on_weights: called with (bytes done, bytes in all); copy: as GpuCopies, called from several threads;
        most_ahead_bytes: GPU memory for tensors copied ahead of their turn."""
        self._on_weights, self._copy, self._most_ahead_bytes = on_weights, copy, most_ahead_bytes
        super().__init__(sorted(tensors.items(), key=lambda item: _turn(item[0])))
        self._names = deque(name for name in self if not name.startswith(("vit.", "vision_proj.", "plora_")))
        self._all_bytes = sum(dict.__getitem__(self, name).nbytes for name in self._names)
        self._ahead: dict[str, Future[torch.Tensor]] = {}
        self._ahead_bytes = self._done_bytes = 0
        self._pool = ThreadPoolExecutor(UPLOADERS, "upload")

    def __getitem__(self, name: str) -> torch.Tensor:
        tensor = super().__getitem__(name)
        self._go_ahead()
        job = self._ahead.pop(name, None)
        if job is None:
            return self._copy(tensor)
        self._ahead_bytes -= tensor.nbytes
        self._done_bytes += tensor.nbytes
        self._on_weights(self._done_bytes, self._all_bytes)
        return job.result()

    def get(self, name: str, default: Any = None) -> Any:
        try:
            return self[name]
        except KeyError:
            return default

    def clear(self) -> None:
        """Stop the uploads and drop all tensors."""
        self._pool.shutdown(cancel_futures=True)
        self._ahead.clear()
        super().clear()

    def _go_ahead(self) -> None:
        while self._names and self._ahead_bytes < self._most_ahead_bytes:
            name = self._names.popleft()
            tensor = super().__getitem__(name)
            self._ahead[name] = self._pool.submit(self._copy, tensor)
            self._ahead_bytes += tensor.nbytes


def _as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().view(-1).view(torch.uint8)


def _turn(name: str) -> int:
    """Sort key in the order of lmdeploy's export: tensors outside the layers first, then the layers by number."""
    layer = LAYER.match(name)
    return int(layer[1]) + 1 if layer else 0
