"""Muon for weight matrices: momentum whose every direction is given the same length (https://kellerjordan.github.io/posts/muon/)."""

from collections import defaultdict

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalize(stack, steps=5):
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
    """Steps matrices of one shape together. `lr` is the root mean square of a step's entries, comparable with Adam's."""

    def __init__(self, params, lr=1e-3, momentum=0.95, weight_decay=0.01):
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            alike = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    alike[p.shape].append(p)
            for shape, matrices in alike.items():
                self._step_alike(group, shape, matrices)

    def _step_alike(self, group, shape, matrices):
        directions = []
        for p in matrices:
            momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
            momentum.mul_(group["momentum"]).add_(p.grad)
            directions.append(p.grad + group["momentum"] * momentum)
        length = max(shape) ** 0.5
        for p, update in zip(matrices, orthogonalize(torch.stack(directions)), strict=False):
            p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=group["lr"] * length)
