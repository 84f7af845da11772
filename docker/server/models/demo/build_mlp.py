"""The vision side: CLIP tower, merging of patches, tiles of 4khd, projection to the language model."""

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from PIL import Image
from torch import nn
from transformers import CLIPVisionConfig

CLIP_NAME = "openai/clip-vit-large-patch14-336"
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
TILE = 336


def build_vision_projector(config, vision_hidden_size):
    """Linear, GELU, Linear: from merged patches to the language model's hidden size."""
    merge = 2 if config.is_hd else config.vision_merge
    return nn.Sequential(
        nn.Linear(vision_hidden_size * merge**2, config.hidden_size),
        nn.GELU(),
        nn.Linear(config.hidden_size, config.hidden_size),
    )


class VisProcessor:
    """PIL picture to a normalised tensor [3, height, width]; squashed to img_size unless that is None."""

    def __init__(self, img_size):
        self.img_size = img_size

    def __call__(self, image):
        image = image.convert("RGB")
        if self.img_size is not None:
            image = image.resize((self.img_size, self.img_size), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div(255)
        # the device is named: lmdeploy calls this where a GPU is the default device
        mean, std = (torch.tensor(values, device=pixels.device).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
        return (pixels - mean) / std


def merge_patches(grid, n):
    """[batch, rows, columns, C] to [batch, rows / n, columns / n, n * n * C]."""
    batch, rows, columns, width = grid.shape
    grid = grid.reshape(batch, rows // n, n, columns // n, n, width).permute(0, 1, 3, 2, 4, 5)
    return grid.reshape(batch, rows // n, columns // n, n * n * width)


class Stem(nn.Module):
    """Convolutions before the tower, which learn edges and corners from few pictures; the published models have none.

    Args:
        layers: (channels, stride) of each 3 x 3 convolution; one that keeps size and channels adds to its input.
    """

    def __init__(self, layers):
        super().__init__()
        widths = [3] + [channels for channels, _ in layers]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(widths[i], channels, 3, stride, 1) for i, (channels, stride) in enumerate(layers)
        )

    def forward(self, pixels):
        for convolution in self.convolutions:
            out = F.relu(convolution(pixels))
            pixels = pixels + out if out.shape == pixels.shape else out
        return pixels


class CLIPVisionTower(nn.Module):
    """Picture tokens from CLIP's last hidden states, without the class token."""

    def __init__(self, config):
        super().__init__()
        self.is_hd = config.is_hd
        self.merge = config.vision_merge
        self.img_size = TILE if config.is_hd else config.img_size
        self.vision_config = config.vision_config
        self.stem_layers = config.vision_stem
        self.load_model()
        self.resize_pos()

    def load_model(self):
        """Builds the tower. Its trained weights come from the checkpoint of the whole model."""
        # looked up in the package at call time: lmdeploy replaces `from_pretrained` there, to build from the config only
        clip = transformers.CLIPVisionModel
        if self.vision_config is None:
            self.vision_tower = clip.from_pretrained(CLIP_NAME)
        else:
            self.vision_tower = clip._from_config(CLIPVisionConfig(**self.vision_config))
        # pools the class token, which is not used; no checkpoint carries it
        self.vision_tower.vision_model.post_layernorm = nn.Identity()
        self.vision_tower.requires_grad_(False)
        # made here like the tower, so that lmdeploy, which calls this once more after its `.half()`, keeps both in fp32
        if self.stem_layers:
            self.stem = Stem(self.stem_layers).requires_grad_(False)

    def resize_pos(self):
        """Fits the position embeddings to img_size, by bicubic interpolation."""
        if self.stem_layers:
            return  # the table in the checkpoint has the size of the stem's output
        embeddings = self.vision_tower.vision_model.embeddings
        old = embeddings.position_embedding.weight
        side = self.img_size // embeddings.patch_size
        rows = side * side + 1
        if old.shape[0] == rows:
            return
        new = old.new_empty(rows, old.shape[1])
        if not old.is_meta:
            new = self._interpolate_positions(old.data, side)
        embeddings.position_embedding = nn.Embedding.from_pretrained(new, freeze=True)
        embeddings.num_positions = rows
        embeddings.position_ids = torch.arange(rows, device=old.device)[None]

    @staticmethod
    def _interpolate_positions(old, side):
        old_side = int((old.shape[0] - 1) ** 0.5)
        grid = old[1:].float().view(1, old_side, old_side, -1).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
        return torch.cat((old[:1], grid.flatten(2)[0].T.to(old.dtype)))

    def forward(self, images, glb_GN=None, sub_GN=None):
        """Picture tokens, on the device of the tower and in the dtype of the pixels.

        Args:
            images: pixels [batch, 3, height, width]; for 4khd a list of [1, 3, height, width], whole tiles.
            glb_GN, sub_GN: 4khd's learnt separators of views and of rows.
        Returns:
            [batch, tokens, C]; for 4khd [1, all tokens, C] and the list of tokens of each picture.
        """
        if not self.is_hd:
            return merge_patches(self._encode(images), self.merge).flatten(1, 2)
        pictures = [self._encode_tiled(pixels, glb_GN, sub_GN) for pixels in images]
        return torch.cat(pictures, dim=1), [picture.shape[1] for picture in pictures]

    def _encode(self, pixels):
        """Patch grid [batch, rows, columns, C]."""
        model = self.vision_tower.vision_model
        inputs = pixels.to(self.vision_tower.device, self.vision_tower.dtype)
        if self.stem_layers:
            inputs = self.stem(inputs)
        side = inputs.shape[-1] // model.embeddings.patch_size
        hidden = model.pre_layrnorm(model.embeddings(inputs))
        hidden = model.encoder(inputs_embeds=hidden, return_dict=True).last_hidden_state[:, 1:]
        return hidden.reshape(pixels.shape[0], side, side, -1).to(pixels.dtype)

    def _encode_tiled(self, pixels, glb_GN, sub_GN):
        """One picture as a small view of all of it, a separator, and its tiles put together again."""
        _, channels, height, width = pixels.shape
        rows, columns = height // TILE, width // TILE
        overview = F.interpolate(pixels.float(), size=(TILE, TILE), mode="bicubic").to(pixels.dtype)
        tiles = (
            pixels.reshape(channels, rows, TILE, columns, TILE).permute(1, 3, 0, 2, 4).reshape(-1, channels, TILE, TILE)
        )
        grids = merge_patches(self._encode(torch.cat((overview, tiles))), 2)
        side, dim = grids.shape[1], grids.shape[3]
        whole = grids[1:].reshape(rows, columns, side, side, dim).permute(0, 2, 1, 3, 4)
        whole = whole.reshape(1, rows * side, columns * side, dim)
        return torch.cat(
            (self._end_rows(grids[:1], sub_GN), glb_GN.to(grids.dtype), self._end_rows(whole, sub_GN)), dim=1
        )

    @staticmethod
    def _end_rows(grid, sub_GN):
        """Appends the separator to each row and lines the rows up: [1, rows * (columns + 1), C]."""
        ends = sub_GN.to(grid.dtype).expand(1, grid.shape[1], 1, -1)
        return torch.cat((grid, ends), dim=2).flatten(1, 2)
