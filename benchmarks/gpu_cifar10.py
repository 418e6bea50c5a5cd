"""Every method on CIFAR-10 in one command, for a GPU: ResNet-32×4 → ResNet-8×4.

The images stay on the device as uint8 and are cropped and mirrored there, a batch at a time. Each
batch passes through the teacher once, and all students learn from that one pass: they see the same
images in the same order, so differences to the baseline are paired. Networks are compiled, in bf16
on a GPU. The methods' weights are those of the recipes in classification/cifar10/resnet8x4, held
within the default cap on gradients. The last epoch counts: nothing is chosen.

The data is what torchvision.datasets.CIFAR10(root, download=True) leaves. The teacher is kept in
runs/ and trained once. Results go to benchmarks/results/gpu_cifar10.json.

python -m benchmarks.gpu_cifar10 --root data [--epochs 60] [--seeds 1] [--methods kd rcka]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model
from torch import nn

from benchmarks.side_by_side import DeviceImages, OnePass, Training, train
from benchmarks.timing import write_result
from tutelage import Classification, FrozenTeacher, NoTeacher
from tutelage.analysis.formatting import text_table
from tutelage.analysis.study import BASELINE, summarize
from tutelage.analysis.study_table import difference_column, metric_column
from tutelage.core.normalization import normalize_inputs
from tutelage.data import CIFAR10
from tutelage.data.image_set import ArraySet
from tutelage.engine.compiled import compile_networks
from tutelage.engine.dry_run import num_parameters
from tutelage.engine.evaluate import EvalLoading, evaluate, evaluation
from tutelage.recipes import parse_recipe
from tutelage.recipes.shipped import find_folder, methods_in

FOLDER = "classification/cifar10/resnet8x4"


def trained_teacher(
    network: nn.Module, data: DeviceImages, epochs: int, path: Path, is_compiled: bool = True
) -> FrozenTeacher:
    """Return the teacher, trained unless its weights are there."""
    if path.exists():
        load_model(network, path)
        return FrozenTeacher(network)
    print(f"training the teacher: {path}", flush=True)
    method = parse_recipe(f"{FOLDER}/{BASELINE}").build().method
    example = next(data.epoch())
    training = Training.of(network, NoTeacher(), method, example, epochs * len(data), is_compiled)
    train({"teacher": training}, data, epochs)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_model(network, str(path))
    return FrozenTeacher(network)


def one_seed(
    names: Sequence[str],
    seed: int,
    teacher: FrozenTeacher,
    data: DeviceImages,
    test: ArraySet,
    epochs: int,
    is_compiled: bool = True,
) -> dict[str, Any]:
    """Return the run of every method's student with one seed, as `summarize` reads it.

    Args:
        names: of recipes.
        seed: of weights, order and augmentation.
        teacher: trained.
        data: to train on.
        test: to evaluate on.
        epochs: of training.
        is_compiled: whether the networks are compiled.
    """
    recipes = {name: parse_recipe(f"{FOLDER}/{name}", [f"--seed={seed}"]).build() for name in names}
    layers = [layer for recipe in recipes.values() for layer in recipe.method.teacher_layers]
    shared = OnePass(teacher.with_taps(list(dict.fromkeys(layers))))
    if is_compiled:
        compile_networks(teacher.model)
    example = next(data.epoch())
    trainings = {}
    for name, recipe in recipes.items():
        assert recipe.student.model is not None
        student = normalize_inputs(
            recipe.student.model.to(data.images.device), mean=CIFAR10.mean, std=CIFAR10.std
        )
        trainings[name] = Training.of(
            student, shared, recipe.method, example, epochs * len(data), is_compiled
        )
    start = time.perf_counter()
    train(trainings, data, epochs)
    seconds = time.perf_counter() - start
    runs = {}
    for name, training in trainings.items():
        method = training.distiller.method
        parameters = {"method": num_parameters(method)}
        network = training.distiller.deploy()
        parameters["student"] = num_parameters(network)
        metrics = test_metrics(network, test, data.images.device)
        runs[name] = {
            "test": metrics,
            "last": {"test": metrics},
            "best": {"test": metrics, "epoch": epochs},
            "validation": {},
            "seconds": seconds,  # of all methods together
            "steps": epochs * len(data),
            "parameters": parameters,
        }
    return runs


def test_metrics(network: nn.Module, test: ArraySet, device: torch.device) -> dict[str, float]:
    """Return the metrics of a network on all test images."""
    loading = EvalLoading(batch_size=1000, num_workers=0, device=device)
    run = evaluation("test", loading)
    return evaluate(network, Classification(num_classes=10), {"test": test}, run)


def table(summary: Mapping[str, Any]) -> str:
    """Return accuracy and difference to the baseline, a row for each method."""
    accuracy, difference = metric_column("top1"), difference_column("top1")
    rows = []
    for name, row in summary.items():
        gain = "" if name == BASELINE else difference.cell(name, row).text
        rows.append([name, accuracy.cell(name, row).text, gain])
    return text_table(["method", "top1", "difference"], rows)


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser of this script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", default="data", help="holds cifar-10-batches-py/")
    parser.add_argument("--methods", nargs="+", default=methods_in(find_folder(FOLDER)))
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--images", type=int, help="of each part; default: all")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--out", help="file of the result; default: in benchmarks/results")
    parser.add_argument(
        "--teacher", type=Path, default=Path("runs/gpu_cifar10/teacher.safetensors")
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Train the teacher, then all students, seed by seed; write the results."""
    arguments = argument_parser().parse_args(argv)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high")
    start = time.perf_counter()
    images, _, test = CIFAR10(arguments.root).raw_splits()
    assert isinstance(images, ArraySet)
    assert isinstance(test, ArraySet)
    chosen = slice(arguments.images)
    test = test.subset_with(torch.arange(len(test))[chosen], None, 0)

    def data(seed: int) -> DeviceImages:
        return DeviceImages(
            images.images[chosen].to(device),
            images.labels[chosen].to(device),
            arguments.batch_size,
            seed,
        )

    network = parse_recipe(f"{FOLDER}/teacher").build().student.model
    assert network is not None
    network = normalize_inputs(network.to(device), mean=CIFAR10.mean, std=CIFAR10.std)
    teacher = trained_teacher(
        network, data(0), arguments.epochs, arguments.teacher, arguments.compile
    )
    methods = [BASELINE, *(name for name in arguments.methods if name != BASELINE)]
    runs: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in methods}
    for seed in range(arguments.seeds):
        by_method = one_seed(
            methods, seed, teacher, data(seed), test, arguments.epochs, arguments.compile
        )
        for name in methods:
            runs[name][seed] = by_method[name]
    summary = summarize(runs, "top1")
    print(table(summary))
    content = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "epochs": arguments.epochs,
        "seconds": time.perf_counter() - start,
        "teacher": test_metrics(teacher.model, test, device),
        "summary": summary,
        "runs": runs,
    }
    print(write_result("gpu_cifar10", content, arguments.out))


if __name__ == "__main__":
    main()
