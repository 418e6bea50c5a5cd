"""FPD: the formula by hand, weights, and mistakes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests.methods import pose_setting
from tests.methods.harness import make_step
from tutelage.core import Method
from tutelage.errors import UserError
from tutelage.methods import FPD, fpd_loss

SETTING = pose_setting.SETTING
EXAMPLES: dict[str, Callable[[], Method]] = {"fpd": FPD}


def test_it_is_the_formula_over_all_stacks_with_the_teachers_last_maps() -> None:
    student = torch.randn(2, 3, 4, 5, 6, dtype=torch.float64)
    teacher = torch.randn(2, 2, 4, 5, 6, dtype=torch.float64)
    labels = torch.ones(2, 4, 3)
    labels[0, 1, 2] = 0.0
    total = 0.0
    for stack in range(3):
        error = (student[:, stack] - teacher[:, -1]).square()
        error[0, 1] = 0.0
        total += 0.5 * float(error.mean())
    found = FPD(weight=2.0)(make_step(student, teacher, labels))["fpd"]
    assert found.item() == pytest.approx(2 * total, abs=1e-12)


def test_maps_of_another_size_or_number_of_joints_are_refused() -> None:
    with pytest.raises(UserError, match=r"\(2, 3, 8, 8\).*\(2, 3, 4, 4\).*the same stride"):
        fpd_loss(torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 4, 4))
    with pytest.raises(UserError, match="the same number of joints"):
        fpd_loss(torch.zeros(2, 3, 8, 8), torch.zeros(2, 4, 8, 8))


def test_a_network_without_maps_is_refused() -> None:
    step = make_step(torch.zeros(2, 10), torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 3))
    with pytest.raises(UserError, match=r"gives \(2, 10\), but poses need heat maps"):
        FPD()(step)
