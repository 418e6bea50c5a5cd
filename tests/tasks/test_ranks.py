"""Where labels are missing, two ranks train as one process does."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.helpers.ranks import fork_ranks

SCRIPT = """
import torch, torch.distributed as dist
from tutelage.tasks import Classification, MultiLabelClassification, Segmentation
from tutelage.core import Batch
from tutelage.methods import dkd_loss, ofa_loss, srd_loss
dist.init_process_group("gloo")
noise = torch.Generator().manual_seed(0)
labels = torch.tensor([0, 1, 2, -100, 1, -100, -100, -100])
masks = labels.view(8, 1, 1).expand(8, 2, 3).clone()
masks[0, 0] = -100
logits = torch.randn(8, 3, generator=noise)
maps = torch.randn(8, 3, 2, 3, generator=noise)
teacher = torch.randn(8, 3, generator=noise)
LOSSES = {
    "classification": (logits, lambda x, rows: Classification(3).loss(
        x, Batch.of((None, labels[rows])))),
    "smoothed": (logits, lambda x, rows: Classification(3, label_smoothing=0.1).loss(
        x, Batch.of((None, labels[rows])))),
    "weighted": (logits, lambda x, rows: Classification(3, class_weights=[1.0, 2.0, 5.0]).loss(
        x, Batch.of((None, labels[rows])))),
    "several labels": (logits, lambda x, rows: MultiLabelClassification(3).loss(
        x, Batch.of((None, (labels[rows, None] == torch.arange(3)).long()
                     - (labels[rows, None] < 0).long())))),
    "segmentation": (maps, lambda x, rows: Segmentation(3).loss(
        {"out": x, "aux": 2 * x}, Batch.of((None, masks[rows])))),
    "dkd": (logits, lambda x, rows: sum(dkd_loss(x, teacher[rows], labels[rows]).values())),
    "ofa": (logits, lambda x, rows: ofa_loss(x, teacher[rows], labels[rows])),
    "srd": (logits, lambda x, rows: srd_loss(
        x, teacher[rows], labels[rows], distance="ce")),
}
shares = [slice(0, 4), slice(4, 8)] if dist.get_world_size() > 1 else [slice(0, 8)]
for name, (values, loss) in LOSSES.items():
    own = shares[dist.get_rank()]
    x = values[own].clone().requires_grad_()
    value = loss(x, own)
    value.backward()
    # As data-parallel training does: the mean over ranks.
    gradient = torch.zeros_like(values)
    gradient[own] = x.grad / len(shares)
    mean = value.detach() / len(shares)
    dist.all_reduce(gradient)
    dist.all_reduce(mean)
    if dist.get_rank() == 0:
        torch.save((mean, gradient), f"{__import__('sys').argv[1]}/{name}-{len(shares)}.pt")
    with torch.no_grad():  # a rank that looks at its loss alone waits for nobody
        if dist.get_rank() == 0:
            loss(values[own], own)
dist.barrier()
dist.destroy_process_group()
"""


def test_losses_over_the_labeled_items_of_two_ranks_are_those_of_one(tmp_path: Path) -> None:
    script = tmp_path / "ranks.py"
    script.write_text(SCRIPT)
    fork_ranks(script, tmp_path)
    single = tmp_path / "single.py"
    single.write_text(
        SCRIPT.replace(
            'dist.init_process_group("gloo")',
            'dist.init_process_group("gloo", "file://" + __import__("sys").argv[1] + "/store", '
            "rank=0, world_size=1)",
        )
    )
    fork_ranks(single, tmp_path, processes=1)
    names = ("classification", "smoothed", "segmentation", "dkd", "ofa", "srd")
    for name in names:
        two = torch.load(tmp_path / f"{name}-2.pt")
        one = torch.load(tmp_path / f"{name}-1.pt")
        for found, expected in zip(two, one, strict=True):
            assert torch.allclose(found, expected, atol=1e-6), name
