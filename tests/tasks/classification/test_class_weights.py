from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from tests.helpers.runs import make_recipe
from tutelage import Baseline, Batch, UserError
from tutelage.data import ArraySet
from tutelage.engine import fit
from tutelage.tasks import Classification

LOGITS = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 0, 0, 2, 1, -100])


def batch(labels: torch.Tensor) -> Batch:
    return Batch.of((torch.zeros(len(labels), 1), labels))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_that_of_torch(smoothing: float) -> None:
    weights = [0.2, 0.01, 3.0]
    task = Classification(3, smoothing, class_weights=weights)
    expected = cross_entropy(
        LOGITS, LABELS, torch.tensor(weights), ignore_index=-100, label_smoothing=smoothing
    )
    torch.testing.assert_close(task.loss(LOGITS, batch(LABELS)), expected)


def test_without_any_label_the_loss_is_zero() -> None:
    task = Classification(3, class_weights=[1.0, 2.0, 3.0])
    labels = torch.full((6,), -100)
    assert task.loss(LOGITS, batch(labels)) == 0.0


def test_balanced_weights_let_every_class_count_alike() -> None:
    task = Classification(3, class_weights="balanced")
    with pytest.raises(UserError, match=r"not known yet; call task.prepare"):
        task.loss(LOGITS, batch(LABELS))
    task.prepare(ArraySet(torch.zeros(6, 1, 2, 2, dtype=torch.uint8), LABELS))
    losses = cross_entropy(LOGITS, LABELS, ignore_index=-100, reduction="none")
    by_class = torch.stack([losses[label == LABELS].mean() for label in range(3)])
    torch.testing.assert_close(task.loss(LOGITS, batch(LABELS)), by_class.mean())


def test_a_run_prepares_the_task(tmp_path) -> None:  # type: ignore[no-untyped-def]
    recipe = make_recipe(Baseline(), None, epochs=1)
    recipe.task = Classification(10, class_weights="balanced")
    metrics = fit(recipe, tmp_path / "run")
    assert metrics is not None
    weights = recipe.task._weights
    assert weights is not None
    labels = recipe.data.splits(recipe.num_labels, recipe.seed)["train"].labels
    counts = torch.bincount(labels, minlength=10).float()
    torch.testing.assert_close(weights * counts, torch.full((10,), float(counts.max())))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, 2.0], "has 2 numbers for 3 classes"),
        ([1.0, 0.0, 1.0], "one positive number for each class"),
        ([1.0, float("nan"), 1.0], "one positive number for each class"),
        ("balance", "'balanced', or a list"),
    ],
)
def test_weights_that_are_none_are_refused(weights: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Classification(3, class_weights=weights)  # type: ignore[arg-type]


def test_a_class_without_items_cannot_be_balanced() -> None:
    task = Classification(4, class_weights="balanced")
    samples = ArraySet(torch.zeros(6, 1, 2, 2, dtype=torch.uint8), LABELS)
    with pytest.raises(UserError, match="class 3 has no training item"):
        task.prepare(samples)
    with pytest.raises(UserError, match="does not say the label of each item"):
        task.prepare([1, 2, 3])
