"""Any teacher, any student, logits and features, in your own training loop.

python examples/distiller_in_your_loop.py
"""

from __future__ import annotations

import torch

import tutelage
from tutelage.models import small_cnn


def main() -> list[float]:
    """Train for a few steps on random images and return the losses."""
    torch.manual_seed(0)
    # Any two modules will do: layers are read by hooks, the networks stay as they are.
    teacher = small_cnn(width=32)
    student = small_cnn(width=8)
    loader = [(torch.rand(32, 1, 28, 28), torch.randint(10, (32,))) for _ in range(8)]

    # Student layer: teacher layer. The names are those of `student.named_modules()`.
    rcka = tutelage.RCKA(layer_pairs={"stage2": "stage2", "stage3": "stage3"})
    distiller = tutelage.Distiller(
        student,
        tutelage.FrozenTeacher(teacher),
        tutelage.CombinedMethod([rcka, tutelage.KD()]),
        tutelage.Classification(num_classes=10),
    )
    distiller.setup(loader[0])  # builds what the methods need from real shapes, and checks it
    optimizer = torch.optim.AdamW(distiller.parameters(), lr=2e-3)
    losses = []
    for step, batch in enumerate(loader):
        terms = distiller(batch, progress=step / len(loader))
        loss = sum(terms.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    print({name: round(term.item(), 3) for name, term in terms.items()})
    network = distiller.deploy()  # the student alone, to save or to export
    print(network(torch.rand(1, 1, 28, 28)).shape)
    return losses


if __name__ == "__main__":
    main()
