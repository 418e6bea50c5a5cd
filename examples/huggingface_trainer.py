"""Distil inside Hugging Face's Trainer: a Distiller computes the loss, everything else is the Trainer's.

python examples/huggingface_trainer.py
"""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

import tutelage


class DigitSet(Dataset[dict[str, Tensor]]):
    """Real 8×8 digits as the dicts that Hugging Face models take."""

    def __init__(self, first: int, last: int) -> None:
        images, labels = load_digits(return_X_y=True)
        self.images = torch.tensor(images[first:last], dtype=torch.float32).view(-1, 1, 8, 8) / 16
        self.labels = torch.tensor(labels[first:last])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"pixel_values": self.images[index], "labels": self.labels[index]}


class DistillationTrainer(Trainer):
    """A Trainer whose loss is the sum of a Distiller's terms."""

    def __init__(self, distiller: tutelage.Distiller, **arguments: Any) -> None:
        super().__init__(model=distiller, **arguments)

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], *args: Any, **more: Any) -> Tensor:
        """Return the loss of one batch."""
        progress = self.state.global_step / max(1, self.state.max_steps)
        return sum(model(inputs, progress).values())


def vit(width: int, layers: int) -> ViTForImageClassification:
    """Return a small vision transformer for digits."""
    config = ViTConfig(
        image_size=8,
        patch_size=2,
        num_channels=1,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=2 * width,
        num_labels=10,
    )
    return ViTForImageClassification(config)


def train(network: nn.Module, teacher: tutelage.Teacher, method: tutelage.Method, epochs: int) -> None:
    """Train a network with Hugging Face's Trainer."""
    distiller = tutelage.Distiller(network, teacher, method, tutelage.Classification(num_classes=10))
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=epochs,
            per_device_train_batch_size=64,
            learning_rate=2e-3,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            remove_unused_columns=False,
            use_cpu=True,
        )
        DistillationTrainer(distiller, args=arguments, train_dataset=DigitSet(0, 1300)).train()


@torch.no_grad()
def accuracy(network: nn.Module) -> float:
    """Return the share of held-out digits that a network gets right."""
    test = DigitSet(1300, 1797)
    logits = network.eval()(pixel_values=test.images).logits
    return float((logits.argmax(1) == test.labels).float().mean())


def main(epochs: int = 8) -> float:
    """Train a teacher, distil it, and return the student's accuracy on held-out digits."""
    torch.manual_seed(0)
    teacher, student = vit(64, 3), vit(16, 2)
    train(teacher, tutelage.Absent(), tutelage.Alone(), epochs)
    features = {"vit.layernorm": "vit.layernorm"}
    method = tutelage.Together([tutelage.KD(), tutelage.RCKA(intra=1.0, inter=1.0, pairs=features)])
    train(student, tutelage.Network(teacher), method, epochs)
    print(f"teacher {accuracy(teacher):.3f}  student {accuracy(student):.3f}")
    return accuracy(student)


if __name__ == "__main__":
    main()
