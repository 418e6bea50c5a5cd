from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tutelage import (
    KD,
    RCKA,
    Baseline,
    Classification,
    CombinedMethod,
    Distiller,
    FitNet,
    FrozenTeacher,
    NoTeacher,
    Step,
    UserError,
)
from tutelage.core import Batch, Method
from tutelage.core.method import MethodInfo
from tutelage.engine.checks.teacher import state_hash
from tutelage.models import small_cnn

BATCH = (torch.randn(16, 8), torch.randint(3, (16,)))


def net(width: int = 6) -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 3))


def test_the_teacher_is_no_part_of_the_module() -> None:
    teacher = net(12)
    distiller = Distiller(net(), FrozenTeacher(teacher), KD(), Classification(num_classes=3))
    assert all(key.startswith("student.") for key in distiller.state_dict())
    own = {id(p) for p in distiller.parameters()}
    assert not own & {id(p) for p in teacher.parameters()}
    distiller.train()
    assert not teacher.training
    assert distiller.train() is distiller


def test_the_teacher_is_untouched_by_training() -> None:
    teacher = net(12)
    with torch.no_grad():
        teacher.train()(BATCH[0])
    before = state_hash(teacher)
    distiller = Distiller(net(), FrozenTeacher(teacher), KD(), Classification(num_classes=3))
    optimizer = torch.optim.SGD(distiller.parameters(), lr=0.1)
    for _ in range(5):
        distiller.train()
        sum(distiller(BATCH).values()).backward()
        optimizer.step()
        assert distiller.student.training
    assert state_hash(teacher) == before


def test_setup_probes_without_moving_batch_norm_statistics() -> None:
    student = net()
    method = FitNet(layer_pairs={"0": "0"})
    distiller = Distiller(student, FrozenTeacher(net(12)), method, Classification(num_classes=3))
    distiller.train()
    before = state_hash(student)
    distiller.setup(BATCH)
    assert state_hash(student) == before
    assert all(module.training for module in student.modules())
    assert sum(p.numel() for p in method.parameters()) > 0


def test_a_student_in_double_precision_trains_and_one_in_half_is_sent_to_autocast() -> None:
    def whole(dtype: torch.dtype) -> tuple[Distiller, Any]:
        networks = [small_cnn(width=width).to(dtype) for width in (4, 6)]
        method, task = FitNet({"stage3": "stage3"}), Classification(num_classes=10)
        batch = torch.rand(4, 1, 28, 28, dtype=dtype), torch.arange(4)
        return Distiller(networks[0], FrozenTeacher(networks[1]), method, task), batch

    double, batch = whole(torch.float64)
    double.setup(batch)
    assert double(batch)["fitnet/stage3"].dtype == torch.float64
    half, batch = whole(torch.bfloat16)
    with pytest.raises(UserError, match=r"weights are torch.bfloat16, but .*use autocast"):
        half.setup(batch)


def test_what_a_network_of_named_outputs_gives_is_looked_at_too() -> None:
    class Named(nn.Linear):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"logits": super().forward(x) * torch.nan}

    whole = Distiller(
        nn.Linear(8, 3), FrozenTeacher(Named(8, 3)), KD(), Classification(num_classes=3)
    )
    with pytest.raises(UserError, match="the teacher's output 'logits' holds NaN or infinity"):
        whole.setup((torch.randn(4, 8), torch.tensor([0, 1, 2, 0])))


def test_terms_are_named_and_the_task_is_weighted() -> None:
    student, batch = net(), BATCH
    task = Classification(num_classes=3)
    terms = Distiller(student, FrozenTeacher(net(12)), KD(task_weight=0.25), task).eval()(batch)
    assert list(terms) == ["task", "kd"]
    assert torch.isclose(
        terms["task"], 0.25 * nn.functional.cross_entropy(student(batch[0]), batch[1])
    )


def test_the_baseline_is_the_plain_supervised_loss() -> None:
    student = net().eval()
    terms = Distiller(student, NoTeacher(), Baseline(), Classification(num_classes=3)).eval()(BATCH)
    assert list(terms) == ["task"]
    assert torch.isclose(terms["task"], nn.functional.cross_entropy(student(BATCH[0]), BATCH[1]))


