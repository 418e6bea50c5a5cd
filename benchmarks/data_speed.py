"""What loading costs: augmented batches, folders of small JPEG files, label cuts, streams.

Each case stands beside what a user would write by hand, or beside torchvision, in one process and
one thread, in random order, and in CPU time.

python -m benchmarks.data_speed [--rounds 7] [--out FILE]
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder as TorchvisionFolder
from torchvision.transforms import v2

from benchmarks.timing import argument_parser, interleaved, median_ms, ratio, write_result
from tutelage.data import ArraySet, ImageFolder
from tutelage.data.samples import Stream
from tutelage.data.splits import label_subset, stratified
from tutelage.data.transforms import (
    BatchTransform,
    ColorJitter,
    Compose,
    PaddedCrop,
    RandAugment,
    RandomHorizontalFlip,
    RandomResizedCrop,
)
from tutelage.engine.loader import EpochSampler

NUM_FILES = 2000
NUM_SCANNED = 50_000  # files, in 1000 folders
SIDE = 64
BATCH = 64
NUM_MAIN = 640_000  # labeled samples beside the stream

Case = Callable[[], object]


def batch_cases() -> dict[str, Case]:
    """Return the augmentation of a batch of 64 gray images of 28 pixels, and of 32 in color."""
    cases: dict[str, Case] = {}
    keys = [(1, position) for position in range(BATCH)]
    for name, channels, side in (("28 gray", 1, 28), ("32 color", 3, 32)):
        images = torch.randint(256, (1000, channels, side, side), dtype=torch.uint8)
        labels = torch.arange(1000) % 10
        augmentations: dict[str, Any] = {
            "none": None,
            "padded crop, mirror": PaddedCrop(side, padding=side // 8),
            "resized crop, mirror": Compose([RandomResizedCrop(side), RandomHorizontalFlip()]),
            "color jitter": ColorJitter(0.4, 0.4, 0.4, 0.1),
            "RandAugment": RandAugment(),
            "padded crop, mirror by torchvision": v2.Compose(
                [v2.RandomCrop(side, padding=side // 8), v2.RandomHorizontalFlip()]
            ),
            "resized crop, mirror by torchvision": v2.Compose(
                [v2.RandomResizedCrop(side), v2.RandomHorizontalFlip()]
            ),
            "color jitter by torchvision": v2.ColorJitter(0.4, 0.4, 0.4, 0.1),
            "RandAugment by torchvision": v2.RandAugment(),
        }
        for what, augment in augmentations.items():
            samples = ArraySet(images, labels, augment=augment)
            cases[f"batch {name}: {what}"] = lambda s=samples: s.batch(keys)  # type: ignore[misc]
        cases[f"batch {name}: padded crop, mirror by hand"] = by_hand(images, side // 8)
    return cases


def by_hand(images: Tensor, padding: int) -> Case:
    """Return a padded crop and mirror of a batch as one would write it: one gather."""
    side = images.shape[-1]
    positions = torch.arange(BATCH)

    def run() -> Tensor:
        padded = F.pad(images[positions], (padding,) * 4)
        top = torch.randint(2 * padding + 1, (BATCH, 1))
        left = torch.randint(2 * padding + 1, (BATCH, 1))
        steps = torch.arange(side)
        columns = left + torch.where(torch.rand(BATCH, 1) < 0.5, steps.flip(0), steps)
        places = (top + steps)[:, :, None] * padded.shape[-1] + columns[:, None, :]
        flat = places.view(BATCH, 1, -1).expand(-1, images.shape[1], -1)
        return padded.flatten(2).gather(2, flat).view(BATCH, -1, side, side).float() / 255

    return run


def write_files(root: Path) -> None:
    """Write noisy JPEG files of 64 pixels in ten classes."""
    random = np.random.default_rng(0)
    for number in range(NUM_FILES):
        folder = root / f"class{number % 10}"
        folder.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC)).astype(int)
        noisy = (smooth + random.integers(-12, 13, smooth.shape)).clip(0, 255)
        Image.fromarray(noisy.astype(np.uint8)).save(folder / f"{number:05d}.jpg", quality=90)


def folder_cases(root: Path) -> dict[str, Case]:
    """Return one epoch over the files, without loading processes."""
    pairs: dict[str, tuple[BatchTransform, list[Any]]] = {
        "padded crop, mirror": (PaddedCrop(SIDE, padding=8), [v2.RandomCrop(SIDE, padding=8)]),
        "resized crop, mirror": (
            Compose([RandomResizedCrop(SIDE), RandomHorizontalFlip()]),
            [v2.RandomResizedCrop(SIDE)],
        ),
    }
    keys = [(1, position) for position in range(NUM_FILES)]
    batches = [keys[start : start + BATCH] for start in range(0, NUM_FILES, BATCH)]
    cases: dict[str, Case] = {}
    for name, (augment, crop) in pairs.items():
        official = v2.Compose(
            [
                *crop,
                v2.RandomHorizontalFlip(),
                v2.PILToTensor(),
                v2.ToDtype(torch.float32, scale=True),
            ]
        )
        loader = DataLoader(TorchvisionFolder(str(root), official), BATCH, shuffle=True)
        cases[f"folder: {name} by torchvision"] = lambda each=loader: exhaust(each)  # type: ignore[misc]
        for decode in ("none", "memory"):
            data = ImageFolder(str(root), size=SIDE, decode=decode)  # type: ignore[arg-type]
            part = data.raw_splits()[0].subset_with(torch.arange(NUM_FILES), augment, 0)
            cases[f"folder: {name}, decode {decode}"] = lambda each=part: exhaust(  # type: ignore[misc]
                each.batch(batch) for batch in batches
            )
    return cases


def exhaust(batches: Iterable[object]) -> None:
    """Load all batches."""
    for _ in batches:
        pass


def scan_cases(root: Path, source: Path) -> dict[str, Case]:
    """Return the listing of 50 000 files in 1000 folders, checked before."""
    content = source.read_bytes()
    for number in range(NUM_SCANNED):
        folder = root / f"class{number % 1000:04d}"
        folder.mkdir(parents=True, exist_ok=True)
        # A comment of its own makes every file another one.
        comment = b"\xff\xfe\x00\x0a" + b"%08d" % number
        (folder / f"{number:05d}.jpg").write_bytes(content[:2] + comment + content[2:])
    ImageFolder(str(root)).raw_splits()
    return {
        "listing: os.scandir and stat": lambda: list_and_stat(str(root)),
        "listing: torchvision, without stat": lambda: TorchvisionFolder(str(root)),
        "listing: ImageFolder": lambda: ImageFolder(str(root)).raw_splits(),
    }


def list_and_stat(folder: str) -> None:
    """List all files below a folder, and read their sizes and times."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                list_and_stat(entry.path)
            else:
                entry.stat()


