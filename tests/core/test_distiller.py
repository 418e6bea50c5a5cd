from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tutelage
from tutelage import KD, RCKA, Absent, Alone, Classification, Distiller, Mimic, Network, Step, Together, UserError
from tutelage.core import Method
from tutelage.core.method import Card
from tutelage.engine.preflight import buffers_hash

BATCH = (torch.randn(16, 8), torch.randint(3, (16,)))


def net(width: int = 6) -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 3))


def test_the_teacher_is_no_part_of_the_module() -> None:
    teacher = net(12)
    distiller = Distiller(net(), Network(teacher), KD(), Classification(num_classes=3))
    assert all(key.startswith("student.") for key in distiller.state_dict())
    mine = {id(p) for p in distiller.parameters()}
    assert not mine & {id(p) for p in teacher.parameters()}
    distiller.train()
    assert not teacher.training
    assert distiller.train() is distiller


def test_the_teacher_is_untouched_by_training() -> None:
    teacher = net(12)
    with torch.no_grad():
        teacher.train()(BATCH[0])
    before = buffers_hash(teacher)
    distiller = Distiller(net(), Network(teacher), KD(), Classification(num_classes=3))
    optimizer = torch.optim.SGD(distiller.parameters(), lr=0.1)
    for _ in range(5):
        distiller.train()
        sum(distiller(BATCH).values()).backward()
        optimizer.step()
        assert distiller.student.training
    assert buffers_hash(teacher) == before


def test_setup_probes_without_moving_batch_norm_statistics() -> None:
    student = net()
    method = Mimic(pairs={"0": "0"})
    distiller = Distiller(student, Network(net(12)), method, Classification(num_classes=3))
    distiller.train()
    before = buffers_hash(student)
    distiller.setup(BATCH)
    assert buffers_hash(student) == before
    assert all(module.training for module in student.modules())
    assert sum(p.numel() for p in method.parameters()) > 0


def test_a_student_in_double_precision_trains_and_one_in_half_is_told_of_autocast() -> None:
    def whole(dtype: torch.dtype) -> tuple[Distiller, Any]:
        networks = [tutelage.models.small_cnn(width=width).to(dtype) for width in (4, 6)]
        method, task = Mimic({"stage3": "stage3"}), Classification(num_classes=10)
        batch = torch.rand(4, 1, 28, 28, dtype=dtype), torch.arange(4)
        return Distiller(networks[0], Network(networks[1]), method, task), batch

    double, batch = whole(torch.float64)
    double.setup(batch)
    assert double(batch)["mimic.stage3"].dtype == torch.float64
    half, batch = whole(torch.bfloat16)
    with pytest.raises(UserError, match=r"weights are torch.bfloat16, but .*use autocast"):
        half.setup(batch)


def test_what_a_network_of_named_outputs_gives_is_looked_at_too() -> None:
    class Named(nn.Linear):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"logits": super().forward(x) * torch.nan}

    whole = Distiller(nn.Linear(8, 3), Network(Named(8, 3)), KD(), Classification(num_classes=3))
    with pytest.raises(UserError, match="the teacher's output 'logits' holds NaN or infinity"):
        whole.setup((torch.randn(4, 8), torch.tensor([0, 1, 2, 0])))


def test_terms_are_named_and_the_task_is_weighted() -> None:
    student, batch = net(), BATCH
    task = Classification(num_classes=3)
    terms = Distiller(student, Network(net(12)), KD(task_weight=0.25), task).eval()(batch)
    assert list(terms) == ["task", "kd"]
    assert torch.isclose(terms["task"], 0.25 * nn.functional.cross_entropy(student(batch[0]), batch[1]))


def test_alone_is_the_plain_supervised_loss() -> None:
    student = net().eval()
    terms = Distiller(student, Absent(), Alone(), Classification(num_classes=3)).eval()(BATCH)
    assert list(terms) == ["task"]
    assert torch.isclose(terms["task"], nn.functional.cross_entropy(student(BATCH[0]), BATCH[1]))


def test_together_adds_up_and_renames_a_second_term_of_the_same_name() -> None:
    student, teacher, task = net().eval(), Network(net(12)), Classification(num_classes=3)
    both = Together([KD(temperature=2.0), KD(temperature=4.0), RCKA(pairs={"0": "0"}, ramp=None)])
    terms = Distiller(student, teacher, both, task).eval()(BATCH)
    assert [name for name in terms if name.startswith("kd")] == ["kd", "kd#2"]
    assert both.task_weight == KD().task_weight ** 2
    assert both.student_taps == ("0",)
    single = Distiller(student, teacher, KD(temperature=4.0), task).eval()(BATCH)
    assert torch.equal(terms["kd#2"], single["kd"])


class Hooked(Method):
    """Notes which hooks were called."""

    card = Card("", "", "")

    def __init__(self, name: str, log: list[str]) -> None:
        super().__init__()
        self.name, self.log = name, log

    def grow(self, student: nn.Module, teacher: object) -> nn.Module:
        self.log.append(f"{self.name} grow")
        return nn.Sequential(student)

    def ship(self, student: nn.Module) -> nn.Module:
        self.log.append(f"{self.name} ship")
        return student[0]

    def forward(self, step: Step) -> dict[str, Tensor]:
        return {}


def test_together_grows_in_order_and_ships_in_reverse() -> None:
    log: list[str] = []
    both, student = Together([Hooked("a", log), Hooked("b", log)]), net()
    grown = both.grow(student, Absent())
    assert both.ship(grown) is student
    assert log == ["a grow", "b grow", "b ship", "a ship"]


def test_ship_takes_the_taps_off() -> None:
    student = net()
    distiller = Distiller(student, Network(net(12)), RCKA(pairs={"0": "0"}), Classification(num_classes=3))
    assert distiller.ship() is student
    assert not any(module._forward_hooks for module in student.modules())


def test_two_distillers_side_by_side_equal_one_alone() -> None:
    def run(beside: bool) -> Tensor:
        torch.manual_seed(1)
        student, teacher = net(), Network(net(12))
        distiller = Distiller(student, teacher, RCKA(pairs={"0": "0"}), Classification(num_classes=3))
        if beside:
            Distiller(net(5), teacher, Mimic(pairs={"2": "2", "0": "0"}), Classification(num_classes=3)).step(BATCH)
        return torch.stack(list(distiller(BATCH, progress=1.0).values()))

    assert torch.equal(run(beside=False), run(beside=True))
