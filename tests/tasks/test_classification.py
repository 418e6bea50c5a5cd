from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tests.ranks import run_ranks
from tutelage import Classification, UserError

LOGITS, LABELS = torch.randn(40, 10), torch.randint(10, (40,))


def test_the_loss_is_cross_entropy_over_labelled_items() -> None:
    labels = LABELS.clone()
    labels[::3] = -100
    for smoothing in (0.0, 0.1):
        task = Classification(10, label_smoothing=smoothing)
        expected = cross_entropy(LOGITS, labels, label_smoothing=smoothing)
        assert torch.isclose(task.loss(LOGITS, (None, labels)), expected)


def test_a_batch_without_labels_costs_nothing_and_has_a_gradient() -> None:
    logits = LOGITS.clone().requires_grad_()
    loss = Classification(10).loss(logits, (None, torch.full((40,), -100)))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert logits.grad.abs().sum() == 0


def test_hugging_face_batches_and_outputs() -> None:
    from transformers.modeling_outputs import ImageClassifierOutput

    task = Classification(10)
    batch = {"pixel_values": torch.zeros(40, 3, 2, 2), "labels": LABELS}
    assert list(task.inputs(batch)[0]) == ["pixel_values"]
    assert torch.isclose(task.loss(ImageClassifierOutput(logits=LOGITS), batch), cross_entropy(LOGITS, LABELS))


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match=r"the network gives \(40, 10\), but the task has 7 classes"):
        Classification(7).loss(LOGITS, (None, LABELS))
    with pytest.raises(UserError, match=r"the network gives tuple"):
        Classification(10).loss((LOGITS,), (None, LABELS))
    with pytest.raises(UserError, match=r"labels run from 0 to 10, but the task has 10 classes"):
        Classification(10).loss(LOGITS, (None, torch.arange(40) % 11))
    with pytest.raises(UserError, match=r"labels run from -2"):
        Classification(10).loss(LOGITS, (None, LABELS - 2 - LABELS))
    with pytest.raises(UserError, match=r"\(39,\) labels for \(40, 10\) logits"):
        Classification(10).loss(LOGITS, (None, LABELS[1:]))
    with pytest.raises(UserError, match="the batch is empty"):
        Classification(10).loss(LOGITS[:0], (None, LABELS[:0]))
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
            ece += float(inside.double().mean() * (confidence[inside].mean() - right[inside].mean()).abs())
    top5 = (logits.topk(5).indices == labels.unsqueeze(1)).any(1)
    return {
        "top1": float(right.mean()),
        "top5": float(top5.double().mean()),
        "nll": float(-q[torch.arange(len(q)), labels].log().mean()),
        "ece": ece,
        "agreement": float((decision == teacher.argmax(1)).double().mean()),
        "kl": float((p * (p / q).log()).sum(1).mean()),
        "count": float(len(labels)),
    }


def test_metrics_equal_their_definitions_over_ragged_batches() -> None:
    logits, labels = torch.randn(100, 10) * 3, torch.randint(10, (100,))
    teacher = logits + torch.randn(100, 10)
    metrics = Classification(10).metrics()
    for part in (slice(0, 60), slice(60, 99), slice(99, 100)):
        metrics.update(logits[part], (None, labels[part]), teacher[part])
    assert metrics.compute() == pytest.approx(by_hand(logits, labels, teacher), abs=1e-5)


def test_unlabelled_items_and_a_missing_teacher_are_left_out() -> None:
    labels = LABELS.clone()
    labels[:10] = -100
    metrics = Classification(10).metrics()
    metrics.update(LOGITS, (None, labels))
    metrics.update(LOGITS, (None, torch.full((40,), -100)))
    figures = metrics.compute()
    assert "agreement" not in figures
    assert figures["count"] == 30
    assert figures["top1"] == pytest.approx(float((LOGITS.argmax(1) == LABELS)[10:].float().mean()))


def test_two_classes_work() -> None:
    metrics = Classification(2).metrics()
    metrics.update(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), (None, torch.tensor([0, 0])))
    figures = metrics.compute()
    assert figures["top1"] == 0.5
    assert "top5" not in figures
    assert Classification(2).chance() == 0.5


def test_nothing_to_evaluate_is_refused() -> None:
    with pytest.raises(UserError, match="there is nothing to evaluate"):
        Classification(10).metrics().compute()


def test_extreme_logits_stay_finite() -> None:
    metrics = Classification(10).metrics()
    metrics.update(LOGITS * 1e4, (None, LABELS), -LOGITS * 1e4)
    assert all(math.isfinite(value) for value in metrics.compute().values())


SCRIPT = """
import sys, torch, torch.distributed as dist
from tutelage import Classification
dist.init_process_group("gloo")
torch.manual_seed(0)
logits, labels, teacher = torch.randn(50, 10), torch.randint(10, (50,)), torch.randn(50, 10)
mine = slice(0, 37) if dist.get_rank() == 0 else slice(37, 50)
metrics = Classification(10).metrics()
metrics.update(logits[mine], (None, labels[mine]), teacher[mine])
ranks = metrics.compute()
dist.barrier()
dist.destroy_process_group()
whole = Classification(10).metrics()
whole.update(logits, (None, labels), teacher)
one = whole.compute()
assert all(abs(one[k] - ranks[k]) < 1e-6 for k in one), (one, ranks)
"""


def test_two_ranks_with_unequal_shares_give_the_figures_of_one(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    run_ranks(script)
