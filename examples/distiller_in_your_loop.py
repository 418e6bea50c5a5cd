"""The ten lines of the README: any teacher, any student, features and logits aligned, in somebody's own loop.

python examples/distiller_in_your_loop.py
"""

from __future__ import annotations

import torch

import tutelage
from tutelage.models import small_cnn


def main() -> list[float]:
    """Run a few steps on random images and return the losses."""
    torch.manual_seed(0)
    teacher, student = small_cnn(width=32, channels=1), small_cnn(width=8, channels=1)
    method = tutelage.Together([tutelage.RCKA(pairs={"stage2": "stage2", "stage3": "stage3"}), tutelage.KD()])
    distiller = tutelage.Distiller(student, tutelage.Network(teacher), method, tutelage.Classification(10))
    loader = [(torch.rand(32, 1, 28, 28), torch.randint(10, (32,))) for _ in range(8)]

    distiller.setup(loader[0])  # builds what the method needs from real shapes
    optimizer = torch.optim.AdamW(distiller.parameters(), lr=2e-3)
    losses = []
    for step, batch in enumerate(loader):
        terms = distiller(batch, progress=step / len(loader))  # {"task": …, "rcka.intra": …, "kd": …}
        loss = sum(terms.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    print({name: round(value.item(), 3) for name, value in terms.items()})
    return losses


if __name__ == "__main__":
    main()
