"""A training loop that one would write by hand, for `train_loop.py` to compare with."""

from __future__ import annotations

import json
import math
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tutelage.data.sets.mnist import read_idx
from tutelage.io import write_tensors
from tutelage.methods import rcka_feature_loss, rcka_loss
from tutelage.models import small_cnn

ROOT = Path("/usr/share/datasets/fashion-mnist")
NUM_LABELS = 4000
EPOCHS = 2
BATCH, EVAL_BATCH = 64, 256
LR, WEIGHT_DECAY = 1e-2, 0.05
MEAN, STD = 0.2860, 0.3530
TEMPERATURE, KD_WEIGHT, TASK_WEIGHT = 2.0, 0.9, 0.1
FEATURES = ("stage2", "stage3")
FEATURE_WEIGHT = 5.0
PADDING = 2

Seconds = dict[str, float]
Outputs = dict[str, Tensor]


def make_teacher() -> nn.Module:
    """Return a network that is slower and better than the student."""
    return small_cnn(width=10, convs=2)


def by_hand(method: str, augmented: bool, weights: Path) -> Seconds:
    """Do the same without the package, and return the same."""
    start = time.process_time()
    torch.manual_seed(0)
    parts = read_parts()
    student, teacher = small_cnn(), make_teacher()
    images, labels = parts["train"]
    cached: Outputs = {}
    if method != "alone":
        teacher.load_state_dict(torch.load(weights))
        score(teacher, *parts["validation"])
        with torch.no_grad():
            pieces = [forward(teacher, scaled(part)) for part in torch.split(images, EVAL_BATCH)]
        names = ("logits", *FEATURES) if method == "rcka" else ("logits",)
        cached = {name: torch.cat([piece[name] for piece in pieces]) for name in names}
    optimizer = torch.optim.AdamW(student.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    num_steps = len(images) // BATCH
    with tempfile.TemporaryDirectory() as folder:
        epochs_start = time.process_time()
        best, best_weights = -1.0, {}
        for epoch in range(EPOCHS):
            student.train()
            order = torch.randperm(len(images))
            total = 0.0
            for step in range(num_steps):
                progress = (epoch * num_steps + step) / (EPOCHS * num_steps)
                optimizer.param_groups[0]["lr"] = LR * 0.5 * (1 + math.cos(math.pi * progress))
                chosen = order[step * BATCH : (step + 1) * BATCH]
                batch = images[chosen]
                inputs = scaled(flip_and_crop(batch) if augmented else batch)
                outputs = forward(student, inputs)
                wanted = {name: values[chosen] for name, values in cached.items()}
                loss = loss_of(method, outputs, wanted, labels[chosen], progress)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.item()
            metrics = score(student, *parts["validation"])
            if metrics["top1"] > best:
                best = metrics["top1"]
                best_weights = {k: v.clone() for k, v in student.state_dict().items()}
            with (Path(folder) / "log.jsonl").open("a") as file:
                file.write(json.dumps({"epoch": epoch, "loss": total / num_steps, **metrics}))
            state = {"student": student.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save(state, Path(folder) / "new.pt")
            (Path(folder) / "new.pt").replace(Path(folder) / "checkpoint.pt")
        seconds = time.process_time() - epochs_start
        if method != "alone":
            score(teacher, *parts["test"])
        score(student, *parts["test"])
        student.load_state_dict(best_weights)
        score(student, *parts["test"])
        write_tensors(Path(folder) / "student.safetensors", student.state_dict())
    return {"epochs": seconds, "run": time.process_time() - start}


def read_parts() -> dict[str, tuple[Tensor, Tensor]]:
    """Return images and labels: 4000 to train, 6000 to validate, 10 000 to test."""
    read = [
        read_idx(ROOT / f"{part}-{kind}-ubyte.gz", dimensions)
        for part in ("train", "t10k")
        for kind, dimensions in (("images-idx3", 3), ("labels-idx1", 1))
    ]
    images, labels, test_images, test_labels = read
    images, test_images = images.unsqueeze(1), test_images.unsqueeze(1)
    return {
        "train": (images[:NUM_LABELS], labels[:NUM_LABELS].long()),
        "validation": (images[-6000:], labels[-6000:].long()),
        "test": (test_images, test_labels.long()),
    }


def scaled(images: Tensor) -> Tensor:
    """Return uint8 images as a network takes them."""
    return images.float().div_(255).sub_(MEAN).div_(STD)


def flip_and_crop(images: Tensor) -> Tensor:
    """Return images (N, 1, H, W) mirrored at random and cropped after padding, by one gather."""
    count, _, _, side = images.shape
    padded = F.pad(images, (PADDING,) * 4)
    top = torch.randint(2 * PADDING + 1, (count, 1))
    left = torch.randint(2 * PADDING + 1, (count, 1))
    steps = torch.arange(side)
    columns = left + torch.where(torch.rand(count, 1) < 0.5, steps.flip(0), steps)
    places = (top + steps)[:, :, None] * padded.shape[-1] + columns[:, None, :]
    return padded.flatten(2).gather(2, places.view(count, 1, -1)).view_as(images)


def forward(network: nn.Module, inputs: Tensor) -> Outputs:
    """Return the logits and the features that RCKA aligns."""
    outputs: Outputs = {}
    for name, child in network.named_children():
        inputs = child(inputs)
        if name in FEATURES:
            outputs[name] = inputs
    return {"logits": inputs, **outputs}


def loss_of(
    method: str, student: Outputs, teacher: Outputs, labels: Tensor, progress: float
) -> Tensor:
    """Return the loss of a step."""
    loss = F.cross_entropy(student["logits"], labels)
    if method == "kd":
        divergence = F.kl_div(
            F.log_softmax(student["logits"] / TEMPERATURE, 1),
            F.log_softmax(teacher["logits"] / TEMPERATURE, 1),
            reduction="batchmean",
            log_target=True,
        )
        return TASK_WEIGHT * loss + KD_WEIGHT * TEMPERATURE**2 * divergence
    if method == "rcka":
        ramp = min(1.0, max(0.0, (progress - 0.3) / 0.4))
        terms = rcka_loss(student["logits"], teacher["logits"], center=True)
        loss = loss + ramp * (terms["intra"] + terms["inter"])
        for name in FEATURES:
            loss = loss + FEATURE_WEIGHT * rcka_feature_loss(
                student[name], teacher[name], center=True
            )
    return loss


@torch.no_grad()
def score(network: nn.Module, images: Tensor, labels: Tensor) -> dict[str, float]:
    """Return accuracy and negative log-likelihood."""
    network.eval()
    right = nats = 0.0
    for part, wanted in zip(
        torch.split(images, EVAL_BATCH), torch.split(labels, EVAL_BATCH), strict=True
    ):
        logits = network(scaled(part))
        right += (logits.argmax(1) == wanted).sum().item()
        nats += F.cross_entropy(logits, wanted, reduction="sum").item()
    return {"top1": right / len(labels), "nll": nats / len(labels)}


def train_teacher(path: Path) -> float:
    """Write a teacher that is a little trained, and return its accuracy."""
    torch.manual_seed(0)
    parts = read_parts()
    images, labels = parts["train"]
    teacher = make_teacher()
    optimizer = torch.optim.AdamW(teacher.parameters(), lr=5e-3)
    for _ in range(3):
        for chosen in torch.split(torch.randperm(len(images)), BATCH):
            optimizer.zero_grad()
            F.cross_entropy(teacher(scaled(images[chosen])), labels[chosen]).backward()
            optimizer.step()
    torch.save(teacher.state_dict(), path)
    return score(teacher, *parts["test"])["top1"]
