from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tutelage import Classification, FrozenTeacher, UserError
from tutelage.core import Batch, Evaluation
from tutelage.core.normalization import normalize_inputs
from tutelage.engine.checks.teacher import check_teacher, state_hash

TASK = Classification(num_classes=2)


class Bright(nn.Module):
    """Tells bright images from dark ones, if they come centered at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(10.0))

    def forward(self, images: Tensor) -> Tensor:
        value = self.gain * images.mean((1, 2, 3))
        return torch.stack([-value, value], 1)


def batches() -> list[tuple[Tensor, Tensor]]:
    labels = torch.arange(200) % 2
    images = torch.rand(200, 3, 4, 4) * 0.2 + 0.3 + 0.2 * labels.view(-1, 1, 1, 1)
    return [(images[i : i + 50], labels[i : i + 50]) for i in range(0, 200, 50)]


def check(network: nn.Module) -> dict[str, float]:
    part = [Batch.of(batch) for batch in batches()]
    run = Evaluation("validation", batches=iter)
    return check_teacher(FrozenTeacher(network).model, TASK, {"validation": part}, run)


def test_a_good_teacher_passes_and_is_untouched() -> None:
    network = normalize_inputs(Bright(), [0.5] * 3, [0.5] * 3)
    before = state_hash(network)
    assert check(network)["top1"] > 0.95
    assert state_hash(network) == before


def test_chance_level_is_refused() -> None:
    network = normalize_inputs(Bright(), [0.5] * 3, [0.5] * 3)
    nn.init.constant_(network.gain, 0.0)
    with pytest.raises(
        UserError, match=r"scores top1 0\.500 on validation data, which is chance level"
    ):
        check(network)


def test_the_wrong_normalisation_is_refused_and_the_right_one_named() -> None:
    with pytest.raises(
        UserError, match=r"scores top1 0\.500 with mean \[0\.0.*with 0\.5/0\.5.*set teacher\.mean"
    ):
        check(normalize_inputs(Bright(), [0.0] * 3, [1.0] * 3))


def test_a_teacher_that_stays_in_train_mode_is_refused() -> None:
    class Stubborn(Bright):
        def train(self, mode: bool = True) -> Stubborn:
            return super().train(True)

    with pytest.raises(UserError, match="is in train mode after eval"):
        check(normalize_inputs(Stubborn(), [0.5] * 3, [0.5] * 3))


def test_a_teacher_that_changes_its_buffers_is_refused() -> None:
    class Counting(Bright):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, images: Tensor) -> Tensor:
            self.seen += 1
            return super().forward(images)

    with pytest.raises(UserError, match="changes its own buffers"):
        check(normalize_inputs(Counting(), [0.5] * 3, [0.5] * 3))


class Noisy(nn.Module):
    """Is right in 7 of 10 items with any statistics, each time in others."""

    def forward(self, inputs: Tensor) -> Tensor:
        label = (inputs[:, 0, 0, 0] > inputs[:, 0, 0, 1]).long()
        noise = torch.sin(1e4 * inputs.mean((1, 2, 3))).abs() < 0.45
        return nn.functional.one_hot(torch.where(noise, 1 - label, label), 2).float()


@pytest.mark.parametrize("count", [8, 16, 32])
def test_few_samples_do_not_decide_about_the_normalization(count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        inputs = torch.rand(count, 3, 2, 2, generator=generator)
        labels = (inputs[:, 0, 0, 0] > inputs[:, 0, 0, 1]).long()
        part = [Batch.of((inputs, labels))]
        network = normalize_inputs(Noisy(), [0.5] * 3, [0.25] * 3)
        assert "set teacher.mean" not in refusal(network, part)


def refusal(network: nn.Module, part: list[Batch]) -> str:
    """Return why a teacher is refused, or nothing."""
    run = Evaluation("validation", batches=iter)
    try:
        check_teacher(network.eval(), TASK, {"validation": part}, run)
    except UserError as error:
        return str(error)
    return ""
