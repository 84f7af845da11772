"""The model in training: its remote code, faster attention in the tower, and the heads that are thrown away later."""

import copy
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from transformers import AutoConfig, AutoModelForCausalLM

from lingbi.vision.pixels import CLIP_MEAN, CLIP_STD

from .samples import CLASSES, LOCAL_CLASSES, QUESTION_CLASSES, Question, Sample, Text
from .template import IGNORED

Model = Any  # transformers and the remote code have no types

# Weights of the heads on the image tokens, in the middle of the tower, on the stem's cells and on whole things.
FINAL_WEIGHT, MIDDLE_WEIGHT, FINE_WEIGHT, THING_WEIGHT = 1.0, 0.5, 0.5, 1.0
# Weight of the question head in the middle of the language model, relative to the answers.
QUESTION_WEIGHT = 0.3
# The classes of a thing that the stem learns from all cells that the thing covers.
THING_CLASSES = ("colour", "shape")


def new_model(folder: Path | str) -> Model:
    """A model of the folder's geometry with fresh weights, in fp32."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    model = AutoModelForCausalLM.from_config(config, trust_remote_code=True, torch_dtype=torch.float32)
    model.requires_grad_(True)
    _start_well(model)
    use_fast_attention(model)
    return model


def _start_well(model: Model) -> None:
    """PLoRA starts without effect, positions as sine waves, residual branches small; the stem is normalised in training."""
    embeddings = model.vit.vision_tower.vision_model.embeddings
    side = embeddings.image_size // embeddings.patch_size
    embeddings.position_embedding.weight.data[1:] = 0.3 * _waves(side, embeddings.embed_dim)
    nn.init.normal_(embeddings.patch_embedding.weight, std=embeddings.patch_embedding.weight[0].numel() ** -0.5)
    for i, convolution in enumerate(model.vit.stem.convolutions):
        nn.init.kaiming_normal_(convolution.weight)
        model.vit.stem.convolutions[i] = nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels))
    depth = len(model.model.layers)
    for name, parameter in model.named_parameters():
        if name.endswith("Plora_B.weight"):
            parameter.data.zero_()
        elif name.startswith("model.layers") and parameter.dim() == 2:
            shrink = (2 * depth) ** -0.5 if "wo.weight" in name or "w2.weight" in name else 1
            parameter.data.normal_(std=parameter.shape[1] ** -0.5 * shrink)
        elif name.startswith("vision_proj") and parameter.dim() == 2:
            parameter.data.normal_(std=parameter.shape[1] ** -0.5)
    model.model.tok_embeddings.weight.data.normal_(std=0.5)


def fold_norms(model: Model) -> None:
    """Folds the stem's batch norms into its convolutions permanently."""
    convolutions = model.vit.stem.convolutions
    for i, (convolution, norm) in enumerate(convolutions):
        convolutions[i] = fuse_conv_bn_eval(convolution.eval(), norm.eval())


