"""How time and memory grow: the exponent of each from size to size.

An exponent of 1 is linear. Relations between items or classes are products of (N, C) logits, so
they are linear in the side that is longer, and quadratic in the shorter one. Every case runs in a
process of its own, whose peak memory above its start is taken.

python -m benchmarks.scaling [--rounds 3] [--only NAME] [--out FILE]
"""

from __future__ import annotations

import gc
import math
import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing.connection import Connection

import torch
from torch import Tensor

from benchmarks.timing import argument_parser, peak_mib, write_result
from tutelage.analysis.study import summarize
from tutelage.data.splits import label_subset, stratified
from tutelage.methods import ckd_loss, dist_loss, dkd_loss, kd_loss, pcka_loss, rcka_loss, ssim_loss
from tutelage.similarity import CKAMatrix

Work = Callable[[], object]
Losses = dict[str, Callable[..., Mapping[str, Tensor] | Tensor]]


def dkd(student: Tensor, teacher: Tensor) -> Mapping[str, Tensor]:
    """Return DKD with the teacher's decisions for labels."""
    return dkd_loss(student, teacher, teacher.argmax(1))


LOGITS: Losses = {
    "kd": kd_loss,
    "dkd": dkd,
    "dist": dist_loss,
    "ckd": ckd_loss,
    "rcka": rcka_loss,
    "rcka, centered": partial(rcka_loss, center=True),
}
MAPS: Losses = {"ssim": ssim_loss, "pcka": pcka_loss}


def loss_step(name: str, shape: Sequence[int]) -> Work:
    """Return a loss with its gradient on random outputs of a shape."""
    loss = (LOGITS | MAPS)[name]
    student = torch.randn(*shape, requires_grad=True)
    teacher = torch.randn(*shape)

    def step() -> None:
        value = loss(student=student, teacher=teacher)
        total = value if isinstance(value, Tensor) else torch.stack(list(value.values())).sum()
        torch.autograd.grad(total, student)

    return step


def of_classes(name: str, classes: int) -> Work:
    """Return a loss of 64 items with so many classes."""
    return loss_step(name, (64, classes))


def of_batch(name: str, items: int) -> Work:
    """Return a loss of so many items with 100 classes."""
    return loss_step(name, (items, 100))


def of_maps(name: str, side: int) -> Work:
    """Return a loss of four images with 16 maps of so many rows and columns."""
    return loss_step(name, (4, 16, side, side))


def compared_layers(layers: int) -> Work:
    """Return one batch of CKA between two networks of so many layers."""
    left, right = ([torch.randn(128, 256) for _ in range(layers)] for _ in range(2))
    names = [str(number) for number in range(layers)]
    return lambda: CKAMatrix(names, names).update(left, right)


def cut_labels(images: int, classes: int) -> Work:
    """Return the cut of a data set's labels into parts, and the draw of a few."""
    labels = torch.randint(classes, (images,))
    return lambda: (stratified(labels, [0.8, 0.2]), label_subset(labels, images // 2, 0))


def summarized_runs(runs: int) -> Work:
    """Return the table of a study with so many runs of ten methods."""
    metrics = {
        "checkpoint": "best",
        "test": {"top1": 0.9, "num_samples": 10.0},
        "last": {"epoch": 4, "test": {"top1": 0.9, "num_samples": 10.0}},
        "best": {"epoch": 2, "test": {"top1": 0.9, "num_samples": 10.0}},
        "validation": {"top1": 0.9},
        "parameters": {"student": 1000, "method": 20},
        "seconds": 1.0,
        "steps": 10,
    }
    methods = ["baseline", *(f"method{number}" for number in range(9))]
    study = {name: {seed: dict(metrics) for seed in range(runs // 10)} for name in methods}
    return lambda: summarize(study, "top1")


GROWTH: dict[str, tuple[Sequence[int], Callable[[int], Work]]] = {
    **{f"classes: {name}": ((250, 1000, 4000), partial(of_classes, name)) for name in LOGITS},
    **{f"batch: {name}": ((128, 512, 2048), partial(of_batch, name)) for name in LOGITS},
    **{f"side of maps: {name}": ((64, 128, 256), partial(of_maps, name)) for name in MAPS},
    "layers: CKAMatrix": ((25, 50, 100, 200), compared_layers),
    "images: cuts, 100 classes": ((10_000, 100_000, 1_000_000), lambda n: cut_labels(n, 100)),
    "classes: cuts, 100 000 images": ((10, 100, 1000), lambda n: cut_labels(100_000, n)),
    "runs: table of a study": ((50, 200, 800), summarized_runs),
}


def measure(make: Callable[[int], Work], size: int, rounds: int) -> tuple[float, float]:
    """Return the least CPU seconds of a call, and the peak of memory above its start in MiB."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_measure, args=(make, size, rounds, sender))
    process.start()
    sender.close()
    seconds, mib = receiver.recv()
    process.join()
    return seconds, mib


def _measure(make: Callable[[int], Work], size: int, rounds: int, sender: Connection) -> None:
    work = make(size)
    before = peak_mib()
    seconds = []
    for _ in range(rounds + 1):
        gc.collect()
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    sender.send((min(seconds[1:]), peak_mib() - before))


def exponents(sizes: Sequence[int], values: Sequence[float]) -> list[float]:
    """Return log(value ratio) / log(size ratio) from each size to the next."""
    pairs = zip(sizes, sizes[1:], values, values[1:], strict=False)
    return [round(math.log(b / a) / math.log(n / m), 2) for m, n, a, b in pairs]


def main() -> None:
    """Measure and write."""
    parser = argument_parser(__doc__, rounds=3)
    parser.add_argument("--only", default="", help="cases whose names begin so")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    results = {}
    for name, (sizes, make) in GROWTH.items():
        if not name.startswith(arguments.only):
            continue
        measured = [measure(make, size, arguments.rounds) for size in sizes]
        seconds = [each[0] for each in measured]
        results[name] = {
            "sizes": list(sizes),
            "ms": [round(value * 1e3, 3) for value in seconds],
            "mib": [round(each[1], 1) for each in measured],
            "exponents of time": exponents(sizes, seconds),
        }
        print(name, results[name], flush=True)
    print(write_result("scaling", {"growth": results, "rounds": arguments.rounds}, arguments.out))


if __name__ == "__main__":
    main()
