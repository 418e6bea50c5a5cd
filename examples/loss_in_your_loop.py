"""RCKA's pure functions in somebody's own training loop: torch only, no engine, no recipe.

python examples/loss_in_your_loop.py
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

from tutelage.methods.rcka import rcka_loss


def main() -> float:
    """Distil a wide network into a narrow one on real digits; return the student's accuracy on held-out images."""
    torch.manual_seed(0)
    images, labels = (torch.tensor(array) for array in load_digits(return_X_y=True))
    images = images.float() / 16
    test = slice(1300, None)
    teacher = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
    student = nn.Sequential(nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))

    def fit(network: nn.Module, taught: bool) -> None:
        optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
        for step in range(400):
            batch = torch.randint(1300, (64,))
            logits = network(images[batch])
            loss = cross_entropy(logits, labels[batch])
            if taught:
                with torch.no_grad():
                    told = teacher(images[batch])
                ramp = min(1.0, max(0.0, (step / 400 - 0.3) / 0.4))
                loss = loss + ramp * sum(rcka_loss(logits, told).values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    fit(teacher, taught=False)
    fit(student, taught=True)
    accuracy = (student(images[test]).argmax(1) == labels[test]).float().mean().item()
    print(f"student accuracy {accuracy:.3f}")
    return accuracy


if __name__ == "__main__":
    main()
