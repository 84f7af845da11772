"""Trains the demo model from scratch into a folder: `python -m training.demo.train --out FOLDER`, or `scripts/train-demo`."""

import argparse
import collections
import functools
import itertools
import math
import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.pool import AsyncResult
from pathlib import Path
from typing import Any

import sentencepiece
import torch
import torch.multiprocessing as multiprocessing
from torch import Tensor, nn
from torch.amp.autocast_mode import autocast
from torch.multiprocessing.spawn import spawn

from . import MODEL_FOLDER, network, score
from .muon import Muon
from .samples import Sample, Text, questions_of, samples_of, silent_samples_of
from .template import BOS, TEMPLATE, Encode, messages_of
from .vocabulary import train_tokenizer

# On two cores, two processes with one thread each are faster than one process with two threads, and reproducible.
# On a GPU there is one process, and all cores draw its images.
RANKS = dict(cpu=2, cuda=1)
BATCH = dict(cpu=dict(tower=16, read=16, talk=16), cuda=dict(tower=128, read=128, talk=128))
# First the tower learns to see, through its heads. Then the language model learns to read questions, through its head
# and without images, for READ_SHARE of the remaining time; then it learns to talk about what the trained tower sees.
TOWER_SHARE, READ_SHARE = 0.5, 0.1
# Samples a minute on two cores of a 2024 server (AVX512 with bf16), drawing included.
SAMPLES_PER_MINUTE = dict(tower=9000, read=12000, talk=3200)
# glibc returns the memory of large tensors to the system and takes it back, page by page, at every step. If it is told
# to keep that memory, most steps take a few per cent less time, and some take a tenth less.
KEEP_MEMORY = "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184:glibc.malloc.top_pad=268435456"
# For each phase: the rate for the matrices, which Muon steps, and the rate for everything else, which AdamW steps.
LEARNING_RATES = dict(tower=(2e-3, 2.5e-3), read=(1e-3, 5e-3), talk=(1e-3, 5e-3))
# The share of easy scenes goes from FIRST_EASE at the start of a phase to LAST_EASE at the part EASE_UNTIL of it.
FIRST_EASE, LAST_EASE, EASE_UNTIL = 0.9, 0.1, 0.5
# The share of full scenes among those drawn, likewise, for each phase; reading needs no drawing.
FIRST_FULLNESS = dict(tower=0.9, read=0.0, talk=0.5)
LAST_FULLNESS, FULL_UNTIL = dict(tower=0.0, read=0.0, talk=0.1), 0.75
# A few sequences much longer than the others must not decide a step.
MAX_GRADIENT = 5.0
# Lengths are alike within a batch; the batches of one pool come in random order.
POOL = 512
REPORT_EVERY = 100


class Shared:
    """What the ranks share: two copies of their gradients, so that no rank overwrites what another is still reading."""

    def __init__(self, n_parameters: int, ranks: int) -> None:
        self.ranks = ranks
        self.values = torch.zeros(2, ranks, n_parameters).share_memory_()
        self.barrier = multiprocessing.get_context("spawn").Barrier(ranks)

    def average(self, step: int, rank: int, values: Tensor) -> Tensor:
        if self.ranks == 1:
            return values
        shared = self.values[step % 2, :, : len(values)]
        shared[rank].copy_(values)
        self.barrier.wait()
        return shared.mean(0)


