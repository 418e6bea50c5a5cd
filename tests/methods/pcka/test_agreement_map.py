"""Where the student relates patches as the teacher does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.methods.harness import make_step, setup_method
from tutelage.core.overlay import DrawsAgreement
from tutelage.errors import UserError
from tutelage.methods.pcka import PCKA
from tutelage.methods.pcka.agreement_map import _relations, agreement_map
from tutelage.methods.pcka.patches import patch_grid
from tutelage.similarity import cka


def smooth(*shape: int, seed: int = 0) -> Tensor:
    """Return maps whose neighboring positions are alike, as a network's are."""
    noise = torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).cumsum(-1).cumsum(-2)
    return noise / noise.std()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_equal_maps_agree_everywhere_whatever_their_scale_and_offset(dtype: torch.dtype) -> None:
    maps = smooth(1, 6, 64, 80).to(dtype)
    everywhere = torch.ones(4, 5)
    scaled = agreement_map(4 * maps, maps, 16)
    assert scaled.shape == (4, 5)
    torch.testing.assert_close(scaled, everywhere, atol=1e-3, rtol=0)
    single = smooth(1, 6, 64, 80)
    moved = agreement_map(single * 0.1 + 20.0, single, 16)
    torch.testing.assert_close(moved, everywhere, atol=1e-3, rtol=0)


def test_a_disturbance_shows_where_it_is() -> None:
    teacher = smooth(1, 16, 96, 96)
    student = teacher.clone()
    student[..., 32:48, 64:80] = smooth(1, 16, 16, 16, seed=1)
    agreement = agreement_map(student, teacher, 16)
    assert agreement.argmin() == 2 * 6 + 4
    assert agreement[2, 4] < 0.5
    undisturbed = agreement.flatten()[torch.arange(36) != 16]
    assert undisturbed.min() > 0.75


def test_maps_that_have_nothing_to_do_with_each_other_are_near_zero() -> None:
    unrelated = agreement_map(torch.randn(1, 64, 96, 96), torch.randn(1, 64, 96, 96), 16)
    assert unrelated.abs().max() < 0.1
    negative = agreement_map(-smooth(1, 4, 64, 64), smooth(1, 4, 64, 64))
    assert negative.min() > 0.99  # relations have no sign


def test_the_rows_make_up_the_debiased_cka() -> None:
    student, teacher = smooth(1, 1, 64, 64, seed=3).double(), smooth(1, 1, 64, 64).double()
    grid = patch_grid(student, teacher)
    x, y = grid.cut(teacher)[0], grid.cut(student)[0]
    k, m = _relations(x[None])[0], _relations(y[None])[0]
    weights = k.norm(dim=1) * m.norm(dim=1)
    rows = agreement_map(student, teacher, 16).flatten()
    value = (rows * weights).sum() / (k.norm() * m.norm())
    assert value.item() == pytest.approx(cka(x, y, estimator="debiased").item(), abs=1e-6)


def test_channels_that_teach_nothing_are_left_out() -> None:
    teacher, student = smooth(1, 4, 64, 64), smooth(1, 4, 64, 64)
    teacher[:, 1] = 0.0
    teacher[:, 2] = 20.1
    agreement = agreement_map(student, teacher)
    torch.testing.assert_close(agreement, torch.ones(4, 4), atol=1e-4, rtol=0)
    student[:, 3] = 0.0  # dead in the student alone: it relates nothing
    agreement = agreement_map(student, teacher)
    torch.testing.assert_close(agreement, torch.full((4, 4), 0.5), atol=1e-4, rtol=0)
    assert agreement_map(student, torch.zeros_like(teacher)).isnan().all()


def test_small_and_odd_maps() -> None:
    # A patch of 16 is halved.
    assert agreement_map(smooth(1, 3, 25, 30), smooth(1, 3, 25, 30), 16).shape == (4, 4)
    # In patches of 8 the two sizes differ.
    assert agreement_map(smooth(1, 3, 24, 24), smooth(1, 3, 25, 25), 16).shape == (2, 2)
    assert agreement_map(torch.ones(1, 3, 1, 1), torch.ones(1, 3, 1, 1)).isnan().all()
    # Of three patches, nothing is left to relate.
    assert agreement_map(smooth(1, 3, 1, 3), smooth(1, 3, 1, 3), 1).isnan().all()
    assert not agreement_map(smooth(1, 3, 4, 4), smooth(1, 3, 4, 4), 4).isnan().any()
    with pytest.raises(UserError, match="adapter"):
        agreement_map(smooth(1, 3, 32, 32), smooth(1, 4, 32, 32))


def test_many_patches_are_related_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    student, teacher = smooth(1, 5, 48, 48, seed=2), smooth(1, 5, 48, 48)
    whole = agreement_map(student, teacher, 8)
    monkeypatch.setattr("tutelage.methods.pcka.agreement_map.BLOCK", 36**2 * 2)
    torch.testing.assert_close(agreement_map(student, teacher, 8), whole)


def test_pcka_shows_the_first_image_through_its_projection() -> None:
    student, teacher = smooth(2, 3, 64, 64), smooth(2, 5, 64, 64, seed=1)
    step = make_step(student_features={"a": student}, teacher_features={"b": teacher})
    method = setup_method(PCKA({"a": "b"}), step)
    assert isinstance(method, DrawsAgreement)
    maps = method.agreement_maps(step)
    assert list(maps) == ["a"]
    assert isinstance(method.projections[0], nn.Module)
    expected = agreement_map(method.projections[0](student[:1]), teacher[:1], 16)
    torch.testing.assert_close(maps["a"], expected)
    assert not maps["a"].requires_grad


def test_the_largest_patch_of_the_maps_is_the_methods() -> None:
    maps = smooth(1, 3, 64, 64)
    step = make_step(student_features={"a": maps}, teacher_features={"a": maps})
    method = setup_method(PCKA({"a": "a"}, patch_size=8), step)
    assert method.agreement_maps(step)["a"].shape == (8, 8)
