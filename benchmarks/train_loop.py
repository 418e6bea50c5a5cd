"""Whole runs on Fashion-MNIST against a loop that one would write by hand for the same work.

A small CNN learns from 4000 labels and a deeper one, by KD and by RCKA with a teacher that ran once
over the training data, and alone with flips and padded crops. Each run reads the data, tests the
teacher on validation data, runs it over the training data, trains, and after every epoch validates,
writes a log line and a checkpoint; at the end it tests the teacher, the last and the best student.
`epochs` is the part from the first step to the last checkpoint, `run` is all of it. By hand there
is nothing else: no checks, no resume, accuracy and likelihood as the only metrics, whole-batch
crops. The losses of RCKA are the package's pure functions in both. The gradient cap is off; what it
adds is in gradient_cap_cost.json.

CPU time of one process and one thread, in random order inside each round, so that other programs
on the machine matter little.

python -m benchmarks.train_loop [--rounds 7] [--cases NAME …] [--out FILE]
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import json
import math
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.timing import argument_parser, median_ms, ratio, write_result
from tutelage import KD, RCKA, Baseline, Classification, Method
from tutelage.data import FashionMNIST
from tutelage.data.sets.mnist import read_idx
from tutelage.engine.interrupt import Interrupt
from tutelage.engine.trainer import Trainer
from tutelage.io import write_tensors
from tutelage.methods import rcka_feature_loss, rcka_loss
from tutelage.models import small_cnn
from tutelage.recipes.config import Recipe, StudentConfig, TeacherConfig, TrainConfig

fit_module = importlib.import_module("tutelage.engine.fit")

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
METHODS: dict[str, Callable[[], Method]] = {
    "alone": Baseline,
    "kd": lambda: KD(temperature=TEMPERATURE, weight=KD_WEIGHT, task_weight=TASK_WEIGHT),
    "rcka": lambda: RCKA(
        {name: name for name in FEATURES}, center=True, feature_weight=FEATURE_WEIGHT
    ),
}
# name -> (method, whether images are augmented)
CASES = {
    "KD, cached teacher": ("kd", False),
    "RCKA, cached teacher": ("rcka", False),
    "student alone, flip and crop": ("alone", True),
}


class TimedTrainer(Trainer):
    """Notes the CPU time from the first step to the last checkpoint."""

    seconds_of_epochs = 0.0

    def run(self, interrupt: Interrupt) -> bool:
        """Train to the end."""
        start = time.process_time()
        is_done = super().run(interrupt)
        TimedTrainer.seconds_of_epochs = time.process_time() - start
        return is_done


def make_teacher() -> nn.Module:
    """Return a network that is slower and better than the student."""
    return small_cnn(width=10, convs=2)


def by_tutelage(method: str, augmented: bool, weights: Path) -> Seconds:
    """Run a recipe and return the CPU seconds of its epochs and of all."""
    start = time.process_time()
    teacher = None
    if method != "alone":
        teacher = TeacherConfig(make_teacher(), weights=str(weights), cache="memory")
    recipe = Recipe(
        data=FashionMNIST(str(ROOT), augment=augmented),
        task=Classification(num_classes=10),
        student=StudentConfig(small_cnn()),
        method=METHODS[method](),
        teacher=teacher,
        num_labels=NUM_LABELS,
        train=TrainConfig(
            optimizer=partial(torch.optim.AdamW, lr=LR, weight_decay=WEIGHT_DECAY),
            epochs=EPOCHS,
            batch_size=BATCH,
            eval_batch_size=EVAL_BATCH,
            num_threads=1,
            gradient_cap=None,
        ),
    )
    with tempfile.TemporaryDirectory() as folder, quiet():
        fit_module.fit(recipe, Path(folder) / "run")
    return {"epochs": TimedTrainer.seconds_of_epochs, "run": time.process_time() - start}


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
        test(teacher, *parts["validation"])
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
            metrics = test(student, *parts["validation"])
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
            test(teacher, *parts["test"])
        test(student, *parts["test"])
        student.load_state_dict(best_weights)
        test(student, *parts["test"])
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
def test(network: nn.Module, images: Tensor, labels: Tensor) -> dict[str, float]:
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
    return test(teacher, *parts["test"])["top1"]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Print nothing."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield


def measure(names: list[str], rounds: int, weights: Path) -> dict[str, Any]:
    """Return ratios and seconds of every case."""
    calls = {
        (name, way): partial(run, *CASES[name], weights)
        for name in names
        for way, run in (("tutelage", by_tutelage), ("by hand", by_hand))
    }
    seconds: dict[tuple[str, str], list[Seconds]] = {key: [] for key in calls}
    order = list(calls)
    for index in range(rounds + 1):
        random.Random(index).shuffle(order)
        for key in order:
            gc.collect()
            spent = calls[key]()
            if index:  # the first round warms up
                seconds[key].append(spent)
    rows: dict[str, Any] = {}
    for name in names:
        rows[name] = {}
        for part in ("epochs", "run"):
            ours, hand = (
                [spent[part] for spent in seconds[name, way]] for way in ("tutelage", "by hand")
            )
            rows[name][part] = {
                "tutelage_ms": median_ms(ours),
                "by_hand_ms": median_ms(hand),
                "tutelage / by hand": ratio(ours, hand),
            }
    return rows


def main() -> None:
    """Measure and write."""
    parser = argument_parser(__doc__, rounds=7)
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=CASES, metavar="NAME")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    fit_module.Trainer = TimedTrainer  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "teacher.pt"
        accuracy = train_teacher(weights)
        rows = measure(arguments.cases, arguments.rounds, weights)
    content = {
        "labels": NUM_LABELS,
        "epochs": EPOCHS,
        "teacher_top1": accuracy,
        "time": "CPU time of the process, one thread, on a machine that others use too",
        "rounds": arguments.rounds,
        "rows": rows,
    }
    for name, row in rows.items():
        for part, figures in row.items():
            times = figures["tutelage / by hand"]
            print(
                f"{name:30} {part:7} {figures['tutelage_ms']:8.0f} ms, by hand "
                f"{figures['by_hand_ms']:8.0f} ms, {times['median']:.3f} "
                f"[{times['quartile1']:.3f}, {times['quartile3']:.3f}]"
            )
    print(write_result("train_loop", content, arguments.out))


if __name__ == "__main__":
    main()
