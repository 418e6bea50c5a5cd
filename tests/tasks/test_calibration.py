"""The temperature after training: its value, its folding, and what a run says of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from tests.helpers.runs import make_recipe
from tutelage import Baseline, Classification, UserError
from tutelage.core import Batch
from tutelage.engine import fit
from tutelage.tasks import Segmentation, fit_temperature, fold_temperature


@pytest.mark.parametrize("factor", [0.1, 1.0, 4.0])
def test_logits_of_true_probabilities_times_a_factor_get_that_factor(factor: float) -> None:
    torch.manual_seed(0)
    logits = 2 * torch.randn(20_000, 5)
    labels = torch.distributions.Categorical(logits=logits).sample()
    temperature = fit_temperature(factor * logits, labels)
    assert temperature == pytest.approx(factor, rel=0.03)
    # At the minimum, the likelihood's derivative by 1/T is zero.
    beta = torch.tensor(1 / temperature, requires_grad=True)
    loss = cross_entropy(beta * factor * logits, labels)
    assert abs(float(torch.autograd.grad(loss, beta)[0])) / temperature < 1e-4


def test_items_without_label_do_not_count_and_wrong_input_is_a_sentence() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(200, 3), torch.randint(3, (200,))
    logits[torch.arange(200), labels] += 1.0
    expected = fit_temperature(logits[:160], labels[:160])
    labels[160:] = -100
    assert fit_temperature(logits, labels) == expected
    with pytest.raises(UserError, match="items with labels, got none"):
        fit_temperature(logits[160:], labels[160:])
    logits[0] = float("nan")
    with pytest.raises(UserError, match="finite logits"):
        fit_temperature(logits, labels)


def test_where_no_temperature_is_right_it_stays_at_1() -> None:
    labels = torch.arange(300) % 3
    for logits in (5 * torch.eye(3)[labels], torch.ones(300, 3)):
        with pytest.warns(UserWarning, match="fit no temperature; it stays at 1"):
            assert fit_temperature(logits, labels) == 1.0
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="at its limit of 50"):
        fit_temperature(torch.randn(300, 3), labels)
    with pytest.warns(UserWarning, match="fitted on 30 items"):
        fit_temperature(torch.randn(30, 3) + torch.eye(3)[labels[:30]], labels[:30])


WRONG = [
    (torch.randn(4, 3).numpy(), torch.zeros(4, dtype=torch.int64), "the logits must be a Tensor"),
    (torch.randn(4, 3), torch.zeros(4), "labels .N,. of int64"),
    (torch.randn(4, 3), torch.zeros(4, 1, dtype=torch.int64), "labels .N,. of int64"),
    (torch.randn(4, 3), torch.full((4,), 3), "the label 3 is none of 3 classes"),
]


@pytest.mark.parametrize(("logits", "labels", "message"), WRONG)
def test_what_is_no_logits_or_labels_is_a_sentence(
    logits: torch.Tensor, labels: torch.Tensor, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        fit_temperature(logits, labels)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), "2"])
def test_a_temperature_is_a_positive_number(temperature: float) -> None:
    with pytest.raises(UserError, match="the temperature is a positive number"):
        fold_temperature(nn.Linear(3, 2), temperature, torch.ones(1, 3))


def test_a_temperature_is_folded_into_the_last_layer_or_refused() -> None:
    images = torch.randn(2, 3, 8, 8)
    pooled = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    folded = fold_temperature(pooled, 3.0, (images,))
    assert torch.allclose(folded(images), pooled(images) / 3, atol=1e-6)
    for network in (nn.Sequential(*pooled, nn.ReLU(), nn.LayerNorm(4)), nn.Flatten()):
        with pytest.raises(UserError, match="cannot be folded into"):
            fold_temperature(network, 3.0, (images,))


def test_a_mapping_with_logits_is_divided_too() -> None:
    class Named(nn.Module):
        def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"logits": pixels.flatten(1), "hidden": pixels}

    task = Classification(num_classes=3)
    network, pixels = Named(), torch.randn(4, 3)
    with task.at_temperature(network, 2.0):
        output = network(pixels)
    assert torch.equal(output["logits"], pixels / 2)
    assert torch.equal(output["hidden"], pixels)
    batch = Batch.of((pixels, torch.tensor([0, 1, 2, 0])))
    with pytest.warns(UserWarning, match="fitted on 8 items"):
        assert task.fit_temperature(network, [batch, batch]) > 0


def test_a_run_says_what_the_temperature_does(tmp_path: Path) -> None:
    metrics = fit(make_recipe(Baseline(), None, calibrate="temperature"), tmp_path / "run")
    assert metrics is not None
    calibration = metrics["calibration"]
    assert calibration["test"]["top1"] == metrics["test"]["top1"]
    assert calibration["validation"]["nll"] <= metrics["validation"]["nll"] + 1e-6
    assert calibration["test"]["nll"] != metrics["test"]["nll"]
    facts = json.loads((tmp_path / "run" / "student.json").read_text())
    assert facts["temperature"] == calibration["temperature"]
    stored = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert stored["calibration"] == calibration


def test_a_task_without_temperature_is_refused_before_training(tmp_path: Path) -> None:
    recipe = make_recipe(Baseline(), None, calibrate="temperature")
    recipe.task = Segmentation(num_classes=10)
    with pytest.raises(UserError, match=r"train\.calibrate is for classification; Segmentation"):
        fit(recipe, tmp_path / "run")
