from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint

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
    ResidualKD,
    Step,
    UserError,
)
from tutelage.core import Batch, Method, Teachers
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

    def on_train_start(self) -> None:
        self.log.append("train start")

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


def test_combined_methods_learn_that_training_starts() -> None:
    methods = [Trying(), Trying()]
    CombinedMethod(methods).on_train_start()
    assert [method.log for method in methods] == [["train start"], ["train start"]]


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
    teacher = FrozenTeacher(net())
    method: Method = ResidualKD({"2": "0"})
    with pytest.raises(
        UserError, match=r"no module 'student.2' .*method.build_student\(student, te"
    ):
        Distiller(net(), teacher, method, Classification(num_classes=3))
    method = FitNet(layer_pairs={"head": "0"})
    with pytest.raises(UserError, match=r"a layer of the student: no module 'head' .*'3'\]$"):
        Distiller(net(), teacher, method, Classification(num_classes=3))
    method = FitNet(layer_pairs={"0": "head"})
    with pytest.raises(UserError, match="a layer of the teacher: no module 'head'"):
        Distiller(net(), teacher, method, Classification(num_classes=3))


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


def whole(student: nn.Module, teacher: nn.Module, method: Method | None = None) -> Distiller:
    method = RCKA(layer_pairs={"0": "0"}, ramp=None) if method is None else method
    return Distiller(student, FrozenTeacher(teacher), method, Classification(num_classes=3))


def hooks(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in network.modules())


def test_a_student_that_is_set_is_what_runs() -> None:
    first = net()
    distiller = whole(first, net(12))
    distiller.setup(BATCH)
    distiller.student = copy.deepcopy(first)
    with torch.no_grad():
        for parameter in distiller.student.parameters():
            parameter.mul_(0.5)
    expected = whole(copy.deepcopy(distiller.student), distiller.teacher.models()["teacher"])
    assert torch.equal(distiller(BATCH)["rcka/0"], expected(BATCH)["rcka/0"])
    sum(distiller(BATCH).values()).backward()
    assert all(parameter.grad is not None for parameter in distiller.student.parameters())
    assert all(parameter.grad is None for parameter in first.parameters())
    assert hooks(first) == 0
    assert distiller.deploy() is distiller.student


def test_a_student_that_does_not_fit_cannot_be_set() -> None:
    first, teacher = net(), net(12)
    distiller = whole(first, teacher)
    with pytest.raises(UserError, match="no module '0'"):
        distiller.student = nn.Linear(8, 3)
    with pytest.raises(UserError, match="is the teacher's"):
        distiller.student = nn.Sequential(teacher[0], nn.Linear(12, 3))
    assert distiller.student is first
    built = whole(first, teacher, Hooked("a", []))
    with pytest.raises(UserError, match="cannot be set: Hooked has built it and trains it; make"):
        built.student = net()


def test_a_compiled_student_can_be_set() -> None:
    torch._dynamo.reset()
    distiller = whole(net(), net(12))
    before = distiller(BATCH)
    distiller.student = torch.compile(distiller.student, backend="eager")
    torch.testing.assert_close(distiller(BATCH)["rcka/0"], before["rcka/0"])


def sharing(how: str, teacher: nn.Sequential) -> nn.Module:
    student = net(12)
    if how == "network":
        return teacher
    if how == "module":
        student[0] = teacher[0]
    elif how == "dropout":
        student[2] = teacher[2]
    elif how == "parameter":
        student[0].weight = teacher[0].weight
    elif how == "data":
        student[0].weight = nn.Parameter(teacher[0].weight.detach())
    elif how == "part":
        student[3] = nn.Linear(4, 3)
        student[3].weight.data = teacher[3].weight.detach()[:, 4:8]
    elif how == "statistics":
        student[1].running_mean = teacher[1].running_mean
    return student


