"""Two ranks have the metrics of one process, also where one of them has seen nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.helpers.ranks import fork_ranks
from tutelage.core import Batch
from tutelage.tasks import Pose

SCRIPT = """
import json, sys, torch, torch.distributed as dist
from tests.tasks.pose.test_ranks import metrics_of
dist.init_process_group("gloo")
found = metrics_of(range(3) if dist.get_rank() == 0 else range(3, 5))
alone = metrics_of(range(5) if dist.get_rank() == 0 else range(0))
if dist.get_rank() == 0:
    with open(sys.argv[1] + "/found.json", "w") as file:
        json.dump([found, alone], file)
dist.barrier()
dist.destroy_process_group()
"""


def metrics_of(images: range) -> dict[str, float]:
    """Return the metrics of some of five images, on which a rank is called."""
    generator = torch.Generator().manual_seed(1)
    points = torch.rand(5, 3, 3, generator=generator) * 31
    points[..., 2] = (points[..., 2] > 8).float()
    maps = torch.rand(5, 3, 8, 8, generator=generator)
    others = torch.rand(5, 1, 3, 8, 8, generator=generator)
    metrics = Pose(3, names=["a", "b", "c"]).metrics()
    for index in images:
        batch = Batch.of((torch.zeros(1, 1, 32, 32), points[index : index + 1]))
        output = {
            "heatmaps": maps[index : index + 1],
            "auxiliary": {"branch1": others[index : index + 1]},
        }
        metrics.update(output, batch)
    return metrics.compute()


def test_two_ranks_have_the_metrics_of_one(tmp_path: Path) -> None:
    script = tmp_path / "ranks.py"
    root = Path(__file__).parents[3]
    script.write_text(f"import sys; sys.path.insert(0, {str(root)!r})\n{SCRIPT}")
    fork_ranks(script, tmp_path)
    expected = metrics_of(range(5))
    for found in json.loads((tmp_path / "found.json").read_text()):
        assert found == pytest.approx(expected, nan_ok=True)