class Trainer:
    """One of the ranks: its own copy of the model, its own samples, the same gradient as the others."""

    def __init__(
        self,
        folder: str,
        rank: int,
        shared: Shared,
        seed: int,
        minutes: float,
        tower_share: float,
        device: str = "cpu",
        start: Path | None = None,
    ) -> None:
        torch.manual_seed(seed)
        self.rank, self.shared, self.seed, self.folder, self.device = rank, shared, seed, folder, device
        self.model = network.new_model(folder).to(device)
        self.heads = network.Heads(self.model).to(device)
        self.question_head = network.QuestionHead(self.model).to(device)
        encode = sentencepiece.SentencePieceProcessor(model_file=f"{folder}/tokenizer.model").encode
        self.prefix = [BOS] + encode(
            TEMPLATE.messages2prompt(messages_of([("", None)], 0)).partition("user\n")[0] + "user\n"
        )
        self.start = start
        shares: dict[str, float] = dict(tower=0 if start else tower_share)
        shares["read"] = (1 - shares["tower"]) * READ_SHARE
        shares["talk"] = 1 - sum(shares.values())
        self.minutes = {phase: minutes * share for phase, share in shares.items()}
        self.step, self.started = 0, time.monotonic()
        self.workers = multiprocessing.get_context("spawn").Pool(os.cpu_count()) if device == "cuda" else None

    def train(self) -> None:
        vit = self.model.vit
        if not self.start:
            self._run(
                "tower",
                [*vit.parameters(), *self.heads.parameters()],
                [*vit.stem.parameters(), *vit.vision_tower.vision_model.encoder.parameters()],
                self._seeing_loss,
            )
            self._agree_on_norms()
        network.fold_norms(self.model)
        if self.start:
            weights = torch.load(f"{self.start}/pytorch_model.bin", weights_only=True)
            vit.load_state_dict({name[4:]: tensor for name, tensor in weights.items() if name.startswith("vit.")})
        vit.requires_grad_(False)
        if self.rank == 0:
            save(self.model, self.folder)
        parameters = [*(p for p in self.model.parameters() if p.requires_grad), *self.question_head.parameters()]
        for phase, loss_of in (("read", self._reading_loss), ("talk", self._talking_loss)):
            self._run(phase, parameters, self.model.model.layers.parameters(), loss_of)
        if self.workers:
            self.workers.terminate()

    def _run(
        self,
        phase: str,
        parameters: list[nn.Parameter],
        layers: Iterable[nn.Parameter],
        loss_of: Callable[[list[Any]], Tensor],
    ) -> None:
        """Trains these parameters for the phase's time; Muon steps the matrices and convolutions of the layers."""
        matrices = [p for p in layers if p.dim() > 1]
        known = {id(p) for p in matrices}
        self.parameters = parameters
        self.optimizers = (
            Muon(matrices, rank=self.rank, ranks=self.shared.ranks, add_up=self._add_up),
            torch.optim.AdamW([p for p in parameters if id(p) not in known], betas=(0.9, 0.98), weight_decay=0.01),
        )
        self.phase, self.phase_started, self.phase_step = phase, time.monotonic(), 0
        losses = []
        for batch in self._batches():
            for optimizer, rate in zip(self.optimizers, LEARNING_RATES[phase], strict=False):
                optimizer.param_groups[0]["lr"] = rate * schedule(self.phase_step, self.part)
            with autocast(self.device, torch.bfloat16):
                loss = loss_of(batch)
            loss.backward()
            losses.append(loss.detach())
            self._update()
            self.phase_step += 1
            if self.rank == 0 and self.phase_step % REPORT_EVERY == 0:
                self._report(torch.stack(losses[-REPORT_EVERY:]).mean().item())

    @property
    def n_steps(self) -> int:
        """Steps of the phase; on a GPU the clock counts instead."""
        return int(self.minutes[self.phase] * SAMPLES_PER_MINUTE[self.phase]) // (
            RANKS["cpu"] * BATCH["cpu"][self.phase]
        )

    @property
    def part(self) -> float:
        """How much of the phase is done: 0 to 1."""
        if self.device == "cuda":
            return min(1.0, (time.monotonic() - self.phase_started) / 60 / self.minutes[self.phase])
        return self.phase_step / self.n_steps

    def _agree_on_norms(self) -> None:
        """Averages the statistics of the ranks' batch norms, so that all continue with the same tower."""
        buffers = [buffer for buffer in self.model.vit.stem.buffers() if buffer.is_floating_point()]
        mean = self._average(torch.cat(buffers))
        for buffer, part in zip(buffers, mean.split([len(buffer) for buffer in buffers]), strict=False):
            buffer.copy_(part)

    def _features(self, batch: list[Sample]) -> Tensor:
        return self.model.vit(network.pixels_of(batch, self.device))

    def _seeing_loss(self, batch: list[Sample]) -> Tensor:
        return self.heads.loss(
            self._features(batch), *(classes.to(self.device) for classes in network.classes_of(batch))
        )

    def _reading_loss(self, batch: list[Text]) -> Tensor:
        return network.question_loss(self.model, self.question_head, batch, self._common(batch))

    def _talking_loss(self, batch: list[Sample]) -> Tensor:
        with torch.no_grad():
            features = self._features(batch)
        return network.answer_loss(self.model, self.question_head, features, batch, self._common(batch))

    def _update(self) -> None:
        gradient = torch.cat(
            [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in self.parameters]
        )
        gradient = self._average(gradient)
        gradient *= (MAX_GRADIENT / (gradient.norm() + 1e-6)).clamp(max=1.0)
        for p, part in zip(self.parameters, gradient.split([p.numel() for p in self.parameters]), strict=False):
            if p.grad is not None:
                p.grad.copy_(part.view_as(p))
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()

    def _average(self, values: Tensor) -> Tensor:
        """The mean of the ranks' vectors. Each call uses the shared slot of the next step."""
        self.step += 1
        return self.shared.average(self.step, self.rank, values)

    def _add_up(self, values: Tensor) -> Tensor:
        return self._average(values).mul(self.shared.ranks)

    def _batches(self) -> Iterator[list[Any]]:
        """This rank's batches, with sequences of similar length, until the phase is done."""
        size = BATCH[self.device][self.phase]
        for samples in self._pools():
            order = range(0, len(samples), size)
            if self.phase != "tower":
                samples.sort(key=lambda sample: (self._common([sample]) == [], len(sample.ids)))
            for first in random.Random(self.step).sample(order, len(order)):
                if self.part >= 1:
                    return
                yield samples[first : first + size]

    def _pools(self) -> Iterator[list[Any]]:
        """Endless lists of POOL samples (in the reading phase: texts), drawn ahead by the workers if there are any."""
        ahead: collections.deque[AsyncResult[list[Any]]] = collections.deque()
        for i in itertools.count():
            ease = between(FIRST_EASE, LAST_EASE, self.part / EASE_UNTIL)
            fullness = between(FIRST_FULLNESS[self.phase], LAST_FULLNESS[self.phase], self.part / FULL_UNTIL)
            job = (self.phase, f"{self.seed}-{self.phase}-{i}-{self.rank}", self.folder, ease, fullness)
            if not self.workers:
                yield draw_pool(*job)
                continue
            ahead.append(self.workers.apply_async(draw_pool, job))
            if len(ahead) > 2 * (os.cpu_count() or 1):
                yield ahead.popleft().get()

    def _common(self, batch: Sequence[Text]) -> list[int]:
        return self.prefix if all(sample.ids[: len(self.prefix)] == self.prefix for sample in batch) else []

    def _report(self, loss: float) -> None:
        phases = list(self.minutes)
        before = phases[: phases.index(self.phase)]
        done = self.part * self.minutes[self.phase] + sum(self.minutes[phase] for phase in before)
        spent = (time.monotonic() - self.started) / 60
        left = spent * (sum(self.minutes.values()) / done - 1)
        print(
            f"{self.phase}: step {self.phase_step}, loss {loss:.3f}, {spent:.1f} min, {left:.1f} min left", flush=True
        )