def _waves(side: int, dim: int) -> Tensor:
    """Sines and cosines of row and column: [side * side, dim]."""
    frequencies = 2.0 ** torch.linspace(0, 3.5, dim // 4)
    angles = (torch.arange(side)[:, None] + 0.5) / side * frequencies * 3.14159
    waves = torch.cat((angles.sin(), angles.cos()), 1)
    rows, columns = waves[:, None].expand(-1, side, -1), waves[None].expand(side, -1, -1)
    return torch.cat((rows, columns), 2).reshape(side * side, dim)


def use_fast_attention(model: Model) -> None:
    """Runs CLIP's attention through PyTorch's fused kernel, which transformers 4.40 does not use for CLIP."""
    for layer in model.vit.vision_tower.vision_model.encoder.layers:
        layer.self_attn.forward = _fused(layer.self_attn)


def _fused(attention: Any) -> Callable[..., tuple[Tensor, None]]:
    def forward(hidden_states: Tensor, *unused: object, **also_unused: object) -> tuple[Tensor, None]:
        batch, tokens, width = hidden_states.shape
        query, key, value = (
            project(hidden_states).view(batch, tokens, attention.num_heads, -1).transpose(1, 2)
            for project in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        out = F.scaled_dot_product_attention(query.float(), key.float(), value.float()).to(query.dtype)
        return attention.out_proj(out.transpose(1, 2).reshape(batch, tokens, width)), None

    return forward


class Head(nn.Module):
    """Linear classifiers of tokens [batch, tokens, width], one for each of `names`; `sizes` gives their numbers of classes."""

    def __init__(self, width: int, names: Iterable[str], sizes: dict[str, int] = CLASSES) -> None:
        super().__init__()
        self.sizes = [sizes[name] for name in names]
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, sum(self.sizes))

    def loss(self, tokens: Tensor, classes: Tensor) -> Tensor:
        """Sum of the classifiers' mean cross entropies; classes [batch, tokens, len(names)], -1 where the class is unknown."""
        parts = self.linear(self.norm(tokens)).float().flatten(0, 1).split(self.sizes, dim=1)
        truths = classes.flatten(0, 1).long().unbind(1)
        losses = [F.cross_entropy(part, truth, ignore_index=-1) for part, truth in zip(parts, truths, strict=True)]
        return torch.stack(losses).sum()


class ThingHead(nn.Module):
    """Tells what a thing is from the mean of the stem's cells that it covers.

    A shape shows at corners and edges far apart. Without this head, the stem learns shapes only once the tower attends
    to them.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.spread = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU())
        self.head = Head(2 * width, THING_CLASSES)

    def loss(self, cells: Tensor, cover: Tensor, classes: Tensor) -> Tensor:
        """cells [batch, 144, width]; cover [batch, 144] and classes [batch, things, LOCAL_CLASSES] as in `samples.Sample`."""
        masks = cover[:, None] == torch.arange(1, classes.shape[1] + 1, device=cover.device)[:, None]
        means = masks.to(cells.dtype) @ cells / masks.sum(2, keepdim=True).clamp_min(1)
        columns = [LOCAL_CLASSES.index(name) for name in THING_CLASSES]
        truths = torch.where(masks.any(2, keepdim=True), classes.long(), -1)[..., columns]
        return self.head.loss(self.spread(means), truths)


class Heads(nn.Module):
    """The heads that train the tower, on its image tokens, in its middle and on the stem's cells; only training needs them."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        layers = model.vit.vision_tower.vision_model.encoder.layers
        self.final = Head(model.vision_proj[0].in_features, CLASSES)
        self.middle = Head(model.vision_proj[0].in_features, LOCAL_CLASSES)
        self.fine = Head(model.config.vision_config["num_channels"], LOCAL_CLASSES)
        self.thing = ThingHead(model.config.vision_config["num_channels"])
        model.vit.stem.register_forward_hook(self._keep_cells)
        layers[len(layers) // 2 - 1].register_forward_hook(self._keep_patches)

    def _keep_cells(self, stem: nn.Module, inputs: tuple[Tensor, ...], cells: Tensor) -> None:
        self.cells = cells.flatten(2).transpose(1, 2)

    def _keep_patches(self, layer: nn.Module, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> None:
        self.patches = outputs[0][:, 1:]

    def loss(
        self,
        features: Tensor,
        classes: Tensor,
        middle_classes: Tensor,
        fine_classes: Tensor,
        fine_cover: Tensor,
        thing_classes: Tensor,
    ) -> Tensor:
        """Weighted loss of all heads. features [batch, tokens, C]; the classes as in `samples.Sample`, batched."""
        return (
            self.final.loss(features, classes).mul(FINAL_WEIGHT)
            + self.middle.loss(self.patches, middle_classes).mul(MIDDLE_WEIGHT)
            + self.fine.loss(self.cells, fine_classes).mul(FINE_WEIGHT)
            + self.thing.loss(self.cells, fine_cover, thing_classes).mul(THING_WEIGHT)
        )


class QuestionHead(nn.Module):
    """Tells, at every token of an answer, what its question asks, from the middle of the language model.

    Without this head, the model learns the meaning of a question only from whole answers that are wrong.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.head = Head(model.config.hidden_size, QUESTION_CLASSES, QUESTION_CLASSES)
        _first_half(model).layers[-1].register_forward_hook(self._keep)

    def _keep(self, layer: nn.Module, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> None:
        self.hidden = outputs[0]

    def loss(self, wanted: Tensor, classes: Tensor) -> Tensor:
        """As `Head.loss`; wanted [batch, tokens - 1], classes [wanted tokens, QUESTION_CLASSES]."""
        return self.head.loss(self.hidden[:, :-1][wanted][None], classes[None])


def pixels_of(samples: Sequence[Sample], device: str = "cpu") -> Tensor:
    """Normalised pixels [batch, 3, 192, 192], as the model's processor makes them."""
    pixels = torch.from_numpy(np.stack([sample.pixels for sample in samples])).to(device)
    # by whole rows, which are wide enough for a CPU to vectorise
    mean, std = (torch.tensor(values, device=device).repeat(pixels.shape[2]) for values in (CLIP_MEAN, CLIP_STD))
    rows = torch.addcmul(-mean / std, pixels.flatten(2).float(), 1 / (255 * std))
    return rows.view(pixels.shape).permute(0, 3, 1, 2)


def classes_of(samples: Sequence[Sample]) -> tuple[Tensor, ...]:
    """The samples' classes of each kind, batched as `Heads.loss` takes them."""
    return tuple(
        torch.from_numpy(np.stack([getattr(sample, name) for sample in samples]))
        for name in ("classes", "middle_classes", "fine_classes", "fine_cover", "thing_classes")
    )


def answer_loss(
    model: Model, head: QuestionHead, features: Tensor, samples: Sequence[Text], prefix: list[int]
) -> Tensor:
    """Mean cross entropy of the answers' tokens, and what `head` adds to it.

    Args:
        features: the tower's image tokens [batch, tokens, C].
        prefix: ids that all sequences begin with; they run once for the whole batch.
    """
    ids, labels = _stacked(samples, len(prefix), features.device)
    im_mask = ids.lt(0)
    with_picture = im_mask.any(1)
    embeds = model.model.tok_embeddings(ids.clamp_min(0))
    pictures = model.vision_proj(features)[with_picture].flatten(0, 1).to(embeds.dtype)
    embeds = embeds.flatten(0, 1).index_copy(0, im_mask.flatten().nonzero().squeeze(1), pictures).view_as(embeds)
    hidden = model.model(embeds, im_mask, past_key_values=_past(model.model, prefix, len(samples))).last_hidden_state
    wanted = labels[:, 1:] != IGNORED
    spoken = F.cross_entropy(model.output(hidden[:, :-1][wanted]).float(), labels[:, 1:][wanted])
    return spoken + head.loss(wanted, _asked(samples, wanted)).mul(QUESTION_WEIGHT)


def question_loss(model: Model, head: QuestionHead, samples: Sequence[Text], prefix: list[int]) -> Tensor:
    """The loss of `head` at the start of answers to questions without an image; prefix as in `answer_loss`."""
    ids, labels = _stacked(samples, len(prefix), model.device)
    half = _first_half(model)
    half(half.tok_embeddings(ids), past_key_values=_past(half, prefix, len(samples)))
    wanted = labels[:, 1:] != IGNORED
    return head.loss(wanted, _asked(samples, wanted))


def _stacked(samples: Sequence[Text], start: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """ids and labels [batch, tokens] from token `start` on, padded to the longest."""
    length = max(len(sample.ids) for sample in samples) - start
    ids = torch.zeros(len(samples), length, dtype=torch.long)
    labels = torch.full((len(samples), length), IGNORED)
    for row, sample in enumerate(samples):
        ids[row, : len(sample.ids) - start] = torch.tensor(sample.ids[start:])
        labels[row, : len(sample.labels) - start] = torch.tensor(sample.labels[start:])
    return ids.to(device), labels.to(device)


def _asked(samples: Sequence[Text], wanted: Tensor) -> Tensor:
    """The QUESTION_CLASSES of every token of an answer, in the order of `wanted`."""
    asked: list[Question] = [sample.questions[turn] for sample in samples for turn in sample.turns if turn >= 0]
    return torch.tensor(asked, device=wanted.device)


def _first_half(model: Model) -> Any:
    """The language model up to the layers that a QuestionHead reads; it shares the weights rather than copying them."""
    layers = model.model.layers
    half = copy.copy(model.model)
    half._modules = dict(half._modules, layers=layers[: len(layers) // 2])
    return half


def _past(language_model: Any, prefix: list[int], batch: int) -> tuple[tuple[Tensor, Tensor], ...] | None:
    if not prefix:
        return None
    embeddings = language_model.tok_embeddings
    out = language_model(embeddings(torch.tensor([prefix], device=embeddings.weight.device)))
    return tuple((key.expand(batch, -1, -1, -1), value.expand(batch, -1, -1, -1)) for key, value in out.past_key_values)
