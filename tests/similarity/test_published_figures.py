"""Figures 4a and 4b of Davari et al., recomputed from their recipes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.helpers.vectors import tensor
from tutelage.similarity import cka, subset_translation_cka, subset_translation_limit

SIZES = (
    1,
    5,
    10,
    25,
    50,
    100,
    500,
    1000,
    5000,
)  # means and standard deviations of the matrix's entries


def cubes(width: int) -> torch.Tensor:
    two = [np.random.rand(10000, width) - 0.5 for _ in range(2)]
    two[1][:, 0] += 1.1
    return torch.from_numpy(np.concatenate(two))


@pytest.mark.slow
def test_figure_4a_the_second_cube_moves_away() -> None:
    cs = [1.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 40.0, 50.0]
    published = [0.9929, 0.4761, 0.2165, 0.1595, 0.1391, 0.1295, 0.1243, 0.1191, 0.1167]
    found, limits = [], []
    mask = torch.arange(20000) >= 10000
    for seed in range(10):
        np.random.seed(seed)
        direction = torch.from_numpy(np.random.normal(size=1000))
        x = cubes(1000)
        found.append(subset_translation_cka(x, mask, direction, cs))
        limits.append(subset_translation_limit(x, mask))
    assert torch.stack(found).mean(0).tolist() == pytest.approx(published, abs=6e-5)
    assert torch.stack(limits).mean().item() == pytest.approx(0.11236, abs=6e-6)


@pytest.mark.slow
def test_figure_4b_products_with_a_random_matrix() -> None:
    expected = tensor("cka_reliability", "case19_fig4b_notebook")
    found = torch.zeros(9, 9, dtype=torch.float64)
    for seed in range(10):
        np.random.seed(seed)
        z = torch.from_numpy(np.random.normal(0, 1, (500, 500)))
        x = cubes(500)
        x -= x.mean(0)
        factor = torch.linalg.qr(x).R  # [R; -R] has the cross products of x, twice, and means of 0
        small = torch.cat([factor, -factor])
        for row, mean in enumerate(SIZES):
            for column in (row, (row + 1) % 9, (row + 4) % 9):
                found[row, column] += (
                    cka(small, small @ (mean + SIZES[column] * z), estimator="biased") / 10
                )
    done = found != 0
    assert int(done.sum()) == 27
    assert torch.allclose(found[done], expected[done], rtol=0, atol=1e-7)