def draw_pool(phase: str, seed: str, folder: str, ease: float, fullness: float) -> list[Any]:
    """POOL samples for a phase; the tower phase needs no conversations, and the reading phase needs no images."""
    if phase == "tower":
        return silent_samples_of(seed, POOL, ease, fullness)
    if phase == "read":
        return questions_of(seed, encoder(folder), POOL)
    return samples_of(seed, encoder(folder), POOL, ease, fullness)


@functools.lru_cache
def encoder(folder: str) -> Encode:
    return sentencepiece.SentencePieceProcessor(model_file=f"{folder}/tokenizer.model").encode


def between(first: float, last: float, part: float) -> float:
    """Linear interpolation from first (part 0) to last (part 1 and beyond)."""
    return first + (last - first) * min(1.0, part)


def schedule(step: int, part: float) -> float:
    """Warms up over the first 60 steps, then falls to zero along a cosine."""
    return min(1.0, (step + 1) / 60) * (0.5 + 0.5 * math.cos(math.pi * part))


def run_rank(
    rank: int,
    folder: str,
    shared: Shared,
    seed: int,
    minutes: float,
    tower_share: float,
    device: str,
    start: Path | None,
) -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    trainer = Trainer(folder, rank, shared, seed, minutes, tower_share, device, start)
    trainer.train()
    if rank == 0:
        save(trainer.model, folder)


def save(model: network.Model, folder: str) -> None:
    """Writes the weights in fp16, atomically."""
    path = Path(folder) / "pytorch_model.bin"
    halves: dict[int, Tensor] = {}  # tensors that several names share stay shared and are written once
    weights = {
        name: halves.setdefault(tensor.data_ptr(), tensor.detach().cpu().half().contiguous())
        for name, tensor in model.state_dict().items()
    }
    torch.save(weights, path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)


def prepare(folder: Path) -> None:
    """Copies everything except the weights, which come later, and the tokenizer, which it trains."""
    folder.mkdir(parents=True)
    for path in MODEL_FOLDER.iterdir():
        if path.is_file() and path.name not in ("pytorch_model.bin", "tokenizer.model"):
            shutil.copy(path, folder)
    train_tokenizer(folder / "tokenizer.model")


def count_parameters(folder: Path) -> int:
    model = network.new_model(folder)
    heads = network.Heads(model), network.QuestionHead(model)
    return sum(p.numel() for part in (model, *heads) for p in part.parameters())


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Trains the demo model from scratch and scores it on held-out pictures."
    )
    parser.add_argument(
        "--out", type=Path, default=Path("demo-model"), help="folder to make; it must not exist (default: %(default)s)"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=19,
        help="how much to train, in minutes of two fast cores (default: %(default)s)",
    )
    parser.add_argument(
        "--tower-share", type=float, default=TOWER_SHARE, help="part of that time for the tower (default: %(default)s)"
    )
    parser.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        default="cpu",
        help="cuda trains on more pictures in the same time, but not reproducibly",
    )
    parser.add_argument(
        "--start",
        type=Path,
        help="model folder with a finished tower: only the language model is trained, from scratch",
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    if args.out.exists():
        parser.error(f"--out {args.out}: exists already; name a new folder")
    prepare(args.out)
    ranks = RANKS[args.device]
    shared = Shared(count_parameters(args.out), ranks)
    started = time.monotonic()
    os.environ.setdefault("GLIBC_TUNABLES", KEEP_MEMORY)  # the ranks' interpreters read this when they start
    options = (str(args.out), shared, args.seed, args.minutes, args.tower_share, args.device, args.start)
    spawn(run_rank, options, nprocs=ranks)
    print(f"trained in {(time.monotonic() - started) / 60:.1f} minutes: {args.out}", flush=True)
    return 0 if score.print_score(score.score_folder(args.out)) >= score.PASS_MARK else 1


if __name__ == "__main__":
    sys.exit(main())
