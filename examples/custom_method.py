"""A distillation method of your own: attention transfer.

Source: S. Zagoruyko, N. Komodakis, "Paying More Attention to Attention", ICLR 2017, arXiv
1612.03928.

python examples/custom_method.py

The command line takes it too, from the folder that it lies in:

tutelage train classification/digits/baseline \
    --method custom_method.AttentionTransfer --method.layer stage2
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import mse_loss, normalize

import tutelage
from tutelage.models import small_cnn


def attention(maps: Tensor) -> Tensor:
    """Return where maps (N, C, H, W) have their energy: (N, H * W), each row of length 1."""
    return normalize(maps.pow(2).mean(1).flatten(1), dim=1)


class AttentionTransfer(tutelage.Method):
    """Match the attention of one layer.

    Args:
        layer: its name, the same in student and teacher.
        weight: factor of the term `at`.
    """

    info = tutelage.MethodInfo(
        paper="S. Zagoruyko, N. Komodakis, Paying More Attention to Attention, ICLR 2017",
        tasks="classification",
        needs="maps of one size in both networks",
    )

    def __init__(self, layer: str, *, weight: float = 1000.0) -> None:
        super().__init__()
        self.layer = layer
        self.weight = weight
        # What the Distiller records for `forward`.
        self.student_layers = (layer,)
        self.teacher_layers = (layer,)

    def forward(self, step: tutelage.Step) -> dict[str, Tensor]:
        """Return the term `at`."""
        student = attention(step.student.feature(self.layer))
        teacher = attention(step.teacher.feature(self.layer))
        return {"at": self.weight * mse_loss(student, teacher)}


def main() -> dict[str, float]:
    """Return the terms of one batch."""
    torch.manual_seed(0)
    student = small_cnn(width=8)
    teacher = small_cnn(width=32)
    batch = (torch.rand(16, 1, 28, 28), torch.randint(10, (16,)))
    distiller = tutelage.Distiller(
        student,
        tutelage.FrozenTeacher(teacher),
        AttentionTransfer("stage2"),
        tutelage.Classification(num_classes=10),
    )
    distiller.setup(batch)
    terms = {name: term.item() for name, term in distiller(batch).items()}
    print(distiller.method, terms)
    return terms


if __name__ == "__main__":
    main()
