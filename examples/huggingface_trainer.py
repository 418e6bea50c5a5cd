"""Distillation inside Hugging Face's Trainer: a Distiller computes the loss, the Trainer trains.

python examples/huggingface_trainer.py
"""

from __future__ import annotations

import tempfile
from functools import partial
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn
from transformers import (
    EvalPrediction,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
)

import tutelage


class DistillationTrainer(Trainer):
    """A Trainer whose model is a Distiller; it evaluates the student alone."""

    def __init__(self, model: tutelage.Distiller, *args: Any, **kwargs: Any) -> None:
        # The Trainer calls one of these methods of its model, by its version, if the arguments say
        # `gradient_checkpointing`.
        for name in ("gradient_checkpointing_enable", "activation_checkpointing_enable"):
            if hasattr(model.student, name):
                setattr(model, name, partial(enable_checkpointing, model.student, name))
        super().__init__(model, *args, **kwargs)
        if not self.label_names:
            # The Trainer looks for labels in the forward of its model, and a Distiller takes a
            # batch; without them it would compute no loss in evaluation.
            self.label_names = ["labels"]

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the sum of the Distiller's terms; in evaluation the student's loss and output."""
        if return_outputs:
            output = self.model.student(**inputs)
            return output.loss, output
        progress = self.state.global_step / self.state.max_steps
        return sum(model(inputs, progress).values())


def enable_checkpointing(student: PreTrainedModel, name: str, **settings: Any) -> None:
    """Enable checkpointing of a student by its method of this name.

    Reentrant checkpointing would cut the gradients of the layers that a distillation method reads.
    """
    key = name.replace("enable", "kwargs")
    settings[key] = {**(settings.get(key) or {}), "use_reentrant": False}
    getattr(student, name)(**settings)


def digits() -> list[dict[str, torch.Tensor]]:
    """Return real digits of 8 x 8 pixels as the items that Hugging Face models take."""
    images, labels = (torch.tensor(array) for array in load_digits(return_X_y=True))
    images = images.float().view(-1, 1, 8, 8) / 16
    return [{"pixel_values": i, "labels": n} for i, n in zip(images, labels, strict=True)]


def vit(width: int, num_layers: int) -> ViTForImageClassification:
    """Return a small vision transformer for digits."""
    config = ViTConfig(
        image_size=8,
        patch_size=2,
        num_channels=1,
        hidden_size=width,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        intermediate_size=2 * width,
        num_labels=10,
    )
    return ViTForImageClassification(config)


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Return the share of images that are classified correctly."""
    return {"accuracy": float((prediction.predictions.argmax(1) == prediction.label_ids).mean())}


def train(
    network: nn.Module, teacher: tutelage.Teacher, method: tutelage.Method, epochs: int
) -> float:
    """Train a network with Hugging Face's Trainer and return its accuracy on held-out digits."""
    items = digits()
    task = tutelage.Classification(num_classes=10)
    distiller = tutelage.Distiller(network, teacher, method, task)
    distiller.setup({name: torch.stack([i[name] for i in items[:64]]) for name in items[0]})
    arguments = TrainingArguments(
        output_dir=f"{tempfile.gettempdir()}/huggingface_trainer",
        num_train_epochs=epochs,
        per_device_train_batch_size=32,
        learning_rate=2e-3,
        eval_strategy="epoch",
        remove_unused_columns=False,  # it would look for the columns in the Distiller's forward
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = DistillationTrainer(
        model=distiller,
        args=arguments,
        train_dataset=items[:1300],
        eval_dataset=items[1300:],
        compute_metrics=accuracy,
    )
    trainer.train()
    return trainer.evaluate()["eval_accuracy"]


def main(epochs: int = 8) -> float:
    """Train a teacher, distill it, and return the student's accuracy on held-out digits."""
    torch.manual_seed(0)
    teacher = vit(64, num_layers=3)
    student = vit(16, num_layers=2)
    teacher_accuracy = train(teacher, tutelage.NoTeacher(), tutelage.Baseline(), epochs)
    rcka = tutelage.RCKA(
        layer_pairs={"vit.layernorm": "vit.layernorm"}, intra_weight=1.0, inter_weight=1.0
    )
    method = tutelage.CombinedMethod([tutelage.KD(), rcka])
    student_accuracy = train(student, tutelage.FrozenTeacher(teacher), method, epochs)
    print(f"teacher {teacher_accuracy:.3f}  student {student_accuracy:.3f}")
    return student_accuracy


if __name__ == "__main__":
    main()
