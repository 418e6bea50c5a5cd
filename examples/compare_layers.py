"""Which layers of two networks agree, can that number be trusted, and which layers to pair.

python examples/compare_layers.py
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from tutelage.analysis import compare_layers, layers_of, reliability_matrix, suggest_pairs
from tutelage.models import small_cnn

NUM_TRAIN = 1200  # of 1797 images; the networks are compared on the others


def train(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Train for a few epochs."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    for _ in range(150):
        batch = torch.randint(len(images), (64,))
        optimizer.zero_grad()
        cross_entropy(network(images[batch]), labels[batch]).backward()
        optimizer.step()


def main() -> dict[str, float]:
    """Compare a wide and a narrow network; return the CKA of the best pairs of layers."""
    torch.manual_seed(0)
    images, labels = (torch.tensor(array) for array in load_digits(return_X_y=True))
    images = images.float().view(-1, 1, 8, 8) / 16
    teacher = small_cnn(width=16)
    student = small_cnn(width=6)
    train(teacher, images[:NUM_TRAIN], labels[:NUM_TRAIN])
    train(student, images[:NUM_TRAIN], labels[:NUM_TRAIN])

    # Debiased CKA of all pairs of layers, with intervals; no features are stored.
    test = TensorDataset(images[NUM_TRAIN:], labels[NUM_TRAIN:])
    loader = DataLoader(test, batch_size=128, shuffle=True)
    networks = [teacher, student]
    layers = [layers_of(network, (images[:4],)) for network in networks]
    result = compare_layers(networks, layers, loader, permutations=50).compute()

    # CKA can be high for trivial reasons; the reports look for them on one batch.
    reports = reliability_matrix(networks, layers, (images[NUM_TRAIN : NUM_TRAIN + 256],))
    for i, teacher_layer in enumerate(result.left):
        j = int(result.value[i].argmax())
        interval = f"[{result.low[i, j]:.2f}, {result.high[i, j]:.2f}]"
        print(
            f"{teacher_layer:10} ~ {result.right[j]:10} {result.value[i, j]:.2f} {interval}  "
            f"{reports[i][j].verdict}"
        )

    pairs = suggest_pairs(teacher, student, loader)
    layer_pairs = {student_layer: teacher_layer for student_layer, teacher_layer, _ in pairs}
    print(f"RCKA(layer_pairs={layer_pairs})")
    return {student_layer: cka for student_layer, _, cka in pairs}


if __name__ == "__main__":
    main()
