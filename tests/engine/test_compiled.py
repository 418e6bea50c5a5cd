"""Compiled networks train as others do, with several terms and the gradient cap."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.helpers.runs import make_recipe
from tutelage import KD, RCKA, CombinedMethod
from tutelage.core.taps import FeatureTaps
from tutelage.engine import fit
from tutelage.engine.compiled import compile_networks
from tutelage.engine.run_folder import RunFolder
from tutelage.models import small_cnn

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


@needs_compiler
@pytest.mark.slow
def test_several_gradients_of_one_compiled_pass() -> None:
    torch._dynamo.reset()
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    compile_networks(network)
    first, second = network(torch.ones(3, 4)).sum(0)
    weight = network[0].weight
    gradients = [
        torch.autograd.grad(term, weight, retain_graph=True)[0] for term in (first, second)
    ]
    total = torch.autograd.grad(first + second, weight)[0]
    assert torch.allclose(gradients[0] + gradients[1], total)


@needs_compiler
def test_the_taps_of_a_second_network_of_the_same_class_fire() -> None:
    torch._dynamo.reset()
    images = torch.rand(2, 1, 8, 8)
    for layers in ([], ["stage1"], ["stage2"]):
        network = small_cnn(width=2)
        taps = FeatureTaps(network, layers)
        compile_networks(network)
        assert list(taps(images).features) == layers


@needs_compiler
@pytest.mark.slow
def test_a_compiled_run_is_that_of_the_networks_as_they_are(
    teacher_run: Path, tmp_path: Path
) -> None:
    logs = []
    for is_compiled in (False, True):
        torch._dynamo.reset()
        method = CombinedMethod([KD(), RCKA({"3": "3"}, ramp=None)])
        recipe = make_recipe(method, teacher_run, compile=is_compiled)
        recipe.student.model[6] = nn.Identity()  # dropout draws other numbers when compiled
        out = tmp_path / str(is_compiled)
        fit(recipe, out)
        logs.append(RunFolder(out).records())
    for plain, compiled in zip(*logs, strict=True):
        assert compiled["terms"] == pytest.approx(plain["terms"], rel=1e-3)
