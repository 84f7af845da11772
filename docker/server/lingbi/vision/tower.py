"""The vision tower on a GPU: loaded once in half precision, replayed as CUDA graphs, beside the language model."""

import logging
from contextlib import contextmanager

import accelerate
import torch
from lmdeploy.vl.model.xcomposer2 import Xcomposer2VisionModel
from transformers.modeling_utils import no_init_weights

from lingbi.checkpoint_files import read_mapped
from lingbi.errors import StartError
from lingbi.model_folder import inspect
from lingbi.vision.pixels import Pixels

log = logging.getLogger(__name__)
# Pictures of one graph; a batch is made of these. On an H200 eight at once take 3.2 ms each and two 4.3 ms, one 5.1 ms,
# but their graph holds 370 MiB more, and small cards have none to spare (docs/performance).
GRAPH_SIZES = (2, 1)
WARM_UPS = 2  # cuBLAS picks its kernels and workspaces in the first runs, which a graph may not contain
MAX_TILED_BATCH = 2
# Made by the tower itself, in no checkpoint: pools the class token, which is not used.
UNUSED = ("post_layernorm", "position_ids")


class GpuVisionModel(Xcomposer2VisionModel):
    """lmdeploy's vision model with another way to load, prepare and run it; features are on the CPU.

    feature_dtype: of the features, as the language model's look-up table of tokens has it.
    """

    feature_dtype = torch.half

    def build_model(self) -> None:
        folder = inspect(self.model_path)
        with mapped_loading(), no_init_weights():
            super().build_model()
        self.is_tiled = folder.is_tiled
        arrange = (lambda picture: self.HD_transform(picture, hd_num=25)) if self.is_tiled else lambda picture: picture
        side = folder.picture_side
        self.pixels = Pixels(self.model.vis_processor, side, arrange)
        if not self.pixels.is_known:
            log.warning("this model prepares pictures in a way of its own: its code runs on the CPU, more slowly")
        self.stream = torch.cuda.Stream(self.device, priority=-1)  # short work, and somebody waits for his first word
        self.graphs = {} if self.is_tiled or not self.pixels.is_known else self._capture_all(side)

    @property
    def max_batch(self) -> int:
        """Pictures encoded together."""
        return MAX_TILED_BATCH if self.is_tiled else GRAPH_SIZES[0]

    def prepare(self, picture) -> torch.Tensor:
        """The picture as the tower takes it; runs in any thread."""
        return self.pixels.prepare(picture)

    @torch.no_grad()
    def forward(self, prepared: list) -> list:
        """Features [tokens, hidden], on the CPU, of what `prepare` gave."""
        with torch.device(self.device), torch.cuda.stream(self.stream):
            pixels = [self.pixels.fit(item.to(self.device)) for item in prepared]
            features, left = [], pixels
            while left:
                size = 1 if self.is_tiled else next(size for size in GRAPH_SIZES if size <= len(left))
                encoded = self._tiled(left[0]) if self.is_tiled else self._encode(torch.stack(left[:size]))
                features += [self._on_host(item) for item in encoded]
                left = left[size:]
            self.stream.synchronize()
            return features

    def _encode(self, batch: torch.Tensor) -> torch.Tensor:
        graph = self.graphs.get(len(batch))
        return graph.run(batch) if graph else self._features(batch)

    def _on_host(self, features: torch.Tensor) -> torch.Tensor:
        """A copy under way to pinned memory, where copies are fast and torch reuses what was freed."""
        host = torch.empty(features.shape, dtype=self.feature_dtype, device="cpu", pin_memory=True)
        return host.copy_(features, non_blocking=True)

    def _features(self, batch: torch.Tensor) -> torch.Tensor:
        """[n, tokens, hidden] of pixels on the GPU."""
        return self.model.vision_proj(self.model.vit(self.pixels.normalise(batch)))

    def _tiled(self, pixels: torch.Tensor) -> torch.Tensor:
        """[1, tokens, hidden] of one 4khd picture: its overview and tiles go through the tower together."""
        batch = self.pixels.normalise(pixels[None])
        embedded, _ = self.model.vit([batch], self.model.plora_glb_GN, self.model.plora_sub_GN)
        return self.model.vision_proj(embedded)

    @torch.no_grad()
    def _capture_all(self, side: int) -> dict:
        """A graph for each size; none where a model's own code does what no graph can hold."""
        pool = torch.cuda.graph_pool_handle()  # the graphs never run at the same time
        self.pixels.table = self.pixels.table.to(self.device)
        try:
            with torch.device(self.device):
                return {size: Graph(self._features, size, side, pool, self.stream) for size in GRAPH_SIZES}
        except RuntimeError as error:
            log.warning("the tower runs without CUDA graphs, more slowly: %s", str(error).partition("\n")[0])
            return {}


class Graph:
    """The tower's hundreds of kernels for one batch size, started as one: no Python between them."""

    def __init__(self, features, size: int, side: int, pool, stream):
        self.pixels = torch.zeros(size, side, side, 3, dtype=torch.uint8)
        self._graph = torch.cuda.CUDAGraph()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                features(self.pixels)
            with torch.cuda.graph(self._graph, pool=pool, stream=stream):
                self.features = features(self.pixels)

    def run(self, pixels: torch.Tensor) -> torch.Tensor:
        """Features of pixels; overwritten by the next run of any graph of the pool."""
        self.pixels.copy_(pixels)
        self._graph.replay()
        return self.features


@contextmanager
def mapped_loading():
    """Within: accelerate's loader, which lmdeploy calls, takes the tower from mapped files and leaves it in half."""
    load, accelerate.load_checkpoint_in_model = accelerate.load_checkpoint_in_model, load_half
    try:
        yield
    finally:
        accelerate.load_checkpoint_in_model = load


def load_half(model: torch.nn.Module, model_path: str) -> None:
    """Fill the vision parts from a model folder, reading nothing else, and make them half.

    lmdeploy leaves the tower in float32, twice its size: it makes it after its own `half()`.
    """
    absent = set(model.state_dict())
    for shard in inspect(model_path).shards:
        tensors = read_mapped(shard)
        found = {name: tensors[name] for name in absent & set(tensors)}
        model.load_state_dict(found, strict=False)
        absent -= set(found)
    absent = sorted(name for name in absent if not any(part in name for part in UNUSED))
    if absent:
        raise StartError(f"{model_path} lacks {len(absent)} vision tensors, {absent[0]} first; fetch the model again")
    model.half()