@pytest.mark.parametrize(
    "how", ["network", "module", "dropout", "parameter", "data", "part", "statistics"]
)
def test_a_student_shares_nothing_with_its_teacher(how: str) -> None:
    teacher = net(12)
    teacher[2] = nn.Dropout()
    with pytest.raises(UserError, match=r"the student's .* is the teacher's .*copy\.deepcopy"):
        whole(sharing(how, teacher), teacher)
    both = Teachers({"a": FrozenTeacher(net(12)), "b": FrozenTeacher(teacher)})
    with pytest.raises(UserError, match="is the teacher 'b''s"):
        Distiller(sharing(how, teacher), both, Baseline(), Classification(num_classes=3))


def test_one_activation_may_be_shared() -> None:
    teacher, student = net(12), net()
    student[2] = teacher[2]
    assert set(whole(student, teacher)(BATCH)) > {"task", "rcka/0"}


def test_the_copy_of_a_frozen_teacher_is_no_student() -> None:
    teacher = FrozenTeacher(net())
    student = copy.deepcopy(teacher.model)
    distiller = Distiller(student, teacher, KD(), Classification(num_classes=3))
    with pytest.raises(UserError, match=r"has no trainable parameters; call student.requires_grad"):
        distiller.setup(BATCH)
    student.requires_grad_(True)
    distiller.setup(BATCH)


