"""Outlier scores against the official numbers and scikit-learn, and the task that reports them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from tests.helpers.vectors import cases, tensor
from tutelage import Classification, UserError
from tutelage.core import Batch
from tutelage.tasks import OpenSetClassification
from tutelage.tasks.open_set.metrics import (
    accepted_outliers,
    auroc,
    energy_score,
    one_vs_all_entropy,
    one_vs_all_loss,
    softmax_score,
    unknown_score,
)

OPEN = [name for name, case in cases("srd").items() if case["group"].startswith("open-set")]


def value(case: str, key: str, dtype: torch.dtype = torch.float64) -> Tensor:
    return tensor("srd", f"{case}_{key}", dtype)


def test_classes_masks_and_half_precision() -> None:
    logits, batch = torch.randn(4, 6), Batch.of((None, torch.tensor([0, 5, -100, 1])))
    OpenSetClassification(6).validate(logits, batch, SimpleNamespace(classes=list("abcdef")))
    with pytest.raises(UserError, match=r"the data has 5 classes, but task\.num_classes is 6"):
        OpenSetClassification(6).validate(logits, batch, SimpleNamespace(classes=list("abcde")))
    with pytest.raises(UserError, match=r"outliers is a mask of torch.bool, got torch.int64"):
        auroc(torch.rand(4), torch.tensor([0, 1, 0, 1]))
    pairs, labels = torch.tensor([[20.0, -20.0, -20.0, 20.0]]), torch.tensor([1])
    for function, rest in ((one_vs_all_loss, (labels,)), (one_vs_all_entropy, ())):
        assert function(pairs.half(), *rest).item() == pytest.approx(
            function(pairs, *rest).item(), rel=1e-3
        )


@pytest.mark.parametrize("case", OPEN)
def test_scores_and_losses_are_the_official_ones(case: str) -> None:
    pairs, logits, labels = (
        value(case, "logits_open"),
        value(case, "logits"),
        value(case, "labels", torch.int64),
    )
    outliers = value(case, "is_ood", torch.bool)
    assert one_vs_all_loss(pairs, labels).item() == pytest.approx(
        value(case, "ova_loss").item(), abs=1e-12
    )
    assert one_vs_all_entropy(pairs).item() == pytest.approx(
        value(case, "ova_entropy").item(), abs=1e-12
    )
    unknown = unknown_score(pairs, logits)
    torch.testing.assert_close(unknown, value(case, "unk_score"), rtol=0, atol=1e-12)
    assert auroc(unknown, outliers) == pytest.approx(value(case, "auroc_unk").item(), abs=1e-12)
    assert auroc(unknown, outliers) == pytest.approx(value(case, "auroc_id_ood").item(), abs=1e-12)
    assert auroc(softmax_score(logits), outliers) == pytest.approx(
        value(case, "auroc_msp").item(), abs=1e-12
    )


def test_auroc_counts_ties_half_and_squashes_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    outliers = torch.rand(500, generator=generator) < 0.3
    scores = torch.randint(-200, 0, (500,), generator=generator).float() + 40 * outliers
    assert auroc(scores, outliers) == pytest.approx(
        roc_auc_score(outliers.numpy(), scores.numpy()), abs=1e-12
    )
    # torchmetrics takes scores outside [0, 1] for logits; a sigmoid in float32 makes ties of them
    assert auroc(scores.sigmoid(), outliers) != pytest.approx(auroc(scores, outliers), abs=1e-3)


def test_a_sure_network_keeps_an_order_among_its_sure_answers() -> None:
    logits = torch.tensor([[0.0, 40.0, 1.0], [0.0, 45.0, 1.0], [0.0, 50.0, 1.0], [0.0, 2.0, 1.0]])
    assert logits.softmax(1).amax(1)[:3].unique().numel() == 1
    assert softmax_score(logits).argsort(descending=True).tolist() == [3, 0, 1, 2]
    p = logits.double().softmax(1).amax(1)
    torch.testing.assert_close(
        softmax_score(logits)[3].double(), ((1 - p) / p).log()[3], rtol=1e-6, atol=0
    )
    assert energy_score(logits).argsort().tolist() == [2, 1, 0, 3]


def test_outliers_let_in_are_counted_at_a_bar_for_known_images() -> None:
    known, strange = torch.arange(100.0), torch.tensor([10.0, 94.0, 95.0, 300.0])
    scores, outliers = torch.cat((known, strange)), torch.arange(104) >= 100
    assert accepted_outliers(scores, outliers) == 0.5  # 95 known images score 94 or less
    assert accepted_outliers(scores, outliers, accepted=1.0) == 0.75
    for accepted in (2.0, 0.0, float("nan"), "all"):
        with pytest.raises(UserError, match="accepted is the share of the known images"):
            accepted_outliers(scores, outliers, accepted=accepted)
    with pytest.raises(UserError, match="0 of 100 images are outliers; give both"):
        accepted_outliers(known, torch.zeros(100, dtype=torch.bool))
    with pytest.raises(UserError, match="4 of 4 images are outliers; give both"):
        auroc(strange, torch.ones(4, dtype=torch.bool))


def test_a_one_vs_all_head_has_two_outputs_a_class() -> None:
    with pytest.raises(UserError, match=r"a one-vs-all head gives \(N, 2 K\), got \(4, 5\)"):
        one_vs_all_entropy(torch.zeros(4, 5))


def batches(count: int, size: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return (student logits, labels, teacher logits); some are outliers or have no label."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(3, (count,), generator=generator)
    labels[::4], labels[1::7], labels[5::11] = -101, -102, -100
    student, teacher = torch.randn(2, count, 3, generator=generator)
    return [
        tuple(part[i : i + size] for part in (student, labels, teacher))
        for i in range(0, count, size)
    ]


def figures(count: int, size: int, has_teacher: bool = True) -> dict[str, float]:
    metrics = OpenSetClassification(num_classes=3, score="energy").metrics()
    for student, labels, teacher in batches(count, size):
        metrics.update(student, Batch.of((None, labels)), teacher if has_teacher else None)
    return metrics.compute()


def test_figures_are_those_of_all_images_at_once() -> None:
    (student, labels, teacher), *_ = batches(90, 90)
    found = figures(90, 7)
    assert found == pytest.approx(figures(90, 90), rel=1e-6)
    for whose, logits in (("", student), ("teacher_", teacher)):
        for kind, mark in (("near", -101), ("far", -102)):
            asked = (labels >= 0) | (labels == mark)
            expected = roc_auc_score(
                (labels == mark)[asked].numpy(), -logits.logsumexp(1)[asked].numpy()
            )
            assert found[f"{whose}auroc_{kind}"] == pytest.approx(expected, abs=1e-6)
            assert 0 <= found[f"{whose}fpr95_{kind}"] <= 1
    known = Classification(num_classes=3).metrics()
    known.update(student, Batch.of((None, labels)), teacher)
    assert {name: found[name] for name in known.compute()} == pytest.approx(
        known.compute(), rel=1e-6
    )
    assert not any(name.startswith("teacher_") for name in figures(90, 7, has_teacher=False))


def test_a_kind_without_images_has_no_figure() -> None:
    metrics = OpenSetClassification(num_classes=3).metrics()
    metrics.update(torch.randn(6, 3), Batch.of((None, torch.tensor([0, 1, 2, -101, 1, -100]))))
    names = {name for name in metrics.compute() if "_" in name}
    assert names == {"auroc_near", "fpr95_near", "num_samples"}


def test_it_trains_as_classification_does() -> None:
    task, plain = OpenSetClassification(num_classes=3, label_smoothing=0.1), Classification(3, 0.1)
    logits = torch.randn(5, 3)
    batch = Batch.of((torch.zeros(5, 1), torch.tensor([0, 2, -100, 1, 0])))
    assert torch.equal(task.loss(logits, batch), plain.loss(logits, batch))
    assert task.inputs(batch) == plain.inputs(batch)
    assert task.chance_level() == plain.chance_level()
    assert task.monitor == plain.monitor
    with pytest.raises(UserError, match="labels run from 0 to 3, but the task has 3 classes"):
        task.loss(logits, Batch.of((None, torch.tensor([0, 2, 3, 1, 0]))))
    with pytest.raises(
        UserError, match=r"there is no score 'entropy' of outliers; did you mean \['energy'\]"
    ):
        OpenSetClassification(num_classes=3, score="entropy")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_without_a_meaning_have_no_rank(value: float) -> None:
    scores = torch.tensor([0.1, float("nan"), 0.3])
    outliers = torch.tensor([False, True, True])
    for measure in (auroc, accepted_outliers):
        with pytest.raises(UserError, match="1 of 3 outlier scores are NaN"):
            measure(scores, outliers)
    task = OpenSetClassification(num_classes=2)
    logits = torch.zeros(4, 2)
    logits[3, 0] = value  # an outlier, which the accuracy does not see
    labels = torch.tensor([0, 1, -101, -101])
    for role, output, teacher in (("network", logits, None), ("teacher", logits * 0, logits)):
        metrics = task.metrics()
        metrics.update(
            output.nan_to_num() if teacher is not None else output,
            Batch.of((None, labels)),
            teacher,
        )
        with pytest.raises(UserError, match=f"the {role} gives NaN or infinity for 1 of 4 images"):
            metrics.compute()
