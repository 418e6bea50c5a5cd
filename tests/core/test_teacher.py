from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from tutelage import FrozenTeacher, NoTeacher, UserError
from tutelage.core import Batch, Output, Teacher, Teachers
from tutelage.engine.checks.teacher import state_hash

BATCH = Batch.of(torch.ones(2, 4))


def test_a_network_teacher_is_frozen_and_in_eval_mode() -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    before = state_hash(net)
    teacher = FrozenTeacher(net)
    net.train()  # somebody flips it back: the next call puts it right
    x = torch.randn(8, 4)
    first, second = teacher(BATCH, (x,)).output, teacher(BATCH, (x,)).output
    assert torch.equal(first, second)
    assert state_hash(net) == before
    assert not first.requires_grad


def test_its_outputs_can_be_saved_for_backward() -> None:
    teacher, student = FrozenTeacher(nn.Linear(4, 3)), nn.Linear(4, 3)
    x = torch.randn(8, 4)
    (student(x) * teacher(BATCH, (x,)).output).sum().backward()
    assert student.weight.grad is not None


def test_two_tapped_teachers_of_one_network_do_not_disturb_each_other() -> None:
    teacher = FrozenTeacher(nn.Sequential(nn.Linear(4, 3), nn.ReLU()))
    first, second = teacher.with_taps(["0"]), teacher.with_taps(["1"])
    inputs = (torch.ones(1, 4),)
    assert [list(t(BATCH, inputs).features) for t in (first, second, teacher)] == [["0"], ["1"], []]


def test_no_teacher_refuses_taps_and_modules() -> None:
    with pytest.raises(UserError, match=r"taps \['layer1'\] of a teacher, but there is none"):
        NoTeacher().with_taps(["layer1"])
    with pytest.raises(UserError, match="needs the teacher's module 'fc'"):
        NoTeacher().module("fc")
    assert NoTeacher()(BATCH, ()).output is None
    assert NoTeacher().models() == {}
    assert NoTeacher().with_taps([]).student_layers == ()


def test_a_module_of_the_teacher_is_found_by_name() -> None:
    net = nn.Sequential(nn.Linear(4, 3))
    assert FrozenTeacher(net).module("0") is net[0]
    assert FrozenTeacher(net).models() == {"teacher": net}
    with pytest.raises(UserError, match="no module 'fc'"):
        FrozenTeacher(net).module("fc")


def test_several_teachers_give_the_mean_of_their_logits_and_name_their_features() -> None:
    nets = [nn.Sequential(nn.Linear(4, width), nn.Linear(width, 3)) for width in (5, 6)]
    both = Teachers({"small": FrozenTeacher(nets[0]), "large": FrozenTeacher(nets[1])})
    output = both.with_taps(["large/0", "small/1"])(BATCH, (BATCH.inputs,))
    torch.testing.assert_close(output.logits, (nets[0](BATCH.inputs) + nets[1](BATCH.inputs)) / 2)
    assert output.feature("large/0").shape == (2, 6)
    torch.testing.assert_close(output.feature("small/1"), nets[0](BATCH.inputs))
    assert set(output.features) == {"large/0", "small/1"}
    assert both(BATCH, (BATCH.inputs,)).features == {}
    assert both.models() == {"small": nets[0], "large": nets[1]}
    assert both.module("large/1") is nets[1][1]


def test_teachers_of_different_classes_give_their_logits_by_name() -> None:
    both = Teachers({"a": FrozenTeacher(nn.Linear(4, 3)), "b": FrozenTeacher(nn.Linear(4, 2))})
    output = both(BATCH, (BATCH.inputs,)).output
    assert {name: value.shape[1] for name, value in output.items()} == {"a": 3, "b": 2}
    mixed = Teachers({"a": FrozenTeacher(nn.Linear(4, 3)), "b": NoTeacher()})
    assert list(mixed(BATCH, (BATCH.inputs,)).output) == ["a", "b"]


def test_layers_of_several_teachers_say_whose_they_are() -> None:
    both = Teachers({"small": FrozenTeacher(nn.Linear(4, 3)), "large": NoTeacher()})
    with pytest.raises(UserError, match=r"does not say whose it is; write it as 'small/fc'"):
        both.with_taps(["fc"])
    with pytest.raises(UserError, match=r"no teacher 'smal', .*'smal/fc'.*mean \['small'\]"):
        both.with_taps(["smal/fc"])
    with pytest.raises(UserError, match=r"taps \['fc'\] of a teacher, but there is none"):
        both.with_taps(["large/fc"])
    two = Teachers({name: FrozenTeacher(nn.Linear(4, 3)) for name in ("small", "large")})
    with pytest.raises(UserError, match="'fc' names none of the teachers"):
        two.module("fc")
    with pytest.raises(UserError, match="at least one teacher"):
        Teachers({})
    with pytest.raises(UserError, match="has no slash, got 'a/b'"):
        Teachers({"a/b": NoTeacher()})


class Follower(Teacher):
    """Answers with what the student gave."""

    student_layers = ("0",)

    def with_taps(self, layers: object) -> Follower:
        return self

    def __call__(
        self, batch: Batch, inputs: tuple[object, ...], student: Output | None = None
    ) -> Output:
        return Output(None if student is None else student.feature("0") + 1)


def test_a_teacher_among_several_may_read_the_student() -> None:
    both = Teachers({"a": Follower(), "b": Follower()})
    assert both.student_layers == ("0",)
    output = both(BATCH, (BATCH.inputs,), Output(None, {"0": torch.zeros(2, 3)}))
    assert torch.equal(output.logits, torch.ones(2, 3))


def test_a_part_in_train_mode_is_put_into_eval_mode_at_every_call() -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5)))
    before = state_hash(net)
    teacher = FrozenTeacher(net)
    x = torch.randn(8, 4)
    expected = teacher(BATCH, (x,)).output
    for part in (net[1], net[1][1], net[1][0], net):
        part.train()
        assert torch.equal(teacher(BATCH, (x,)).output, expected)
    assert state_hash(net) == before


def test_a_copy_of_a_teacher_is_the_same_frozen_teacher() -> None:
    net = nn.Sequential(nn.Linear(4, 3))
    both = Teachers({"a": FrozenTeacher(net), "b": NoTeacher()})
    assert copy.deepcopy(FrozenTeacher(net)).models() == {"teacher": net}
    assert copy.deepcopy({"t": both})["t"].models() == {"a": net}


def test_taps_of_several_teachers_are_removed_when_one_has_no_such_layer() -> None:
    nets = [nn.Sequential(nn.Linear(4, 3)) for _ in range(2)]
    both = Teachers({"a": FrozenTeacher(nets[0]), "b": FrozenTeacher(nets[1])})
    with pytest.raises(UserError, match="no module '7'"):
        both.with_taps(["a/0", "b/7"])
    assert not nets[0][0]._forward_hooks


def test_a_teacher_that_changes_its_inputs_is_refused() -> None:
    teacher = FrozenTeacher(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3)))
    with pytest.raises(UserError, match=r"the teacher \(Sequential\) changes its inputs in place"):
        teacher(BATCH, (torch.randn(2, 4),))
