"""The vision tower on a GPU: loaded once in half precision, replayed as a CUDA graph, beside the language model."""

import logging
import threading
from collections.abc import Callable
from functools import partial

import torch
from lmdeploy.vl.model.xcomposer2 import Xcomposer2VisionModel
from PIL import Image

from lingbi.model.folder import inspect
from lingbi.vision.pixels import Pixels
from lingbi.vision.tower_loading import load_tower, tile_cutter

log = logging.getLogger(__name__)
WARM_UPS = 2  # cuBLAS picks its kernels and workspaces in the first runs, which must not be captured in a graph


class GpuVisionModel(Xcomposer2VisionModel):  # type: ignore[misc]  # lmdeploy has no types
    """lmdeploy's vision model with another way to load, prepare and run it; features are on the CPU.

    hd_num: tiles that 4khd cuts an image into at most; loaded: what load_tower returned for this folder, None to call it;
    feature_dtype: of the features, as the language model's look-up table of tokens has it.
    """

    feature_dtype = torch.half
    max_batch = 1  # images are encoded one at a time, so that none waits for a later one

    def __init__(
        self, model_path: str, hd_num: int, device: str = "cuda:0", loaded: torch.nn.Module | None = None
    ) -> None:
        self.hd_num, self.loaded = hd_num, loaded
        super().__init__(model_path, device)

    def build_model(self) -> None:
        folder = inspect(self.model_path)
        self.model = (self.loaded or load_tower(self.model_path)).to(self.device).eval()
        self.is_tiled = folder.is_tiled
        arrange = partial(tile_cutter(self.model_path), hd_num=self.hd_num) if self.is_tiled else lambda image: image
        side = folder.image_side
        self.pixels = Pixels(self.model.vis_processor, side, arrange)
        if not self.pixels.is_known:
            log.warning("this model prepares pictures in a way of its own: its code runs on the CPU, more slowly")
        self.stream = torch.cuda.Stream(
            self.device, priority=-1
        )  # the work is short, and a user waits for the first token
        self.graph = None if side is None or not self.pixels.is_known else self._capture(side)

    def pin_ahead(self, limit_bytes: int) -> None:
        """Allocate pinned host memory for this many bytes of features, in a thread.

        Pinning 10 MB while an image waits takes milliseconds. torch keeps freed blocks for features of the same size.
        """
        if not self.graph:
            return
        shape = self.graph.features.shape[1:]
        count = limit_bytes // self.feature_bytes

        def pin() -> None:
            blocks = [torch.empty(shape, dtype=torch.half, device="cpu", pin_memory=True) for _ in range(count)]
            log.debug("%s blocks of pinned memory for features", len(blocks))

        threading.Thread(target=pin, name="pin", daemon=True).start()

    @property
    def feature_bytes(self) -> int:
        """Bytes of an image's features; 0 if they differ between images."""
        return self.graph.features.nbytes if self.graph else 0

    def prepare(self, image: Image.Image) -> torch.Tensor:
        """The image as the tower takes it; any thread may call this."""
        return self.pixels.prepare(image)

    @torch.no_grad()
    def forward(self, prepared: list[torch.Tensor]) -> list[torch.Tensor]:
        """Features [tokens, hidden], on the CPU, of the images that `prepare` returned."""
        with torch.device(self.device), torch.cuda.stream(self.stream):
            pixels = [self.pixels.fit(item.to(self.device)) for item in prepared]
            features = [self._on_host(self._encode(item[None])[0]) for item in pixels]
            self.stream.synchronize()
            return features

    def _encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Features [1, tokens, hidden] of one image's pixels on the GPU."""
        if self.is_tiled:
            return self._tiled(pixels)
        return self.graph.run(pixels) if self.graph else self._features(pixels)

    def _on_host(self, features: torch.Tensor) -> torch.Tensor:
        """Start a copy to pinned memory, to which copies are fast and which torch reuses after it is freed."""
        host = torch.empty(features.shape, dtype=self.feature_dtype, device="cpu", pin_memory=True)
        return host.copy_(features, non_blocking=True)

    def _features(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.model.vision_proj(self.model.vit(self.pixels.normalise(pixels)))

    def _tiled(self, pixels: torch.Tensor) -> torch.Tensor:
        """Features [1, tokens, hidden] of one 4khd image, whose overview and tiles go through the tower together."""
        batch = self.pixels.normalise(pixels)
        embedded, _ = self.model.vit([batch], self.model.plora_glb_GN, self.model.plora_sub_GN)
        return self.model.vision_proj(embedded)

    @torch.no_grad()
    def _capture(self, side: int) -> "Graph | None":
        """The tower's graph, or None if a model's own code cannot be captured."""
        self.pixels.table = self.pixels.table.to(self.device)
        try:
            with torch.device(self.device):
                return Graph(self._features, side, self.stream)
        except RuntimeError as error:
            log.warning("the tower runs without a CUDA graph, more slowly: %s", str(error).partition("\n")[0])
            return None


class Graph:
    """The tower's hundreds of kernels for one image, launched as one graph without Python in between.

    On an H200 an image takes 5.1 ms; with two in one graph each takes 4.3 ms, and with eight 3.2 ms. That gain is too small
    for the 50 to 370 MiB more that such graphs hold, which small cards cannot spare (docs/performance).
    """

    def __init__(self, features: Callable[[torch.Tensor], torch.Tensor], side: int, stream: torch.cuda.Stream):
        self.pixels = torch.zeros(1, side, side, 3, dtype=torch.uint8)
        self._graph = torch.cuda.CUDAGraph()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                features(self.pixels)
            with torch.cuda.graph(self._graph, stream=stream):
                self.features = features(self.pixels)

    def run(self, pixels: torch.Tensor) -> torch.Tensor:
        """Features of pixels; overwritten by the next run."""
        self.pixels.copy_(pixels)
        self._graph.replay()
        return self.features
