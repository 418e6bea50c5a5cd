"""Intervals and p-values mean what they say."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import t as student

from tutelage.similarity import CKAMatrix
from tutelage.similarity._cka_result import ratio, student_quantile


def run(seed: int, batches: int, related: bool, permutations: int = 0, n: int = 16) -> CKAMatrix:
    generator = torch.Generator().manual_seed(seed)
    matrix = CKAMatrix(["x"], ["y"], permutations=permutations, seed=seed)
    mix = torch.eye(6)
    for _ in range(batches):
        x, noise = torch.randn(2, n, 6, generator=generator, dtype=torch.float64)
        matrix.update([x], [x @ mix.double() + 2 * noise if related else noise])
    return matrix


def test_the_jackknife_is_the_formula() -> None:
    matrices = [run(seed, 1, True) for seed in range(5)]
    whole = CKAMatrix(["x"], ["y"])
    for each in matrices:
        whole.merge(each)
    values = []
    for index in range(5):
        rest = CKAMatrix(["x"], ["y"])
        for other, each in enumerate(matrices):
            if other != index:
                rest.merge(each)
        values.append(rest.compute().value.item())
    left_out = torch.tensor(values, dtype=torch.float64)
    expected = (4 / 5 * (left_out - left_out.mean()).square().sum()).sqrt().item()
    found = whole.compute(confidence=0.9)
    assert found.sd.item() == pytest.approx(expected, rel=1e-10)
    margin = student.ppf(0.95, 4) * expected
    assert found.low.item() == pytest.approx(found.value.item() - margin, abs=1e-4)
    assert found.high.item() == pytest.approx(found.value.item() + margin, abs=1e-4)
    assert found.confidence == 0.9


@pytest.mark.parametrize("batches", [8, 40])  # single batches, and batches dealt to groups
def test_the_interval_covers_the_truth_as_often_as_it_says(batches: int) -> None:
    truth = run(999, 1500, True).compute().value.item()
    found = [run(seed, batches, True).compute() for seed in range(80)]
    values = torch.stack([each.value for each in found]).flatten()
    covered = sum(each.low.item() <= truth <= each.high.item() for each in found)
    assert covered >= 0.87 * 80
    assert torch.stack([each.sd for each in found]).mean().item() == pytest.approx(
        values.std().item(), rel=0.25
    )


def test_p_values_are_uniform_without_a_relation_and_small_with_one() -> None:
    null = torch.tensor([run(seed, 3, False, 19).compute().p_value.item() for seed in range(100)])
    assert null.min() >= 1 / 20
    assert abs(null.mean().item() - 0.525) < 0.1
    assert (null <= 0.1).float().mean() < 0.22
    assert run(0, 6, True, 99).compute().p_value.item() == pytest.approx(0.01)


def test_the_permutations_of_a_run_are_its_seed() -> None:
    one, two = run(3, 2, True, 5), run(3, 2, True, 5)
    assert torch.equal(one.state.null, two.state.null)
    assert not torch.equal(one.state.null[0], one.state.null[1])


def test_quantiles_of_student() -> None:
    for p in (0.9, 0.975, 0.995):
        for df in (1, 2, 3, 4, 7, 15, 31):
            tolerance = (
                1e-12 if df < 3 else 0.03 if p > 0.99 and df < 5 else 0.003 if df < 15 else 5e-6
            )
            assert student_quantile(p, df) == pytest.approx(student.ppf(p, df), rel=tolerance)


def test_a_ratio_of_nothing_is_nan() -> None:
    found = ratio(torch.zeros(2, 2), torch.tensor([0.0, 1.0]), torch.tensor([1.0, 1.0]))
    assert found.isnan().tolist() == [[True, True], [False, False]]
