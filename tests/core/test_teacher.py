from __future__ import annotations

import pytest
import torch
from torch import nn

from tutelage import Absent, Network, UserError
from tutelage.engine.preflight import buffers_hash


def test_a_network_teacher_is_frozen_and_in_eval_mode() -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    before = buffers_hash(net)
    teacher = Network(net)
    net.train()  # somebody flips it back: the next call puts it right
    x = torch.randn(8, 4)
    first, second = teacher(None, (x,)).out, teacher(None, (x,)).out
    assert torch.equal(first, second)
    assert buffers_hash(net) == before
    assert not first.requires_grad


def test_its_outputs_can_be_saved_for_backward() -> None:
    teacher, student = Network(nn.Linear(4, 3)), nn.Linear(4, 3)
    x = torch.randn(8, 4)
    (student(x) * teacher(None, (x,)).out).sum().backward()
    assert student.weight.grad is not None


def test_two_tapped_teachers_of_one_network_do_not_disturb_each_other() -> None:
    teacher = Network(nn.Sequential(nn.Linear(4, 3), nn.ReLU()))
    first, second = teacher.tapped(["0"]), teacher.tapped(["1"])
    inputs = (torch.ones(1, 4),)
    assert [list(t(None, inputs).taps) for t in (first, second, teacher)] == [["0"], ["1"], []]


def test_absent_refuses_taps_and_modules() -> None:
    with pytest.raises(UserError, match=r"taps \['layer1'\] of a teacher, but there is none"):
        Absent().tapped(["layer1"])
    with pytest.raises(UserError, match="needs the teacher's module 'fc'"):
        Absent().module("fc")
    assert Absent()(None, ()).out is None


def test_a_module_of_the_teacher_is_found_by_name() -> None:
    net = nn.Sequential(nn.Linear(4, 3))
    assert Network(net).module("0") is net[0]
    with pytest.raises(UserError, match="no module 'fc'"):
        Network(net).module("fc")