def test_combined_methods_add_up_and_rename_a_second_term_of_the_same_name() -> None:
    student, teacher, task = net().eval(), FrozenTeacher(net(12)), Classification(num_classes=3)
    both = CombinedMethod(
        [KD(temperature=2.0), KD(temperature=4.0), RCKA(layer_pairs={"0": "0"}, ramp=None)]
    )
    terms = Distiller(student, teacher, both, task).eval()(BATCH)
    assert [name for name in terms if name.startswith("kd")] == ["kd", "kd#2"]
    assert both.task_weight == KD().task_weight ** 2
    assert both.student_layers == ("0",)
    single = Distiller(student, teacher, KD(temperature=4.0), task).eval()(BATCH)
    assert torch.equal(terms["kd#2"], single["kd"])


class Hooked(Method):
    """Notes which hooks were called."""

    info = MethodInfo("", "", "")

    def __init__(self, name: str, log: list[str]) -> None:
        super().__init__()
        self.name = name
        self.log = log

    def build_student(self, student: nn.Module, teacher: object) -> nn.Module:
        self.log.append(f"{self.name} build_student")
        return nn.Sequential(student)

    def deploy(self, student: nn.Module) -> nn.Module:
        self.log.append(f"{self.name} deploy")
        return student[0]

    def forward(self, step: Step) -> dict[str, Tensor]:
        return {}


def test_combined_methods_build_in_order_and_deploy_in_reverse() -> None:
    log: list[str] = []
    both, student = CombinedMethod([Hooked("a", log), Hooked("b", log)]), net()
    built = both.build_student(student, NoTeacher())
    assert both.deploy(built) is student
    assert log == ["a build_student", "b build_student", "b deploy", "a deploy"]


def test_deploy_removes_the_taps() -> None:
    student = net()
    distiller = Distiller(
        student, FrozenTeacher(net(12)), RCKA(layer_pairs={"0": "0"}), Classification(num_classes=3)
    )
    assert distiller.deploy() is student
    assert not any(module._forward_hooks for module in student.modules())


def test_two_distillers_side_by_side_equal_one_alone() -> None:
    def run(beside: bool) -> Tensor:
        torch.manual_seed(1)
        student, teacher = net(), FrozenTeacher(net(12))
        distiller = Distiller(
            student, teacher, RCKA(layer_pairs={"0": "0"}), Classification(num_classes=3)
        )
        if beside:
            Distiller(
                net(5),
                teacher,
                FitNet(layer_pairs={"2": "2", "0": "0"}),
                Classification(num_classes=3),
            ).step(BATCH)
        return torch.stack(list(distiller(BATCH, progress=1.0).values()))

    assert torch.equal(run(beside=False), run(beside=True))


class Trying(Method):
    """Counts its forward passes, and says what it is given."""

    info = MethodInfo("", "", "")

    def __init__(self, uses_teacher: bool = True, has_term: bool = True) -> None:
        super().__init__()
        self.uses_teacher = uses_teacher
        self.has_term = has_term
        self.log: list[str] = []

    def setup(self, example: Step, teacher: object) -> None:
        self.log.append("setup")
        self.head = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))

    def on_step_start(self, progress: float) -> None:
        self.log.append(f"start {progress}")

    def forward(self, step: Step) -> dict[str, Tensor]:
        self.log.append("train" if self.training else "eval")
        return {"term": self.head(step.student.logits).sum()} if self.has_term else {}


def test_setup_tries_the_method_once_in_eval_mode() -> None:
    method = Trying()
    distiller = Distiller(net(), FrozenTeacher(net(12)), method, Classification(num_classes=3))
    distiller.setup(BATCH)
    assert method.log == ["start 1.0", "setup", "eval"]
    assert method.training
    assert all(module.training for module in method.head)
    assert int(method.head[1].num_batches_tracked) == 0
    assert list(distiller(BATCH, progress=0.5)) == ["task", "term"]
    assert method.log[3:] == ["start 0.5", "train"]


