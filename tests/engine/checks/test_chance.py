"""The teacher against one that guesses, at any number of labels and with any shares of classes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tutelage import UserError
from tutelage.core import Batch, Evaluation
from tutelage.engine.checks.chance import decisions
from tutelage.engine.checks.teacher import check_teacher
from tutelage.tasks import Classification, Segmentation


class Reads(nn.Module):
    """Gives the logits that its inputs hold."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs


def labels_of(*counts: int) -> Tensor:
    return torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))


def check(decided: Tensor, labels: Tensor, task: Classification | Segmentation) -> dict[str, float]:
    """Check a teacher that decides for these classes."""
    classes = int(task.num_classes)
    logits = nn.functional.one_hot(decided, classes).float()
    if labels.ndim > 1:
        logits = logits.movedim(-1, 1)
    part = [Batch.of((logits[i : i + 16], labels[i : i + 16])) for i in range(0, len(labels), 16)]
    run = Evaluation("validation", batches=iter)
    return check_teacher(Reads().eval(), task, {"validation": part}, run)


@pytest.mark.parametrize("counts", [(4, 4), (7, 1), (1, 1), (90, 10), (999, 1), (3, 3, 3, 3)])
def test_a_perfect_teacher_is_accepted_at_any_size(counts: tuple[int, ...]) -> None:
    labels = labels_of(*counts)
    assert check(labels, labels, Classification(len(counts)))["top1"] == 1.0


@pytest.mark.parametrize("counts", [(4, 4), (7, 1), (90, 10), (999, 1), (1, 90, 9)])
def test_a_teacher_that_always_says_the_same_is_refused(counts: tuple[int, ...]) -> None:
    labels = labels_of(*counts)
    constant = torch.full_like(labels, int(torch.tensor(counts).argmax()))
    with pytest.raises(UserError, match=r"which is chance level .* by chance; more than"):
        check(constant, labels, Classification(len(counts)))


def test_guesses_with_the_shares_of_the_classes_are_refused() -> None:
    labels = labels_of(900, 100)
    guesses = labels[torch.randperm(1000, generator=torch.Generator().manual_seed(0))]
    with pytest.raises(UserError, match="which is chance level"):
        check(guesses, labels, Classification(2))


def test_a_teacher_that_knows_the_rare_class_is_accepted_below_the_share_of_the_frequent_one() -> (
    None
):
    labels = labels_of(900, 100)
    decided = labels.clone()
    decided[:120] = 1  # 880 right: less than the 900 of the constant one
    assert check(decided, labels, Classification(2))["top1"] == pytest.approx(0.88)


def test_too_few_labels_give_no_verdict_but_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    labels = labels_of(2, 2, 2, 2)
    decided = labels.clone()
    decided[:5] = (labels[:5] + 1) % 4
    assert check(decided, labels, Classification(4))["top1"] == 0.375
    told = capsys.readouterr().err
    assert "8 validation labels are too few to tell the teacher from one that guesses" in told
    assert "(p = 0.32)" in told


def test_unlabeled_items_do_not_count() -> None:
    labels = labels_of(20, 20)
    labels[::4] = -100
    part = [Batch.of((nn.functional.one_hot(labels.clamp(min=0), 2).float(), labels))]
    run = Evaluation("validation", batches=iter)
    found = decisions(Reads(), Classification(2), {"validation": part}, run)
    assert (found.count, found.agreement) == (30, 1.0)
    assert int(found.shares.isnan().sum()) == 10


def test_a_segmentation_teacher_that_sees_background_alone_is_refused() -> None:
    masks = torch.zeros(6, 10, 10, dtype=torch.int64)
    masks[:, :3, :3] = 1
    task = Segmentation(2)
    assert check(masks, masks, task)["miou"] == 1.0
    with pytest.raises(UserError, match=r"scores miou 0\.455 .* which is chance level"):
        check(torch.zeros_like(masks), masks, task)
    partly = masks.clone()
    partly[:, 0] = 0
    assert check(partly, masks, task)["miou"] > 0.7


def test_a_teacher_of_nan_is_refused() -> None:
    labels = labels_of(4, 4)
    part = [Batch.of((torch.full((8, 2), float("nan")), labels))]
    run = Evaluation("validation", batches=iter)
    with pytest.raises(UserError, match=r"the teacher on validation data: .* NaN or infinity"):
        check_teacher(Reads().eval(), Classification(2), {"validation": part}, run)
