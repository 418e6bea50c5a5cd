"""A distillation method of one's own in fifteen lines: attention transfer (Zagoruyko and Komodakis, ICLR 2017).

python examples/custom_method.py
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import mse_loss, normalize

import tutelage
from tutelage.core.method import Card
from tutelage.models import small_cnn


def attention(maps: Tensor) -> Tensor:
    """Return (N, H·W): where a map (N, C, H, W) has its energy, each row of length 1."""
    return normalize(maps.pow(2).mean(1).flatten(1), dim=1)


class AttentionTransfer(tutelage.Method):
    """Match the attention maps of one pair of layers.

    Args:
        layer: tap address, the same in student and teacher.
        weight: factor of the term.
    """

    card = Card("Zagoruyko and Komodakis, Paying More Attention to Attention, ICLR 2017", "classification", "maps")

    def __init__(self, layer: str, weight: float = 1000.0) -> None:
        super().__init__()
        self.layer, self.weight = layer, weight
        self.student_taps = self.teacher_taps = (layer,)

    def forward(self, step: tutelage.Step) -> dict[str, Tensor]:
        """Return the term `at`."""
        student, teacher = step.student.tap(self.layer), step.teacher.tap(self.layer)
        return {"at": self.weight * mse_loss(attention(student), attention(teacher))}


def main() -> dict[str, float]:
    """Compute the terms of one batch."""
    torch.manual_seed(0)
    student, teacher = small_cnn(width=8, channels=1), small_cnn(width=32, channels=1)
    task = tutelage.Classification(num_classes=10)
    distiller = tutelage.Distiller(student, tutelage.Network(teacher), AttentionTransfer("stage2"), task)
    terms = distiller((torch.rand(16, 1, 28, 28), torch.randint(10, (16,))))
    print(distiller.method, {name: round(float(value.detach()), 3) for name, value in terms.items()})
    return {name: float(value.detach()) for name, value in terms.items()}


if __name__ == "__main__":
    main()
