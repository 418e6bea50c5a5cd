"""What the tests of residual distillation share: normalized networks, a few steps, gradients."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.methods.harness import distill, image_batch
from tutelage import Distiller, ResidualKD
from tutelage.core.normalization import normalize_inputs
from tutelage.models import small_cnn

LAST = {"stage3": "stage3"}


def distill_normalized(method: ResidualKD, width: int = 8, size: int = 28) -> Distiller:
    """Return a distiller whose student, but not its teacher, normalizes its images."""
    torch.manual_seed(0)
    return distill(
        method,
        student=normalize_inputs(small_cnn(width=width), [0.3], [0.2]),
        teacher=small_cnn(width=12),
        batch=image_batch(size=size),
    )


def run(distiller: Distiller, steps: int, start: float = 0.0, stop: float = 1.0) -> None:
    """Train for some steps, from one share of the run to another."""
    parameters = [p for p in distiller.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=3e-3, weight_decay=0.05)
    for step in range(steps):
        optimizer.zero_grad()
        progress = start + (stop - start) * step / steps
        sum(distiller.train()(image_batch(), progress).values()).backward()
        optimizer.step()


def gradients(term: Tensor, module: nn.Module) -> float:
    """Return the sum of the absolute gradients of a term in a module."""
    grads = torch.autograd.grad(
        term, list(module.parameters()), allow_unused=True, retain_graph=True
    )
    return sum(float(grad.abs().sum()) for grad in grads if grad is not None)


def stagewise() -> ResidualKD:
    """Return a method that trains one part after the other."""
    return ResidualKD(LAST, schedule="stagewise", task_weight=0.0)
