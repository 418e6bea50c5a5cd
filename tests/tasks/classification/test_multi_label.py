from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from torchmetrics.functional.classification import (
    multilabel_average_precision,
    multilabel_f1_score,
)

from tests.helpers.runs import make_recipe
from tutelage import CKD, DIST, DKD, KD, RCKA, Batch, CombinedMethod, FitNet, UserError
from tutelage.engine import fit
from tutelage.tasks import MultiLabelClassification

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(60, 4, generator=GENERATOR)
LABELS = (torch.rand(60, 4, generator=GENERATOR) < torch.tensor([0.1, 0.3, 0.5, 0.8])).float()


def batch(labels: torch.Tensor) -> Batch:
    return Batch.of((torch.zeros(len(labels), 1), labels))


def measured(logits: torch.Tensor, labels: torch.Tensor, **options: float) -> dict[str, float]:
    metrics = MultiLabelClassification(logits.shape[1], **options).metrics()  # type: ignore[arg-type]
    for rows in torch.arange(len(labels)).split(7):
        metrics.update(logits[rows], batch(labels[rows]))
    return metrics.compute()


def test_the_loss_is_that_of_torch() -> None:
    weight = [1.0, 2.0, 0.5, 4.0]
    task = MultiLabelClassification(4, pos_weight=weight)
    expected = binary_cross_entropy_with_logits(LOGITS, LABELS, pos_weight=torch.tensor(weight))
    torch.testing.assert_close(task.loss(LOGITS, batch(LABELS)), expected)
    torch.testing.assert_close(task.loss({"logits": LOGITS}, batch(LABELS.long())), expected)


def test_metrics_are_those_of_torchmetrics() -> None:
    metrics = measured(LOGITS, LABELS, threshold=0.4)
    truth = LABELS.long()
    probabilities = LOGITS.sigmoid()
    expected = {
        "map": multilabel_average_precision(probabilities, truth, 4),
        "f1": multilabel_f1_score(probabilities, truth, 4, threshold=0.4, average="micro"),
        "f1_macro": multilabel_f1_score(probabilities, truth, 4, threshold=0.4, average="macro"),
        "bce": binary_cross_entropy_with_logits(LOGITS, LABELS),
        "num_samples": 60,
    }
    assert metrics == pytest.approx({k: float(v) for k, v in expected.items()}, abs=1e-6)


def test_equal_scores_count_as_one_threshold() -> None:
    logits = torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.0, 2.0], [1.0, 2.0]])
    labels = torch.tensor([[1.0, 1.0], [0.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    expected = multilabel_average_precision(logits.sigmoid(), labels.long(), 2)
    assert measured(logits, labels)["map"] == pytest.approx(float(expected))


def test_entries_that_are_not_known_leave_loss_and_metrics() -> None:
    labels = LABELS.clone()
    labels[::3] = -1
    known = torch.arange(60) % 3 != 0
    task = MultiLabelClassification(4)
    expected = task.loss(LOGITS[known], batch(LABELS[known]))
    torch.testing.assert_close(task.loss(LOGITS, batch(labels)), expected)
    metrics = measured(LOGITS, labels)
    reference = measured(LOGITS[known], LABELS[known])
    for name in ("map", "f1", "f1_macro", "bce"):
        assert metrics[name] == pytest.approx(reference[name]), name


def test_a_class_that_does_not_occur_leaves_the_mean_precision() -> None:
    labels = LABELS.clone()
    labels[:, 0] = 0
    expected = multilabel_average_precision(
        LOGITS[:, 1:].sigmoid(), labels[:, 1:].long(), 3, average="macro"
    )
    assert measured(LOGITS, labels)["map"] == pytest.approx(float(expected))


def test_a_teacher_is_compared_by_decisions() -> None:
    metrics = MultiLabelClassification(4).metrics()
    metrics.update(LOGITS, batch(LABELS), -LOGITS)
    assert metrics.compute()["agreement"] == 0.0


def test_what_cannot_be_measured_is_refused() -> None:
    task = MultiLabelClassification(4)
    with pytest.raises(UserError, match="one 0 or 1 for every class"):
        task.loss(LOGITS, batch(torch.zeros(60, dtype=torch.int64)))
    with pytest.raises(UserError, match="a label is 3"):
        task.loss(LOGITS, batch(torch.full((60, 4), 3.0)))
    with pytest.raises(UserError, match="the network gives"):
        task.loss(LOGITS[:, :2], batch(LABELS))
    with pytest.raises(UserError, match="no item"):
        task.metrics().compute()
    with pytest.raises(UserError, match="NaN or infinity for 60 of 60 items"):
        measured(LOGITS / 0, LABELS)
    with pytest.raises(UserError, match="any of the classes"):
        measured(LOGITS, torch.zeros(60, 4))
    with pytest.raises(UserError, match="threshold is a probability"):
        MultiLabelClassification(4, threshold=1.0)
    with pytest.raises(UserError, match="one positive number for each of 4 classes"):
        MultiLabelClassification(4, pos_weight=[1.0])


def test_methods_for_one_class_an_item_are_refused(tmp_path: Path) -> None:
    recipe = make_recipe(CombinedMethod([KD(), FitNet({"0": "0"})]), None)
    recipe.task = MultiLabelClassification(10)
    with pytest.raises(UserError, match="reads logits as those of one class an item"):
        fit(recipe, tmp_path / "run")
    for method in (KD(), DKD(), DIST(), CKD()):
        with pytest.raises(UserError, match=f"the method .{type(method).__name__}."):
            recipe.task.check_method(method)
    recipe.task.check_method(RCKA({"0": "0"}))
    recipe.task.check_method(FitNet({"0": "0"}))
