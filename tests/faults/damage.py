"""Damaged files of every kind that is read: each is read as it is, or refused in a sentence."""

from __future__ import annotations

import json
import random
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.faults.runs import CRASHED, DONE, REFUSED, run, tiny_run
from tests.helpers.coco import write_coco, write_voc
from tests.helpers.commands import write_cifar10, write_image_folder, write_recipe
from tests.helpers.masks import write_voc_masks
from tests.helpers.runs import make_net
from tutelage import UserError
from tutelage.cli import main
from tutelage.data import CIFAR10, Coco, ImageFolder, VOCSegmentation
from tutelage.data.image_data import ImageData
from tutelage.data.sets import prepare_voc
from tutelage.data.sets.mnist import read_idx
from tutelage.engine.weights import load_weights
from tutelage.recipes import parse_recipe
from tutelage.similarity import CKAMatrix

CPU_SECONDS = 60  # of the process that reads a file, which is not counted while others run
MEMORY_BYTES = 3 * 2**30  # more than the process has before it reads

Action = Callable[[Path], object]


def formats() -> dict[str, tuple[Action, Action]]:
    """Return what writes whole files below a new folder, and what reads them, by name."""
    return {
        "CIFAR": (lambda root: write_cifar10(root, 1), lambda root: _load(CIFAR10(str(root)))),
        "COCO": (write_coco, lambda root: _load(_coco(root))),
        "VOC's boxes": (write_voc, lambda root: prepare_voc(root / "made", root)),
        "masks": (_write_masks, lambda root: _load(_masks(root))),
        "image folder": (
            lambda root: write_image_folder(root, 2, 2),
            lambda root: _load(ImageFolder(str(root), augment=False)),
        ),
        "IDX": (_write_idx, lambda root: read_idx(root / "images", 3)),
        "recipe": (
            lambda root: write_recipe(root / "recipe.yaml"),
            lambda root: parse_recipe(root / "recipe.yaml").build(),
        ),
        "weights": (_write_weights, _load_weights),
        "similarity": (_write_similarity, lambda root: CKAMatrix.load(root / "cka.safetensors")),
        "run folder": (lambda root: tiny_run(root / "run"), _report),
    }


def damaged_files(folder: Path, draw: random.Random, each: int) -> Iterator[str]:
    """Damage a file of every format, so many times each; give "" or what went wrong."""
    for name, (write, read) in formats().items():
        whole = folder / f"whole-{name}"
        whole.mkdir()
        assert run(lambda write=write, whole=whole: _done(write, whole)) == DONE
        assert run(lambda read=read, whole=whole: _done(read, _copy(whole))) == DONE, name
        for _ in range(each):
            copy = _copy(whole)
            file = draw.choice(sorted(path for path in copy.rglob("*") if path.is_file()))
            how = damage(file, draw)
            code = run(lambda read=read, copy=copy: _read_within_bounds(read, copy))
            shutil.rmtree(copy)
            is_fine = code in (DONE, REFUSED)
            yield "" if is_fine else f"{name}, {file.name}, {how}: ended with {code}"


def damage(path: Path, draw: random.Random) -> str:
    """Damage one file, and say how."""
    content = bytearray(path.read_bytes())
    start = draw.randrange(len(content) + 1)
    end = min(len(content), start + draw.randint(1, 20))
    how = draw.choice(("bit", "cut", "empty", "zeros", "noise", "removed", "twice", "number"))
    if how == "bit" and content:
        content[start - 1] ^= 1 << draw.randrange(8)
    elif how == "cut":
        del content[start:]
    elif how == "empty":
        content.clear()
    elif how == "zeros":
        content[start:end] = bytes(end - start)
    elif how == "noise":
        content[start:end] = draw.randbytes(end - start)
    elif how == "removed":
        del content[start:end]
    elif how == "twice":
        content[start:start] = content[start:end]
    elif how == "number":
        content[start:end] = draw.choice((b"-1", b"1e999", b"99999999999999999999", b"null", b"{"))
    path.write_bytes(content)
    return f"{how} at {start}"


def _read_within_bounds(read: Action, folder: Path) -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    memory = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    return _done(read, folder)


def _done(action: Action, folder: Path) -> int:
    torch.set_num_threads(1)
    try:
        answer = action(folder)
    except UserError as error:
        return REFUSED if len(str(error).split()) > 3 else CRASHED
    return answer if isinstance(answer, int) else DONE


def _copy(whole: Path) -> Path:
    copy = whole.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(whole, copy)
    return copy


def _load(data: ImageData) -> None:
    for samples in data.splits(None, 0).values():
        for position in range(min(len(samples), 4)):
            samples.batch([(0, position)])


def _masks(root: Path) -> VOCSegmentation:
    names = ["background", "a", "b"]
    return VOCSegmentation(str(root), val="val", names=names, augment=False)


def _coco(root: Path) -> Coco:
    return Coco(str(root), val="val2017", augment=False)


def _write_masks(root: Path) -> None:
    write_voc_masks(root, {"train": 3, "val": 1})


def _write_idx(root: Path) -> None:
    header = bytes([0, 0, 8, 3]) + b"".join(size.to_bytes(4, "big") for size in (2, 5, 5))
    (root / "images").write_bytes(header + bytes(range(50)))


def _write_weights(root: Path) -> None:
    state = make_net(2).state_dict()
    save_file(state, root / "weights.safetensors")
    torch.save({"state_dict": state}, root / "weights.pth")


def _load_weights(root: Path) -> None:
    for name in ("weights.safetensors", "weights.pth"):
        load_weights(make_net(2), root / name)


def _write_similarity(root: Path) -> None:
    matrix = CKAMatrix(["a"], ["b"])
    matrix.update([torch.randn(8, 3)], [torch.randn(8, 4)])
    matrix.save(root / "cka.safetensors")


def _report(root: Path) -> int:
    """Return the exit code of the report, and of going on with the run."""
    code = main(["report", str(root / "run"), "--out", str(root / "page.html")])
    if code not in (DONE, REFUSED):
        return code
    metrics = root / "run/metrics.json"
    if metrics.exists():
        try:
            json.loads(metrics.read_bytes())
        except ValueError:
            metrics.unlink()  # as the message advises
    return tiny_run(root / "run")
