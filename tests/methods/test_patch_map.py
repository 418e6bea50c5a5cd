"""Where the student relates patches as the teacher does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tutelage import PCKA, Mimic, Output, Step, Together, UserError
from tutelage.methods.patch_map import patch_map
from tutelage.similarity import cka


def smooth(*shape: int, seed: int = 0) -> Tensor:
    """Return maps whose neighbouring positions are alike, as a network's are."""
    noise = torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).cumsum(-1).cumsum(-2)
    return noise / noise.std()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_equal_maps_agree_everywhere_whatever_their_scale_and_offset(dtype: torch.dtype) -> None:
    maps = smooth(1, 6, 64, 80).to(dtype)
    assert patch_map(4 * maps, maps, 16).shape == (4, 5)
    torch.testing.assert_close(patch_map(4 * maps, maps, 16), torch.ones(4, 5), atol=1e-3, rtol=0)
    moved = smooth(1, 6, 64, 80)
    torch.testing.assert_close(patch_map(moved * 0.1 + 20.0, moved, 16), torch.ones(4, 5), atol=1e-3, rtol=0)


def test_a_disturbance_shows_where_it_is() -> None:
    teacher = smooth(1, 16, 96, 96)
    student = teacher.clone()
    student[..., 32:48, 64:80] = smooth(1, 16, 16, 16, seed=1)
    found = patch_map(student, teacher, 16)
    assert found.argmin() == 2 * 6 + 4
    assert found[2, 4] < 0.5
    others = found.flatten()[torch.arange(36) != 16]
    assert others.min() > 0.75


def test_maps_that_have_nothing_to_do_with_each_other_are_near_zero() -> None:
    found = patch_map(torch.randn(1, 64, 96, 96), torch.randn(1, 64, 96, 96), 16)
    assert found.abs().max() < 0.1
    assert patch_map(-smooth(1, 4, 64, 64), smooth(1, 4, 64, 64)).min() > 0.99  # relations have no sign


def test_the_rows_make_up_the_debiased_cka() -> None:
    from tutelage.methods.patch_map import _relations
    from tutelage.methods.patches import Patches

    student, teacher = smooth(1, 1, 64, 64, seed=3).double(), smooth(1, 1, 64, 64).double()
    grid = Patches(16).grid(student, teacher)
    x, y = grid.cut(teacher)[0], grid.cut(student)[0]
    k, m = _relations(x[None])[0], _relations(y[None])[0]
    weights = k.norm(dim=1) * m.norm(dim=1)
    rows = patch_map(student, teacher, 16).flatten()
    value = (rows * weights).sum() / (k.norm() * m.norm())
    assert value.item() == pytest.approx(cka(x, y, estimator="debiased").item(), abs=1e-6)


def test_channels_that_teach_nothing_are_left_out() -> None:
    teacher, student = smooth(1, 4, 64, 64), smooth(1, 4, 64, 64)
    teacher[:, 1], teacher[:, 2] = 0.0, 20.1
    torch.testing.assert_close(patch_map(student, teacher), torch.ones(4, 4), atol=1e-4, rtol=0)
    student[:, 3] = 0.0  # dead in the student alone: it relates nothing
    torch.testing.assert_close(patch_map(student, teacher), torch.full((4, 4), 0.5), atol=1e-4, rtol=0)
    assert patch_map(student, torch.zeros_like(teacher)).isnan().all()


def test_small_and_odd_maps() -> None:
    assert patch_map(smooth(1, 3, 25, 30), smooth(1, 3, 25, 30), 16).shape == (4, 4)  # 16 is halved
    assert patch_map(smooth(1, 3, 24, 24), smooth(1, 3, 25, 25), 16).shape == (2, 2)  # in eighths they differ
    assert patch_map(torch.ones(1, 3, 1, 1), torch.ones(1, 3, 1, 1)).isnan().all()
    assert patch_map(smooth(1, 3, 1, 3), smooth(1, 3, 1, 3), 1).isnan().all()  # of three, nothing is left to relate
    assert not patch_map(smooth(1, 3, 4, 4), smooth(1, 3, 4, 4), 4).isnan().any()
    with pytest.raises(UserError, match="adapter"):
        patch_map(smooth(1, 3, 32, 32), smooth(1, 4, 32, 32))


def test_many_patches_are_related_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    student, teacher = smooth(1, 5, 48, 48, seed=2), smooth(1, 5, 48, 48)
    whole = patch_map(student, teacher, 8)
    monkeypatch.setattr("tutelage.methods.patch_map.BLOCK", 36**2 * 2)
    torch.testing.assert_close(patch_map(student, teacher, 8), whole)


def test_pcka_shows_the_first_image_through_its_projection() -> None:
    torch.manual_seed(0)
    student, teacher = smooth(2, 3, 64, 64), smooth(2, 5, 64, 64, seed=1)
    step = Step(Output(None, {"a": student}), Output(None, {"b": teacher}), None, lambda out: out)
    method = PCKA({"a": "b"})
    method.setup(step, None)
    (name, found), *rest = method.inspect(step).items()
    assert (name, rest) == ("a", [])
    assert isinstance(method.projections[0], nn.Module)
    torch.testing.assert_close(found, patch_map(method.projections[0](student[:1]), teacher[:1], 16))
    assert not found.requires_grad


def test_together_shows_all_and_most_methods_nothing() -> None:
    maps = smooth(1, 3, 64, 64)
    step = Step(Output(None, {"a": maps}), Output(None, {"a": maps}), None, lambda out: out)
    both = Together([PCKA({"a": "a"}), Mimic({"a": "a"}), PCKA({"a": "a"}, patch=8)])
    both.setup(step, None)
    assert {name: tuple(found.shape) for name, found in both.inspect(step).items()} == {"a": (4, 4), "a#2": (8, 8)}
    assert Mimic({"a": "a"}).inspect(step) == {}
