"""Several processes add up to one: two ranks over gloo see, and differentiate, the batch of one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, multiprocessing

from tutelage import UserError
from tutelage.core.distributed import (
    all_gather_with_grad,
    check_same_on_all_ranks,
    gather_lists,
    gather_numbers,
    is_distributed,
    sum_over_ranks,
)
from tutelage.similarity import CKAMatrix, alignment

RANKS_FORK = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)
BATCHES = [(4 * index, 4 * index + size) for index, size in enumerate((20, 16, 3, 24, 8))]


def on_two_ranks(
    worker: Callable[[int, Path, Tensor, Tensor], None], folder: Path, x: Tensor, y: Tensor
) -> None:
    multiprocessing.start_processes(run_rank, (worker, folder, x, y), nprocs=2, start_method="fork")


def run_rank(
    rank: int,
    worker: Callable[[int, Path, Tensor, Tensor], None],
    folder: Path,
    x: Tensor,
    y: Tensor,
) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    worker(rank, folder, x, y)
    distributed.destroy_process_group()


def differentiate(rank: int, folder: Path, x: Tensor, y: Tensor) -> None:
    rows = slice(4 * rank, 4 * rank + 4)
    share = x[rows].clone().requires_grad_()
    value = alignment(all_gather_with_grad(share), all_gather_with_grad(y[rows]), center=True)
    value.backward()
    assert share.grad is not None
    torch.save({"value": value.detach(), "grad": share.grad}, folder / f"{rank}.pt")


@RANKS_FORK
def test_two_ranks_have_the_gradient_of_the_joined_batch(tmp_path: Path) -> None:
    x, y = torch.randn(8, 3, dtype=torch.float64), torch.randn(8, 5, dtype=torch.float64)
    on_two_ranks(differentiate, tmp_path, x, y)
    whole = x.clone().requires_grad_()
    value = alignment(whole, y, center=True)
    value.backward()
    assert whole.grad is not None
    results = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for result in results:
        assert torch.isclose(result["value"], value.detach(), atol=1e-14)
    # Data-parallel training averages over ranks; every rank's loss is the whole one, so its rows
    # get it twice.
    gradient = torch.cat([result["grad"] for result in results]) / 2
    assert torch.allclose(gradient, whole.grad, atol=1e-14)


def curved(x: Tensor, y: Tensor) -> Tensor:
    return (x.square().mean() * (x @ y.mT).exp()).sum()


def differentiate_twice(rank: int, folder: Path, x: Tensor, y: Tensor) -> None:
    share = x[4 * rank : 4 * rank + 4].clone().requires_grad_()
    value = curved(all_gather_with_grad(share), y)
    gradient = torch.autograd.grad(value, share, create_graph=True)[0]
    gradient.square().sum().backward()
    torch.save(share.grad, folder / f"{rank}.pt")


@RANKS_FORK
def test_two_ranks_have_the_second_derivative_of_the_joined_batch(tmp_path: Path) -> None:
    x, y = torch.randn(2, 8, 3, dtype=torch.float64)
    on_two_ranks(differentiate_twice, tmp_path, x, y)
    whole = x.clone().requires_grad_()
    gradient = torch.autograd.grad(2 * curved(whole, y), whole, create_graph=True)[0]
    gradient.square().sum().backward()
    assert whole.grad is not None
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert torch.allclose(torch.cat(found), whole.grad, rtol=1e-12)


def exchange(rank: int, folder: Path, x: Tensor, y: Tensor) -> None:
    assert is_distributed()
    assert torch.equal(sum_over_ranks(x if rank == 0 else y), x + y)
    assert gather_numbers([rank, 10]) == [[0, 10], [1, 10]]
    assert gather_lists([[rank], ["a"] * rank]) == [[0, 1], ["a"]]
    check_same_on_all_ranks("same")
    with pytest.raises(UserError, match="the ranks compare different layers"):
        check_same_on_all_ranks(f"rank {rank}")


@RANKS_FORK
def test_sums_numbers_and_lists_of_two_ranks(tmp_path: Path) -> None:
    on_two_ranks(exchange, tmp_path, torch.randn(3), torch.randn(3))


def test_one_process_keeps_its_own_rows_and_lists() -> None:
    x = torch.randn(3, 2)
    assert not is_distributed()
    assert all_gather_with_grad(x) is x
    lists = [[1, 2], []]
    assert gather_lists(lists) is lists


# ---- CKA accumulators ----


def batch_of(x: Tensor, index: int) -> list[Tensor]:
    start, stop = BATCHES[index]
    return [x[start:stop, :5], x[start:stop, 5:]]


def feed(x: Tensor, y: Tensor, batches: range) -> CKAMatrix:
    matrix = CKAMatrix(["a", "b"], ["c", "d"], permutations=2)
    for index in batches:
        matrix.update(batch_of(x, index), batch_of(y, index), ids=range(*BATCHES[index]))
    return matrix


def accumulate(rank: int, folder: Path, x: Tensor, y: Tensor) -> None:
    matrix = feed(x, y, range(3) if rank == 0 else range(3, 5))
    share = matrix.compute().value
    matrix.across_ranks().save(folder / f"{rank}.safetensors")
    assert torch.equal(matrix.compute().value, share)
    different = CKAMatrix(["a"] if rank == 0 else ["b"])
    with pytest.raises(UserError, match="the ranks compare different layers"):
        different.across_ranks()


@RANKS_FORK
def test_accumulators_of_two_ranks_are_one_run(tmp_path: Path) -> None:
    x, y = torch.randn(2, 44, 9, dtype=torch.float64)
    y += x
    on_two_ranks(accumulate, tmp_path, x, y)
    whole = feed(x, y, range(5)).compute()
    results = [CKAMatrix.load(tmp_path / f"{rank}.safetensors").compute() for rank in range(2)]
    for result in results:
        for name in ("value", "sd", "low", "high"):
            values, expected = getattr(result, name), getattr(whole, name)
            assert torch.allclose(values, expected, rtol=0, atol=1e-12), name
        assert (result.samples, result.batches, result.skipped) == (68, 4, 1)
        assert result.ids == whole.ids
    assert torch.equal(results[0].value, results[1].value)
    assert torch.equal(results[0].p_value, results[1].p_value)


def test_the_accumulator_of_one_process_is_copied() -> None:
    x, y = torch.randn(2, 44, 9)
    matrix = feed(x, y, range(2))
    copy = matrix.across_ranks()
    assert torch.equal(copy.compute().value, matrix.compute().value)
    copy.merge(matrix)
    assert matrix.compute().batches == 2
