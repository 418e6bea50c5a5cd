"""CKA of features that you have as tensors: how alike are they, and can that number be trusted?

python examples/compare_features.py
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tutelage.similarity import CKAMatrix, cka, reliability_report

NUM_TRAIN = 1200  # of 1797 images; the features are compared on the others
LAYERS = ["1", "3", "4"]  # both ReLUs and the logits


def trained_mlp(width: int, images: Tensor, labels: Tensor) -> nn.Sequential:
    """Return a network that has learned digits."""
    network = nn.Sequential(
        nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(200):
        batch = torch.randint(len(images), (64,))
        optimizer.zero_grad()
        cross_entropy(network(images[batch]), labels[batch]).backward()
        optimizer.step()
    return network


@torch.no_grad()
def features_of(network: nn.Sequential, images: Tensor) -> dict[str, Tensor]:
    """Return the outputs of the layers by name."""
    features = {}
    for name, module in network.named_children():
        images = module(images)
        features[name] = images
    return {name: features[name] for name in LAYERS}


def main() -> float:
    """Print the CKA of all pairs of layers with intervals; return that of the logits."""
    torch.manual_seed(0)
    images, labels = (torch.tensor(array) for array in load_digits(return_X_y=True))
    images = images.float() / 16
    wide = trained_mlp(128, images[:NUM_TRAIN], labels[:NUM_TRAIN])
    narrow = trained_mlp(32, images[:NUM_TRAIN], labels[:NUM_TRAIN])
    images, labels = images[NUM_TRAIN:], labels[NUM_TRAIN:]

    # All pairs of layers, batch by batch: only sums are kept.
    matrix = CKAMatrix(left=LAYERS, right=LAYERS, permutations=99)
    for batch in images.split(64):
        matrix.update(features_of(wide, batch), features_of(narrow, batch))
    result = matrix.compute()
    for i, left in enumerate(result.left):
        for j, right in enumerate(result.right):
            interval = f"[{result.low[i, j]:.3f}, {result.high[i, j]:.3f}]"
            print(f"wide {left}, narrow {right}: {result.value[i, j]:.3f} {interval}", end="  ")
        print()

    # One pair at once, and whether its CKA can be trusted.
    wide_logits = features_of(wide, images)["4"]
    narrow_logits = features_of(narrow, images)["4"]
    print(reliability_report(wide_logits, narrow_logits, labels=labels))
    return cka(wide_logits, narrow_logits).item()


if __name__ == "__main__":
    main()
