"""Which layers of two networks agree, can the number be trusted, and which layers to pair.

python examples/compare_layers.py
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from tutelage.engine import compare_layers, judge, layers_of, suggest_pairs
from tutelage.models import small_cnn


def main() -> dict[str, float]:
    """Train a wide and a narrow network on real digits, compare them, return the CKA of the best pairs."""
    torch.manual_seed(0)
    images, labels = (torch.tensor(array) for array in load_digits(return_X_y=True))
    images = images.float().view(-1, 1, 8, 8) / 16
    wide, narrow = small_cnn(width=16), small_cnn(width=6)
    for network in (wide, narrow):
        fit(network, images[:1200], labels[:1200])

    loader = DataLoader(TensorDataset(images[1200:], labels[1200:]), batch_size=128, shuffle=True)
    layers = [layers_of(network, (images[:4],)) for network in (wide, narrow)]
    result = compare_layers([wide, narrow], layers, loader, permutations=50).compute()
    verdicts = judge([wide, narrow], layers, (images[1200:1456],))
    for i, name in enumerate(result.left):
        j = int(result.value[i].argmax())
        interval = f"[{result.low[i, j]:.2f}, {result.high[i, j]:.2f}]"
        print(f"{name:10} ~ {result.right[j]:10} {result.value[i, j]:.2f} {interval}  {verdicts[i][j].verdict}")
    pairs = suggest_pairs(wide, narrow, loader)
    print("RCKA(pairs=" + repr({student: teacher for student, teacher, _ in pairs}) + ")")
    return {student: value for student, _, value in pairs}


def fit(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
    """Train a few epochs."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    for _ in range(150):
        batch = torch.randint(len(images), (64,))
        optimizer.zero_grad()
        cross_entropy(network(images[batch]), labels[batch]).backward()
        optimizer.step()


if __name__ == "__main__":
    main()
