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
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.loop_by_hand import (
    BATCH,
    EPOCHS,
    EVAL_BATCH,
    FEATURE_WEIGHT,
    FEATURES,
    KD_WEIGHT,
    LR,
    NUM_LABELS,
    ROOT,
    TASK_WEIGHT,
    TEMPERATURE,
    WEIGHT_DECAY,
    Seconds,
    by_hand,
    make_teacher,
    train_teacher,
)
from benchmarks.timing import argument_parser, median_ms, ratio, write_result
from tutelage import KD, RCKA, Baseline, Classification, Method
from tutelage.data import FashionMNIST
from tutelage.engine.interrupt import Interrupt
from tutelage.engine.trainer import Trainer
from tutelage.models import small_cnn
from tutelage.recipes.config import Recipe, StudentConfig, TeacherConfig, TrainConfig

fit_module = importlib.import_module("tutelage.engine.fit")

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