def test_a_method_of_the_teacher_without_a_term_is_refused() -> None:
    task = Classification(num_classes=3)
    for method in (Trying(has_term=False), CombinedMethod([KD(), Trying(has_term=False)])):
        with pytest.raises(UserError, match="Trying has no term left with these weights"):
            Distiller(net(), FrozenTeacher(net()), method, task).setup(BATCH)
    Distiller(net(), NoTeacher(), Trying(uses_teacher=False, has_term=False), task).setup(BATCH)
    Distiller(net(), NoTeacher(), Baseline(), task).setup(BATCH)


def test_a_method_that_does_not_use_the_teacher_does_not_run_it() -> None:
    teacher = net(12)
    teacher.register_forward_hook(lambda *_: pytest.fail("the teacher ran"))
    distiller = Distiller(net(), FrozenTeacher(teacher), Baseline(), Classification(num_classes=3))
    assert distiller.step(BATCH).teacher.output is None


def test_a_method_sees_a_batch_and_the_task_loss_of_any_output() -> None:
    distiller = Distiller(net(), NoTeacher(), Baseline(), Classification(num_classes=3)).eval()
    step = distiller.step(BATCH)
    assert isinstance(step.batch, Batch)
    assert step.batch.inputs is BATCH[0]
    assert step.progress == 1.0
    other = torch.randn(16, 3)
    expected = nn.functional.cross_entropy(other, BATCH[1])
    assert torch.isclose(step.task_loss(other), expected)


def test_a_layer_that_is_missing_asks_for_the_student_that_the_method_builds() -> None:
    method = FitNet(layer_pairs={"head": "0"})
    with pytest.raises(UserError, match=r"no module 'head' .*method.build_student\(student, teac"):
        Distiller(net(), FrozenTeacher(net()), method, Classification(num_classes=3))


def test_non_finite_features_are_named() -> None:
    student = net()
    nn.init.constant_(student[0].bias, torch.inf)
    method = FitNet(layer_pairs={"0": "0"})
    distiller = Distiller(student, FrozenTeacher(net()), method, Classification(num_classes=3))
    with pytest.raises(UserError, match="the student's output holds NaN or infinity"):
        distiller.setup(BATCH)
    student = nn.Sequential(student[0], nn.Threshold(torch.inf, 1.0), student[3])
    method = FitNet(layer_pairs={"0": "0"})
    distiller = Distiller(student, FrozenTeacher(net()), method, Classification(num_classes=3))
    with pytest.raises(UserError, match="the student's feature '0' holds NaN or infinity"):
        distiller.setup(BATCH)


class Wrapping(Method):
    """Evaluates and ships the student in a wrapper of its own."""

    info = MethodInfo("", "", "")

    def __init__(self, wrapper: nn.Module) -> None:
        super().__init__()
        self.uses_teacher = False
        self.wrapper = wrapper

    def eval_model(self, student: nn.Module) -> nn.Module:
        return nn.Sequential(student, self.wrapper)

    def build_data(self, train: list[str], teacher: object) -> list[str]:
        return [*train, type(self.wrapper).__name__]

    def forward(self, step: Step) -> dict[str, Tensor]:
        return {}


def test_combined_methods_change_the_data_in_order_and_evaluate_in_reverse() -> None:
    both, student = CombinedMethod([Wrapping(nn.ReLU()), Wrapping(nn.Tanh())]), net()
    model = both.eval_model(student)
    assert isinstance(model, nn.Sequential)
    assert isinstance(model[1], nn.ReLU)
    assert isinstance(model[0][1], nn.Tanh)
    assert model[0][0] is student
    assert both.build_data(["train"], NoTeacher()) == ["train", "ReLU", "Tanh"]
    assert not both.uses_teacher
    assert list(both) == list(both.methods)
    assert CombinedMethod([KD(), Baseline()]).uses_teacher
    assert CombinedMethod([KD()], task_weight=0.3).task_weight == 0.3
    with pytest.raises(UserError, match="at least one method, got an empty list"):
        CombinedMethod([])
