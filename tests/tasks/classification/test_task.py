from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tests.helpers.ranks import fork_ranks
from tutelage import Classification, UserError
from tutelage.core import Batch
from tutelage.data import Digits

LOGITS, LABELS = torch.randn(40, 10), torch.randint(10, (40,))


def labeled(labels: Tensor) -> Batch:
    """Return a batch of which only the labels matter."""
    return Batch({"inputs": None, "labels": labels})


def test_the_loss_is_cross_entropy_over_labeled_items() -> None:
    labels = LABELS.clone()
    labels[::3] = -100
    for smoothing in (0.0, 0.1):
        task = Classification(10, label_smoothing=smoothing)
        expected = cross_entropy(LOGITS, labels, label_smoothing=smoothing)
        assert torch.isclose(task.loss(LOGITS, labeled(labels)), expected)


def test_a_batch_without_labels_costs_nothing_and_has_a_gradient() -> None:
    logits = LOGITS.clone().requires_grad_()
    loss = Classification(10).loss(logits, labeled(torch.full((40,), -100)))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert logits.grad.abs().sum() == 0


def test_hugging_face_batches_and_outputs() -> None:
    from transformers.modeling_outputs import ImageClassifierOutput

    task = Classification(10)
    batch = Batch.of({"pixel_values": torch.zeros(40, 3, 2, 2), "labels": LABELS})
    assert list(task.inputs(batch)[0]) == ["pixel_values"]
    assert torch.isclose(
        task.loss(ImageClassifierOutput(logits=LOGITS), batch), cross_entropy(LOGITS, LABELS)
    )


def test_mistakes_are_named() -> None:
    with pytest.raises(
        UserError, match=r"the network gives \(40, 10\), but the task has 7 classes"
    ):
        Classification(7).loss(LOGITS, labeled(LABELS))
    with pytest.raises(UserError, match=r"the network gives tuple"):
        Classification(10).loss((LOGITS,), labeled(LABELS))
    with pytest.raises(UserError, match=r"labels run from 0 to 10, but the task has 10 classes"):
        Classification(10).loss(LOGITS, labeled(torch.arange(40) % 11))
    with pytest.raises(UserError, match=r"labels run from -2"):
        Classification(10).loss(LOGITS, labeled(LABELS - 2 - LABELS))
    with pytest.raises(UserError, match=r"\(39,\) labels for \(40, 10\) logits"):
        Classification(10).loss(LOGITS, labeled(LABELS[1:]))
    with pytest.raises(UserError, match="the batch is empty"):
        Classification(10).loss(LOGITS[:0], labeled(LABELS[:0]))
    with pytest.raises(UserError, match="num_classes must be at least 2, got 1"):
        Classification(1)
    with pytest.raises(UserError, match="label_smoothing is a share"):
        Classification(10, label_smoothing=1.0)


def by_hand(logits: Tensor, labels: Tensor, teacher: Tensor) -> dict[str, float]:
    """Compute the figures in float64, straight from their definitions."""
    logits, teacher = logits.double(), teacher.double()
    p, q = teacher.softmax(1), logits.softmax(1)
    confidence, decision = q.max(1)
    right = (decision == labels).double()
    ece = 0.0
    for i in range(15):
        inside = (confidence > i / 15) & (confidence <= (i + 1) / 15)
        if inside.any():
            ece += float(
                inside.double().mean() * (confidence[inside].mean() - right[inside].mean()).abs()
            )
    top5 = (logits.topk(5).indices == labels.unsqueeze(1)).any(1)
    return {
        "top1": float(right.mean()),
        "top5": float(top5.double().mean()),
        "nll": float(-q[torch.arange(len(q)), labels].log().mean()),
        "ece": ece,
        "agreement": float((decision == teacher.argmax(1)).double().mean()),
        "teacher_kl": float((p * (p / q).log()).sum(1).mean()),
        "num_samples": float(len(labels)),
    }


def test_metrics_equal_their_definitions_over_ragged_batches() -> None:
    logits, labels = torch.randn(100, 10) * 3, torch.randint(10, (100,))
    teacher = logits + torch.randn(100, 10)
    metrics = Classification(10).metrics()
    for part in (slice(0, 60), slice(60, 99), slice(99, 100)):
        metrics.update(logits[part], labeled(labels[part]), teacher[part])
    assert metrics.compute() == pytest.approx(by_hand(logits, labels, teacher), abs=1e-5)


def test_unlabeled_items_and_a_missing_teacher_are_left_out() -> None:
    labels = LABELS.clone()
    labels[:10] = -100
    metrics = Classification(10).metrics()
    metrics.update(LOGITS, labeled(labels))
    metrics.update(LOGITS, labeled(torch.full((40,), -100)))
    figures = metrics.compute()
    assert "agreement" not in figures
    assert figures["num_samples"] == 30
    assert figures["top1"] == pytest.approx(float((LOGITS.argmax(1) == LABELS)[10:].float().mean()))


def test_two_classes_work() -> None:
    metrics = Classification(2).metrics()
    metrics.update(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), labeled(torch.tensor([0, 0])))
    figures = metrics.compute()
    assert figures["top1"] == 0.5
    assert "top5" not in figures
    assert Classification(2).chance_level() == 0.5


def test_nothing_to_evaluate_is_refused() -> None:
    with pytest.raises(UserError, match="there is nothing to evaluate"):
        Classification(10).metrics().compute()


def test_extreme_logits_stay_finite() -> None:
    metrics = Classification(10).metrics()
    metrics.update(LOGITS * 1e4, labeled(LABELS), -LOGITS * 1e4)
    assert all(math.isfinite(value) for value in metrics.compute().values())


def test_data_and_network_must_have_the_classes_of_the_task() -> None:
    Classification(10).validate(LOGITS, labeled(LABELS), Digits())
    Classification(10).validate(LOGITS, labeled(LABELS))
    with pytest.raises(
        UserError, match=r"the data has 10 classes, but task\.num_classes is 11; set it and the"
    ):
        Classification(11).validate(LOGITS, labeled(LABELS), Digits())  # not: the network gives 10
    with pytest.raises(UserError, match=r"gives \(40, 10\), but the task has 11 classes"):
        Classification(11).validate(LOGITS, labeled(LABELS))


SCRIPT = """
import torch, torch.distributed as dist
from tutelage import Classification
from tutelage.core import Batch

dist.init_process_group("gloo")
torch.manual_seed(0)
logits, teacher = torch.randn(50, 10), torch.randn(50, 10)
labels = torch.randint(10, (50,))
no_labels_in_second = labels.clone()
no_labels_in_second[37:] = -100

def figures(labels, rows):
    metrics = Classification(10).metrics()
    metrics.update(logits[rows], Batch.of((None, labels[rows])), teacher[rows])
    return metrics.compute()

first, second = slice(0, 37), slice(37, 50)
own = first if dist.get_rank() == 0 else second
ranks = figures(labels, own)
only_first = figures(no_labels_in_second, own)
dist.barrier()
dist.destroy_process_group()
whole = figures(labels, slice(0, 50))
assert list(whole) == list(ranks)
assert all(abs(whole[k] - ranks[k]) < 1e-6 for k in whole), (whole, ranks)
expected = figures(labels, first)
assert only_first == expected, (only_first, expected)
"""


def test_two_ranks_with_unequal_shares_give_the_figures_of_one(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    fork_ranks(script)
