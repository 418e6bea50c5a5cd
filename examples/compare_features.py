"""How alike are the layers of two networks, and is the number real? CKA on tensors of one's own, torch only.

python examples/compare_features.py
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tutelage.similarity import CKAMatrix, cka, reliability_report


def trained(width: int, images: Tensor, labels: Tensor) -> nn.Sequential:
    """Return a network that has learned digits."""
    network = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(200):
        batch = torch.randint(len(images), (64,))
        optimizer.zero_grad()
        cross_entropy(network(images[batch]), labels[batch]).backward()
        optimizer.step()
    return network


@torch.no_grad()
def layers(network: nn.Sequential, images: Tensor) -> dict[str, Tensor]:
    """Return what every ReLU and the last layer say."""
    seen = {}
    for name, module in network.named_children():
        images = module(images)
        if isinstance(module, nn.ReLU) or name == "4":
            seen[name] = images
    return seen


def main() -> float:
    """Print the map of two networks with intervals and p-values; return the CKA of their logits."""
    torch.manual_seed(0)
    images, labels = (torch.tensor(array) for array in load_digits(return_X_y=True))
    images = images.float() / 16
    wide, narrow = trained(128, images[:1200], labels[:1200]), trained(32, images[:1200], labels[:1200])

    names = ["1", "3", "4"]
    matrix = CKAMatrix(left=names, right=names, permutations=99)
    for start in range(1200, len(images), 64):
        batch = images[start : start + 64]
        matrix.update(layers(wide, batch), layers(narrow, batch), ids=range(start, start + len(batch)))
    found = matrix.compute()
    print(f"{found.samples} images in {found.batches} batches, {found.skipped} skipped")
    for i, left in enumerate(found.left):
        for j, right in enumerate(found.right):
            low, value, high = (float(each[i, j]) for each in (found.low, found.value, found.high))
            print(f"wide {left} and narrow {right}: {value:.3f} [{low:.3f}, {high:.3f}]", end="  ")
        print()

    one, two = layers(wide, images[1200:])["4"], layers(narrow, images[1200:])["4"]
    print(reliability_report(one, two, labels=labels[1200:]))
    return cka(one, two).item()


if __name__ == "__main__":
    main()
