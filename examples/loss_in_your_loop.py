"""RCKA's loss function in your own training loop: torch, one import, no engine and no recipe.

python examples/loss_in_your_loop.py
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

from tutelage.methods import rcka_loss

STEPS = 400
NUM_TRAIN = 1300  # of 1797 images; the others are for testing


def train(
    network: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    teacher: nn.Module | None = None,
) -> None:
    """Train a network on labels, and if there is a teacher, also on its logits."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    for step in range(STEPS):
        batch = torch.randint(NUM_TRAIN, (64,))
        logits = network(images[batch])
        loss = cross_entropy(logits, labels[batch])
        if teacher is not None:
            with torch.no_grad():
                teacher_logits = teacher(images[batch])
            terms = rcka_loss(logits, teacher_logits)  # {"intra": ..., "inter": ...}
            # In a short run the alignment must not be at full weight from the first step.
            ramp = min(1.0, max(0.0, (step / STEPS - 0.3) / 0.4))
            loss = loss + ramp * sum(terms.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def main() -> float:
    """Distill a wide network into a narrow one on real digits; return its test accuracy."""
    torch.manual_seed(0)
    images, labels = (torch.tensor(array) for array in load_digits(return_X_y=True))
    images = images.float() / 16
    teacher = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
    student = nn.Sequential(nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))

    train(teacher, images, labels)
    train(student, images, labels, teacher)

    predictions = student(images[NUM_TRAIN:]).argmax(1)
    accuracy = (predictions == labels[NUM_TRAIN:]).float().mean().item()
    print(f"student accuracy {accuracy:.3f}")
    return accuracy


if __name__ == "__main__":
    main()
