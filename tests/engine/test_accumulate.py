"""Runs whose batches are cut into pieces end as those whose batches are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.helpers.runs import make_recipe
from tutelage import KD, RCKA, Baseline, CombinedMethod, NonFiniteError, UserError
from tutelage.cli.plan_text import describe
from tutelage.engine import Recipe, TrainConfig, fit, plan
from tutelage.engine.activations import activation_bytes
from tutelage.engine.run_folder import RunFolder
from tutelage.engine.trainer import Trainer


def recipe_of(teacher: Path, accumulate: int, plain: bool = True, **train: Any) -> Recipe:
    method = CombinedMethod([KD(), RCKA({"3": "3"}, ramp=None)])
    recipe = make_recipe(method, teacher, accumulate=accumulate, checkpoint="last", **train)
    assert isinstance(recipe.student.model, nn.Sequential)
    if plain:
        recipe.student.model[1] = nn.Identity()  # batch norm
        recipe.student.model[6] = nn.Identity()  # dropout
    return recipe


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "student.safetensors")


@pytest.mark.parametrize(
    "train",
    [
        {},
        {"max_grad_norm": 0.5, "ema_decay": 0.9, "gradient_cap": None, "batch_size": 45},
    ],
)
def test_a_run_in_pieces_ends_as_one_with_whole_batches(
    teacher_run: Path, tmp_path: Path, train: dict[str, Any]
) -> None:
    """AdamW makes of a gradient of 1e-9 a full step, so 1e-6 is asked of the larger weights."""
    for accumulate in (1, 4):
        fit(recipe_of(teacher_run, accumulate, **train), tmp_path / str(accumulate))
    whole, pieces = weights(tmp_path / "1"), weights(tmp_path / "4")
    for name, value in whole.items():
        torch.testing.assert_close(pieces[name], value, rtol=1e-6, atol=1e-6)
    logs = [RunFolder(tmp_path / name).records() for name in ("1", "4")]
    for one, four in zip(*logs, strict=True):
        assert four["terms"] == pytest.approx(one["terms"], rel=1e-5)
        if "gradient_cap" in one:
            assert four["gradient_cap"] == pytest.approx(one["gradient_cap"], rel=2e-3)


def test_half_precision_changes_as_little_as_without_pieces(
    teacher_run: Path, tmp_path: Path
) -> None:
    for accumulate in (1, 4):
        fit(recipe_of(teacher_run, accumulate, precision="bf16"), tmp_path / str(accumulate))
    whole, pieces = weights(tmp_path / "1"), weights(tmp_path / "4")
    assert all(torch.allclose(pieces[name], whole[name], atol=2e-3) for name in whole)


def test_a_run_in_pieces_resumes_exactly(
    teacher_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With batch norm and dropout: the trial of two sizes after resuming leaves no trace."""
    fit(recipe_of(teacher_run, 4, plain=False), tmp_path / "whole", text="a: 1\n")
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_stops", lambda trainer, interrupt: trainer.step == 6)
        recipe = recipe_of(teacher_run, 4, plain=False)
        assert fit(recipe, tmp_path / "run", text="a: 1\n") is None
    recipe = recipe_of(teacher_run, 4, plain=False)
    assert fit(recipe, tmp_path / "run", text="a: 1\n", resume=True) is not None
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "run")
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


class Overflowing(nn.Module):
    """Gives infinity for one image of a piece, after some calls in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += self.training
        if not (self.training and self.calls > 40):
            return x
        return torch.where(torch.arange(len(x)).eq(3).unsqueeze(1), torch.inf, x)


def test_a_term_that_is_not_finite_in_one_piece_ends_the_run(tmp_path: Path) -> None:
    recipe = make_recipe(Baseline(), None, epochs=4, accumulate=4)
    assert isinstance(recipe.student.model, nn.Sequential)
    recipe.student.model.append(Overflowing())
    with pytest.raises(NonFiniteError, match=r"the term 'task' became \w+ in epoch \d"):
        fit(recipe, tmp_path / "run")


def test_pieces_of_one_sample_are_refused() -> None:
    with pytest.raises(UserError, match=r"train\.accumulate 40 cuts a batch of 64 .* at most 32"):
        TrainConfig(accumulate=40)
    with pytest.raises(UserError, match=r"train\.accumulate must be at least 1, got 0"):
        TrainConfig(accumulate=0)


def test_a_plan_tells_what_a_step_keeps_in_memory(teacher_run: Path) -> None:
    plans = [plan(recipe_of(teacher_run, accumulate)) for accumulate in (1, 5)]
    assert plans[0].activation_bytes == 5 * plans[1].activation_bytes
    assert "MiB of a batch for its backward pass" in describe(plans[0])
    assert "of a piece for its backward pass (train.accumulate 5), and runs" in describe(plans[1])


def test_activations_are_counted_once_and_without_weights() -> None:
    network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 2))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    # The inputs of batch norm and of the last layer (the output of tanh), and two statistics.
    assert activation_bytes(network, (torch.ones(3, 4),)) == 4 * (3 * 8 + 3 * 8 + 2 * 8)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