def label_cases() -> dict[str, Case]:
    """Return cuts of a million labels, beside one sort, and a batch of a stream."""
    labels = torch.randint(1000, (1_000_000,))
    stream = Stream("unlabeled", first=1000, size=1_000_000, share=1.0)
    batches = iter(EpochSampler(NUM_MAIN, BATCH, seed=0, streams=[stream]))
    next(batches)
    return {
        "labels: one stable argsort": lambda: labels.argsort(stable=True),
        "labels: validation cut": lambda: stratified(labels, [0.9, 0.1]),
        "labels: subset of 100 000": lambda: label_subset(labels, 100_000, seed=0),
        "stream: a batch": lambda: next(batches),
    }


def main() -> None:
    """Measure and write."""
    arguments = argument_parser(__doc__, rounds=7).parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        files = Path(folder) / "files"
        write_files(files)
        cases = batch_cases() | folder_cases(files) | label_cases()
        cases |= scan_cases(Path(folder) / "many", next(files.rglob("*.jpg")))
        calls = {name: 10 if name.startswith(("batch", "stream")) else 1 for name in cases}
        seconds = interleaved(cases, arguments.rounds, calls)
    ratios = {}
    for name in cases:
        for peer in (f"{name} by torchvision", f"{name} by hand"):
            if peer in cases:
                ratios[f"{name}: time over {peer.rsplit(' ', 1)[1]}"] = ratio(
                    seconds[name], seconds[peer]
                )
        if ", decode " in name:
            peer = f"{name.partition(', decode')[0]} by torchvision"
            ratios[f"{name}: speed over torchvision"] = ratio(seconds[peer], seconds[name])
    for name in ("labels: validation cut", "labels: subset of 100 000"):
        ratios[f"{name}: time over argsort"] = ratio(
            seconds[name], seconds["labels: one stable argsort"]
        )
    ratios["listing: speed over os.scandir and stat"] = ratio(
        seconds["listing: os.scandir and stat"], seconds["listing: ImageFolder"]
    )
    content = {
        "cpu_ms": {name: median_ms(values) for name, values in seconds.items()},
        "ratios": ratios,
        "batch": BATCH,
        "files": NUM_FILES,
        "rounds": arguments.rounds,
    }
    print(write_result("data_speed", content, arguments.out))
    for name, value in ratios.items():
        print(f"{value['median']:7.2f}  {name}")


if __name__ == "__main__":
    main()
