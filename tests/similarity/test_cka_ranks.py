"""Several processes add up to one: two ranks over gloo."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing

from tutelage import UserError
from tutelage.similarity import CKAMatrix

BATCHES = [(4 * index, 4 * index + size) for index, size in enumerate((20, 16, 3, 24, 8))]


def batch_of(x: torch.Tensor, index: int) -> list[torch.Tensor]:
    start, stop = BATCHES[index]
    return [x[start:stop, :5], x[start:stop, 5:]]


def feed(x: torch.Tensor, y: torch.Tensor, batches: range) -> CKAMatrix:
    matrix = CKAMatrix(["a", "b"], ["c", "d"], permutations=2)
    for index in batches:
        matrix.update(batch_of(x, index), batch_of(y, index), ids=range(*BATCHES[index]))
    return matrix


def worker(rank: int, meeting: str, x: torch.Tensor, y: torch.Tensor, out: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    mine = feed(x, y, range(3) if rank == 0 else range(3, 5))
    share = mine.compute().value
    mine.across_ranks().save(f"{out}/{rank}.safetensors")
    assert torch.equal(mine.compute().value, share)
    other = CKAMatrix(["a"] if rank == 0 else ["b"])
    with pytest.raises(UserError, match="the ranks compare different layers"):
        other.across_ranks()
    distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_two_ranks_are_one_run(tmp_path: Path) -> None:
    x, y = torch.randn(2, 44, 9, dtype=torch.float64)
    y += x
    multiprocessing.start_processes(
        worker, (str(tmp_path / "meeting"), x, y, str(tmp_path)), nprocs=2, start_method="fork"
    )
    whole = feed(x, y, range(5)).compute()
    found = [CKAMatrix.load(tmp_path / f"{rank}.safetensors").compute() for rank in range(2)]
    for each in found:
        for name in ("value", "sd", "low", "high"):
            assert torch.allclose(vars(each)[name], vars(whole)[name], rtol=0, atol=1e-12), name
        assert (each.samples, each.batches, each.skipped, each.ids) == (68, 4, 1, whole.ids)
    assert torch.equal(found[0].value, found[1].value)
    assert torch.equal(found[0].p_value, found[1].p_value)


def test_one_process_gets_a_copy() -> None:
    x, y = torch.randn(2, 44, 9)
    mine = feed(x, y, range(2))
    copy = mine.across_ranks()
    assert torch.equal(copy.compute().value, mine.compute().value)
    copy.merge(mine)
    assert mine.compute().batches == 2