class Recurrent(nn.Module):
    """Reads 12 moments of 4 numbers of each item."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.lstm = nn.LSTM(4, 6, batch_first=batch_first)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.lstm(x if self.batch_first else x.transpose(0, 1))[0]
        return self.head(hidden.mean(1 if self.batch_first else 0))


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_features_with_time_first_are_refused(role: str) -> None:
    networks = {name: Recurrent(batch_first=name != role) for name in ("student", "teacher")}
    method = RCKA(layer_pairs={"lstm[0]": "lstm[0]"})
    distiller = whole(networks["student"], networks["teacher"], method)
    batch = (torch.randn(16, 12, 4), torch.randint(3, (16,)))
    message = rf"the {role}'s feature 'lstm\[0\]' has the shape \(12, 16, 6\), but .* 16 items: "
    for call in (distiller.setup, distiller):
        with pytest.raises(UserError, match=message + r".*batch_first=True"):
            call(batch)
    right = whole(Recurrent(True), Recurrent(True), method)
    right.setup(batch)


def test_inputs_and_logits_with_time_first_are_told_from_items() -> None:
    labels = torch.randint(3, (16,))
    distiller = whole(Recurrent(True), Recurrent(True), KD())
    distiller.teacher.model.forward = lambda x: torch.zeros(12, 16, 3)
    with pytest.raises(UserError, match=r"the teacher's output has the shape \(12, 16, 3\)"):
        distiller.setup((torch.randn(16, 12, 4), labels))
    sequences = torch.randn(12, 16, 4)  # time first as the data has it
    student, teacher = Recurrent(True), Recurrent(True)
    for network in (student, teacher):
        network.head.register_forward_hook(lambda module, args, output: torch.zeros(16, 3))
    distiller = whole(student, teacher, RCKA(layer_pairs={"lstm[0]": "lstm[0]"}))
    with pytest.raises(UserError, match=r"has the shape \(12, 16, 6\), but the batch has 16 items"):
        distiller.setup((sequences, labels))


def test_two_views_of_each_item_are_rows() -> None:
    class TwoViews(Classification):
        def inputs(self, batch: Batch) -> tuple[Any, ...]:
            return (torch.cat([batch.inputs, batch.inputs]),)

        def loss(self, output: Any, batch: Batch) -> Tensor:
            return output.square().mean()

    method = FitNet(layer_pairs={"0": "0"})
    distiller = Distiller(net(), FrozenTeacher(net(12)), method, TwoViews(num_classes=3))
    distiller.setup(BATCH)
    assert set(distiller(BATCH)) == {"task", "fitnet/0"}


def test_a_student_that_changes_the_inputs_is_refused_beside_a_teacher() -> None:
    student = nn.Sequential(nn.ReLU(inplace=True), *net())
    with pytest.raises(UserError, match="the student changes its inputs in place, and what runs"):
        whole(student, net(12), KD())(BATCH)


@pytest.mark.parametrize("inplace", [False, True])
def test_an_activation_in_place_changes_no_term(inplace: bool) -> None:
    def terms(inplace: bool) -> dict[str, Tensor]:
        torch.manual_seed(2)
        networks = [nn.Sequential(*net(width)) for width in (6, 12)]
        for network in networks:
            network[2] = nn.ReLU(inplace=inplace)
        distiller = whole(*networks, RCKA(layer_pairs={"1": "1"}, ramp=None))
        distiller(BATCH)
        return distiller(BATCH)

    torch.testing.assert_close(terms(inplace), terms(False), rtol=0, atol=0)


def test_the_hooks_of_student_and_teacher_go_with_the_distiller() -> None:
    teacher, student = net(12), net()
    for _ in range(3):
        distiller = whole(student, teacher)
        distiller.setup(BATCH)
        assert hooks(teacher) == hooks(student) == 1
        distiller.deploy()
        assert hooks(teacher) == hooks(student) == 0
    distiller = whole(student, teacher)
    del distiller
    assert hooks(teacher) == hooks(student) == 0
    for layer_pairs in ({"typo": "0"}, {"0": "typo"}):
        try:
            whole(student, teacher, RCKA(layer_pairs=layer_pairs))
        except UserError:  # while its traceback is alive
            assert hooks(teacher) == hooks(student) == 0


def test_a_copy_of_a_distiller_shares_the_teacher_and_has_taps_of_its_own() -> None:
    teacher = net(12)
    distiller = whole(net(), teacher)
    distiller.setup(BATCH)
    expected = distiller(BATCH)
    for copied in (copy.deepcopy(distiller), AveragedModel(distiller).module):
        assert copied.teacher.models()["teacher"] is teacher
        torch.testing.assert_close(copied(BATCH), expected)
        with torch.no_grad():
            copied.student[0].weight.mul_(-0.5)
        assert copied(BATCH)["rcka/0"] != expected["rcka/0"]
        assert hooks(copied.deploy()) == 0
    torch.testing.assert_close(distiller(BATCH)["rcka/0"], expected["rcka/0"])
    average = AveragedModel(distiller.student)
    assert hooks(average) == 0


class Checkpointed(nn.Module):
    """Runs its middle under activation checkpointing."""

    def __init__(self, use_reentrant: bool | None) -> None:
        super().__init__()
        self.stem = nn.Linear(8, 6)
        self.block = nn.Sequential(nn.Linear(6, 6), nn.ReLU(inplace=True))
        self.head = nn.Linear(6, 3)
        self.use_reentrant = use_reentrant

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        if self.use_reentrant is None or not self.training:
            return self.head(self.block(x))
        return self.head(checkpoint(self.block, x, use_reentrant=self.use_reentrant))


def test_checkpointing_keeps_the_gradients_of_terms_or_is_refused() -> None:
    def gradient(use_reentrant: bool | None) -> Tensor:
        torch.manual_seed(3)
        student, teacher = Checkpointed(use_reentrant), Checkpointed(None)
        distiller = whole(student, teacher, RCKA(layer_pairs={"block.0": "block.0"}, ramp=None))
        distiller.setup(BATCH)
        for _ in range(2):
            student.zero_grad()
            distiller(BATCH)["rcka/block.0"].backward()
        return student.stem.weight.grad

    torch.testing.assert_close(gradient(False), gradient(None))
    with pytest.raises(UserError, match=r"layer 'block.0' ran without gradients, as in reentrant"):
        gradient(True)


def test_a_term_on_a_frozen_layer_is_refused() -> None:
    student = net()
    student[0].requires_grad_(False)
    distiller = whole(student, net(12))
    distiller.setup(BATCH)
    with pytest.raises(UserError, match="the student's layer '0' is detached or frozen"):
        distiller(BATCH)
    with torch.no_grad():
        distiller(BATCH)


def test_what_is_shared_afterwards_is_seen_by_setup() -> None:
    student = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    teacher = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    distiller = Distiller(student, FrozenTeacher(teacher), KD(), Classification(3))
    student[1] = teacher[1]
    with pytest.raises(UserError, match="the student's module '1' is the teacher's module '1'"):
        distiller.setup((torch.randn(8, 4), torch.randint(3, (8,))))
