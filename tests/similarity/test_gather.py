"""Two processes over gloo see, and differentiate, the batch of one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing

from tutelage.similarity import alignment
from tutelage.similarity.gather import joined


def worker(rank: int, meeting: str, x: torch.Tensor, y: torch.Tensor, out: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    rows = slice(4 * rank, 4 * rank + 4)
    mine = x[rows].clone().requires_grad_()
    value = alignment(joined(mine), joined(y[rows]), center=True)
    value.backward()
    assert mine.grad is not None
    torch.save({"value": value.detach(), "grad": mine.grad}, f"{out}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_two_ranks_have_the_gradient_of_the_joined_batch(tmp_path: Path) -> None:
    x, y = torch.randn(8, 3, dtype=torch.float64), torch.randn(8, 5, dtype=torch.float64)
    multiprocessing.start_processes(
        worker, (str(tmp_path / "meeting"), x, y, str(tmp_path)), nprocs=2, start_method="fork"
    )
    whole = x.clone().requires_grad_()
    value = alignment(whole, y, center=True)
    value.backward()
    assert whole.grad is not None
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for each in found:
        assert torch.isclose(each["value"], value.detach(), atol=1e-14)
    # data-parallel training averages over ranks; every rank's loss is the whole one, so its rows get it twice
    assert torch.allclose(torch.cat([each["grad"] for each in found]) / 2, whole.grad, atol=1e-14)


def test_one_process_keeps_its_own_rows() -> None:
    x = torch.randn(3, 2)
    assert joined(x) is x
