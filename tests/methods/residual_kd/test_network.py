"""The network of student and assistants: what is deployed, and that fusing changes no logit."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.methods.harness import image_batch
from tests.methods.residual_kd.support import LAST, distill_normalized, run
from tutelage import Distiller, NoTeacher, ResidualKD, UserError
from tutelage.core.normalization import normalization, normalize_inputs
from tutelage.methods.residual_kd import ResidualNetwork
from tutelage.models import small_cnn


@torch.no_grad()
def deploy_and_compare(distiller: Distiller) -> None:
    images = image_batch()[0]
    before = distiller.eval().student(images)
    student_only = distiller.student.student_only().eval()
    vectors = [member((images - 0.3) / 0.2) for member in distiller.student.members]
    head = distiller.student.joint_head()
    features = [
        F.linear(vector, adapter.weight, adapter.bias)
        for vector, adapter in zip(vectors, head.adapters[-1], strict=True)
    ]
    assert torch.allclose(before, head.classifier(sum(features)), atol=1e-4)
    deployed = distiller.deploy()
    assert torch.equal(deployed(images), before)
    assert not any("adapter" in name or "head" in name for name in deployed.state_dict())
    assert torch.equal(distiller.deploy()(images), before)
    assert type(student_only).__name__ == "SmallCNN"
    assert torch.equal(student_only(images), head.member_logits(0, vectors[0]))
    assert torch.equal(deployed.student_only()(images), student_only(images))
    assert not torch.allclose(student_only(images), before, atol=1e-3)


def test_deployed_logits_are_those_of_training_to_the_last_bit() -> None:
    """The trap: adapters look like training aids, and without them the network is wrong."""
    for settings in (
        {},
        {"num_assistants": 2},
        {"schedule": "end_to_end", "classifier": None},
    ):
        distiller = distill_normalized(ResidualKD(LAST, **settings), width=12)
        run(distiller, 5)
        deploy_and_compare(distiller)


@pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::torch.jit.TracerWarning"
)  # deprecated, but still in use
def test_what_is_deployed_can_be_traced() -> None:
    images = image_batch()[0]
    deployed = distill_normalized(ResidualKD(LAST)).deploy().eval()
    assert torch.equal(torch.jit.trace(deployed, images)(images), deployed(images))


def test_the_student_out_of_a_network_in_training_is_a_network_of_its_own() -> None:
    distiller = distill_normalized(ResidualKD(LAST))
    distiller.student(image_batch()[0])  # leaves a graph behind in the taps
    student_only = distiller.student.student_only()
    student_only(image_batch()[0])
    assert not any(module._forward_hooks for module in student_only.modules())
    copy.deepcopy(student_only)
    distiller(image_batch())


def test_the_built_network_lies_where_the_given_one_lies() -> None:
    student = normalize_inputs(small_cnn(), [0.3], [0.2])
    with torch.device("meta"):
        network = ResidualKD(LAST).build_student(student, NoTeacher())
    devices = {value.device.type for value in (*network.parameters(), *network.buffers())}
    assert devices == {"cpu"}


@torch.no_grad()
def test_normalization_is_stated_once_and_applied_once() -> None:
    distiller = distill_normalized(ResidualKD(LAST)).eval()
    network, images = distiller.student, image_batch()[0]
    assert normalization(network) == ([0.3], [0.2])
    tapped = distiller.step(image_batch()).student.feature("student.stage3")
    bare = network.student
    expected = bare.stage3(bare.stage2(bare.stage1((images - 0.3) / 0.2)))
    assert torch.allclose(tapped, expected, atol=1e-6)
    assert normalization(network.student_only()) == ([0.3], [0.2])


def test_what_is_deployed_is_rebuilt_without_teacher_data_or_adapters() -> None:
    distiller = distill_normalized(ResidualKD(LAST))
    run(distiller, 2)
    deployed = distiller.deploy().eval()
    method = ResidualKD(LAST)
    rebuilt = method.deploy(method.build_student(small_cnn(width=8), NoTeacher()))
    assert set(rebuilt.state_dict()) == set(deployed.state_dict())
    rebuilt.load_state_dict(deployed.state_dict())
    normalize_inputs(rebuilt, [0.3], [0.2])
    assert torch.equal(rebuilt.eval()(image_batch()[0]), deployed(image_batch()[0]))


def test_several_pairs_have_adapters_of_their_own_which_are_not_deployed() -> None:
    distiller = distill_normalized(ResidualKD({"stage2": "stage2", "stage3": "stage3"}))
    deployed = distill_normalized(ResidualKD(LAST)).deploy()
    assert set(distiller.deploy().state_dict()) == set(deployed.state_dict())


def test_the_network_that_is_given_is_the_one_that_is_deployed() -> None:
    """Such as a moving average of the student, instead of what the method has built."""
    distiller = distill_normalized(ResidualKD(LAST))
    method, trained = distiller.method, distiller.student
    average = copy.deepcopy(trained)
    with torch.no_grad():
        for parameter in average.parameters():
            parameter.mul_(0.5)
        expected = average.eval()(image_batch()[0])
        deployed = method.deploy(average)
        assert deployed is average
        assert torch.equal(deployed(image_batch()[0]), expected)
    assert trained.joint_head() is distiller.student.head  # as it was
    assert isinstance(method.deploy(trained), ResidualNetwork)
    with pytest.raises(UserError, match="deploys what build_student returned, got a SmallCNN"):
        method.deploy(small_cnn())


def test_a_head_is_asked_for_after_it_is_built() -> None:
    network = ResidualNetwork(
        nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), [nn.Sequential(nn.Flatten(), nn.Linear(4, 3))]
    )
    with pytest.raises(UserError, match=r"the adapters are not built yet; call distiller.setup"):
        _ = network.joint_head()
    assert network.fuse() is network
