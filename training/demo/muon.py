"""Muon for weight matrices: momentum in which every direction gets the same length (https://kellerjordan.github.io/posts/muon/)."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalize(stack: Tensor, steps: int = 5) -> Tensor:
    """Approximately U V^T of each matrix U S V^T of a stack [n, rows, columns], by a Newton-Schulz iteration."""
    a, b, c = COEFFICIENTS
    is_tall = stack.shape[1] > stack.shape[2]
    x = (stack.mT if is_tall else stack).bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return (x.mT if is_tall else x).float()


class Muon(torch.optim.Optimizer):
    """Steps matrices of one shape together, a convolution as the matrix of its filters. `lr` is the root mean square of a step's entries, comparable with Adam's.

    Args:
        rank, ranks: of the processes that step the same matrices by the same gradients; each orthogonalizes its part.
        add_up: returns the sum of a vector over all of these processes.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 1e-3,
        momentum: float = 0.9,
        weight_decay: float = 0.01,
        rank: int = 0,
        ranks: int = 1,
        add_up: Callable[[Tensor], Tensor] = lambda vector: vector,
    ) -> None:
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))
        self.rank, self.ranks, self.add_up = rank, ranks, add_up

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # nothing passes a closure
        for group in self.param_groups:
            alike: defaultdict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    alike[p.shape].append(p)
            matrices = [p for stack in alike.values() for p in stack]
            updates = torch.cat([self._directions(group, stack).flatten() for stack in alike.values()])
            updates = self.add_up(updates).split([p.numel() for p in matrices])
            for p, update in zip(matrices, updates, strict=True):
                length = max(p.flatten(1).shape) ** 0.5
                p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update.view_as(p), alpha=group["lr"] * length)

    def _directions(self, group: dict[str, Any], matrices: list[nn.Parameter]) -> Tensor:
        """The direction for each matrix of one shape, [n, rows, columns]; zero for the matrices of other ranks."""
        gradients, directions = [p.grad for p in matrices if p.grad is not None], []
        for p, gradient in zip(matrices, gradients, strict=True):
            momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
            momentum.mul_(group["momentum"]).add_(gradient)
            directions.append(gradient + group["momentum"] * momentum)
        stack = torch.stack(directions).flatten(2)
        mine, updates = slice(self.rank, None, self.ranks), torch.zeros_like(stack)
        if len(stack[mine]):
            updates[mine] = orthogonalize(stack[mine])
        return updates
