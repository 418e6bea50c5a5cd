"""OKDHP in training and deployed: branches, the ensemble, and what is shipped."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.methods import pose_setting
from tests.methods.harness import distill, make_step
from tests.methods.pose_setting import pose_batch
from tutelage.core import Method, NoTeacher
from tutelage.core.normalization import normalize_inputs
from tutelage.errors import UserError
from tutelage.methods import OKDHP
from tutelage.methods.okdhp import BranchedPose
from tutelage.models import PoseNetwork, small_cnn, small_pose, stacked_hourglass

SETTING = pose_setting.SETTING
EXAMPLES: dict[str, Callable[[], Method]] = {
    "okdhp": lambda: OKDHP(kd_weight=500.0),
    "okdhp_figure": lambda: OKDHP(branches=2, variant="figure", depths=(1, 2), kd_weight=500.0),
}


def branched(method: OKDHP, student: PoseNetwork | None = None) -> BranchedPose:
    network = method.build_student(student or small_pose(3, 1, 8, stages=2), NoTeacher())
    assert isinstance(network, BranchedPose)
    return network


def test_every_map_is_trained_and_taught() -> None:
    distiller = distill(OKDHP(), setting=SETTING)
    output = distiller.step(pose_batch()).student.output
    # One shared stage and three own ones.
    assert output["heatmaps"].shape[1] == 2
    assert {name: maps.shape[1] for name, maps in output["auxiliary"].items()} == {
        "branch1": 1,
        "branch2": 1,
    }
    assert list(distiller(pose_batch())) == ["task", "okdhp/ensemble", "okdhp/kd"]


def test_the_last_map_of_each_branch_enters_the_ensemble() -> None:
    """In the official code the first branch of a network of four stacks does not."""
    network = branched(OKDHP(shared=0)).eval()
    images = torch.rand(2, 1, 32, 32)
    before = network(images)["ensemble"]
    for index in range(3):
        last = list(network.branches[index].children())[-1]
        with torch.no_grad():
            last.head.bias += 1.0
        after = network(images)["ensemble"]
        assert (after - before).abs().min() > 0.1
        before = after


@pytest.mark.parametrize("deployed", [0, 2])
def test_what_is_deployed_equals_the_branch_bit_by_bit(deployed: int) -> None:
    student = normalize_inputs(stacked_hourglass(5, 4, width=16, depth=2), [0.4] * 3, [0.2] * 3)
    count = sum(parameter.numel() for parameter in student.parameters())
    names = set(student.state_dict())
    method = OKDHP(deployed=deployed)
    network = method.build_student(student, NoTeacher()).eval()
    shipped = method.deploy(network)
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(shipped(images), network(images)["heatmaps"])
    # It is the student that was given: so many weights, of the same names.
    assert sum(parameter.numel() for parameter in shipped.parameters()) == count
    assert set(shipped.state_dict()) == names


def test_branches_may_be_longer_than_the_deployed_one() -> None:
    network = branched(OKDHP(depths=(2, 4, 6)), stacked_hourglass(3, 4, width=8, depth=1))
    output = network(torch.rand(1, 3, 16, 16))
    assert output["heatmaps"].shape[1] == 4
    assert [maps.shape[1] for maps in output["auxiliary"].values()] == [4, 6]


def test_without_weights_there_are_branches_and_no_ensemble() -> None:
    method = OKDHP(kd_weight=0.0, ensemble_weight=0.0)
    assert "ensemble" not in branched(method)(torch.rand(1, 1, 32, 32))
    assert list(distill(method, setting=SETTING)(pose_batch())) == ["task"]


def test_the_ensemble_is_trained_by_the_divergence_unless_detached() -> None:
    def slopes(detach: bool) -> list[Tensor | None]:
        method = OKDHP(ensemble_weight=1.0, detach_teacher=detach)
        distiller = distill(method, setting=SETTING)
        terms = distiller(pose_batch())
        assert isinstance(distiller.student, BranchedPose)
        assert distiller.student.aggregation is not None
        weights = list(distiller.student.aggregation.heads.parameters())
        return list(torch.autograd.grad(terms["okdhp/kd"], weights, allow_unused=True))

    assert all(slope is None for slope in slopes(True))
    assert all(slope is not None for slope in slopes(False))


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match="at least two branches, got branches=1"):
        OKDHP(branches=1)
    with pytest.raises(UserError, match=r"3 branches, each at least 1, got \[1, 2\]"):
        OKDHP(depths=[1, 2])
    with pytest.raises(UserError, match="deployed is a branch from 0 to 2 or 'best', got 3"):
        OKDHP(deployed=3)
    with pytest.raises(UserError, match="nothing trains the ensemble"):
        OKDHP(detach_teacher=True, ensemble_weight=0.0)
    with pytest.raises(UserError, match=r"the student is a SmallCNN; take .*stacked_hourglass"):
        OKDHP().build_student(small_cnn(), NoTeacher())
    with pytest.raises(UserError, match=r"2 stages, so that 0 to 1 can be shared, got shared=2"):
        branched(OKDHP(shared=2))
    with pytest.raises(UserError, match=r"deployed branch 0 has the student's 1 own stages"):
        branched(OKDHP(depths=(2, 1, 1)))
    with pytest.raises(UserError, match="network with branches; give the Distiller"):
        OKDHP()(make_step(torch.zeros(2, 3, 4, 4), None, torch.ones(2, 3, 3)))
    with pytest.raises(UserError, match="deploys what build_student returned, got a SmallCNN"):
        OKDHP().deploy(small_cnn())


def test_the_hourglass_names_a_side_that_it_cannot_halve() -> None:
    with pytest.raises(UserError, match="height 20 of the maps is not divisible by 16 for depth 4"):
        stacked_hourglass(3, 1, width=8)(torch.zeros(1, 3, 80, 64))


def test_the_deployed_branch_can_be_chosen_by_a_score() -> None:
    method = OKDHP(deployed="best")
    network = branched(method).eval()
    images = torch.rand(2, 1, 32, 32)
    wanted = network.path(2)(images)

    def score(model: nn.Module) -> float:
        return -(model(images) - wanted).square().sum().item()

    chosen = method.choose(network, score)
    assert chosen["branch"] == 2
    assert chosen["scores"].index(max(chosen["scores"])) == 2
    # A copy with the same state makes the same choice, the trained network's output follows it.
    other = branched(method).eval()
    other.load_state_dict(network.state_dict())
    assert torch.equal(method.deploy(other)(images), wanted)
    assert torch.equal(other(images)["heatmaps"], wanted)
    assert list(other(images)["auxiliary"]) == ["branch0", "branch1"]
    # Equal scores leave the first; without the option there is no choice.
    assert method.choose(network, lambda model: 0.5)["branch"] == 0
    assert OKDHP(deployed=1).choose(network, score) == {}


def test_a_choice_is_among_branches_of_one_depth() -> None:
    with pytest.raises(UserError, match="branches of one depth"):
        OKDHP(deployed="best", depths=[2, 4, 6])
    with pytest.raises(UserError, match="or 'best', got 'worst'"):
        OKDHP(deployed="worst")  # type: ignore[arg-type]
