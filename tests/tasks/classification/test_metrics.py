from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_calibration_error

from tutelage import Classification, UserError
from tutelage.core import Batch

NAN = float("nan")


def figures(logits: Tensor, labels: Tensor, teacher: Tensor | None = None) -> dict[str, float]:
    metrics = Classification(logits.shape[1]).metrics()
    for part in range(0, len(labels), 7):
        rows = slice(part, part + 7)
        batch = Batch.of((None, labels[rows]))
        metrics.update(logits[rows], batch, None if teacher is None else teacher[rows])
    return metrics.compute()


def textbook_ece(logits: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Return the error as Guo et al. write it, bin by bin."""
    confidence, guess = logits.softmax(1).double().max(1)
    total = 0.0
    for number in range(bins):
        low = number / bins
        inside = (confidence >= low) & (confidence < low + 1 / bins)
        if number == bins - 1:
            inside = confidence >= low
        if inside.any():
            accuracy = (guess == labels)[inside].double().mean()
            total += float(inside.double().mean() * (accuracy - confidence[inside].mean()).abs())
    return total


@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0, 40.0, 300.0])
def test_the_calibration_error_is_that_of_the_textbook(scale: float) -> None:
    torch.manual_seed(0)
    logits = scale * torch.randn(500, 6)
    labels = torch.where(torch.rand(500) < 0.7, logits.argmax(1), torch.randint(6, (500,)))
    assert figures(logits, labels)["ece"] == pytest.approx(textbook_ece(logits, labels), abs=1e-6)


def test_a_confidence_of_one_lies_in_the_last_bin() -> None:
    logits = torch.tensor([[3.0, 0.0], [200.0, 0.0]])
    assert float(logits[1].softmax(0).max()) == 1.0
    # One bin holds both: accuracy 1/2, confidence (0.9526 + 1) / 2.
    assert figures(logits, torch.tensor([0, 1]))["ece"] == pytest.approx(0.47629, abs=1e-5)


def test_the_order_of_the_metrics_stays() -> None:
    logits = torch.eye(6)
    assert list(figures(logits, torch.arange(6), logits)) == [
        "top1",
        "top5",
        "nll",
        "ece",
        "agreement",
        "teacher_kl",
        "num_samples",
    ]


@pytest.mark.parametrize("value", [NAN, float("inf")])
def test_logits_without_a_meaning_are_refused_and_counted(value: float) -> None:
    logits = torch.zeros(9, 3)
    labels = torch.zeros(9, dtype=torch.int64)
    broken = logits.clone()
    broken[[2, 8], 1] = value
    with pytest.raises(UserError, match="the network gives NaN or infinity for 2 of 9 items"):
        figures(broken, labels)
    with pytest.raises(UserError, match="the teacher gives NaN or infinity for 2 of 9 items"):
        figures(logits, labels, broken)


def test_a_class_that_is_ruled_out_has_a_meaning() -> None:
    logits = torch.tensor([[0.0, 1.0, float("-inf")]])
    label = torch.tensor([1])
    assert figures(logits, label)["top1"] == 1.0
    assert figures(logits, label, logits)["teacher_kl"] == 0.0
    # KL([0.2689, 0.7311, 0] ‖ [1/3, 1/3, 1/3]) is log 3 minus the entropy of the teacher.
    assert figures(torch.zeros(1, 3), label, logits)["teacher_kl"] == pytest.approx(
        0.51641, abs=1e-5
    )


def test_a_label_out_of_range_is_named() -> None:
    with pytest.raises(UserError, match="there is a label 3, but the task has 3 classes"):
        figures(torch.zeros(2, 3), torch.tensor([0, 3]))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.rand(4), r"float32, but classes are int64; use labels.long\(\)"),
        (torch.eye(3, dtype=torch.int64)[[0, 1, 2, 0]], r"\(4, 3\) labels .*labels.argmax\(1\)"),
        (torch.eye(3)[[0, 1, 2, 0]], "float32, but classes are int64"),
        (torch.zeros(4, 1, dtype=torch.int64), r"\(4, 1\) labels for \(4, 3\) logits"),
        ([0, 1, 2, 0], r"are a list; make them a tensor"),
    ],
)
def test_labels_that_are_no_classes_are_refused(labels: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Classification(num_classes=3).metrics().update(torch.randn(4, 3), Batch.of((None, labels)))


@pytest.mark.parametrize("num_classes", [2, 6, 100])
def test_the_figures_are_those_of_torchmetrics(num_classes: int) -> None:
    noise = torch.Generator().manual_seed(num_classes)
    logits = 2 * torch.randn(300, num_classes, generator=noise)
    labels = torch.randint(num_classes, (300,), generator=noise)
    found = figures(logits, labels)
    for name, top_k in {"top1": 1, "top5": min(5, num_classes)}.items():
        expected = multiclass_accuracy(logits, labels, num_classes, average="micro", top_k=top_k)
        assert found.get(name, 1.0) == pytest.approx(float(expected), abs=1e-6)
    error = multiclass_calibration_error(logits.softmax(1), labels, num_classes, n_bins=15)
    assert found["ece"] == pytest.approx(float(error), abs=1e-6)
