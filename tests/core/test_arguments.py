"""Arguments of another kind than is needed, and batches that do not fit: one sentence each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from tutelage import (
    DIST,
    KD,
    RCKA,
    Baseline,
    Batch,
    Classification,
    CombinedMethod,
    Distiller,
    FeatureTaps,
    FrozenTeacher,
    Method,
    MethodInfo,
    Step,
    Teachers,
    UserError,
)
from tutelage.tasks import Detection

X, Y = torch.randn(16, 8), torch.randint(3, (16,))
TASK = Classification(num_classes=3)


def net(width: int = 6) -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 3))


def make(
    student: Any = None, teacher: Any = None, method: Any = None, task: Any = None
) -> Distiller:
    """Return a distiller of small parts, some of which are given."""
    return Distiller(
        net() if student is None else student,
        FrozenTeacher(net(12)) if teacher is None else teacher,
        KD() if method is None else method,
        TASK if task is None else task,
    )


PARTS: dict[str, tuple[dict[str, Any], str]] = {
    "bare teacher": ({"teacher": net()}, r"bare network \(Sequential\); give FrozenTeacher\(net"),
    "class of a teacher": ({"teacher": FrozenTeacher}, "is the class FrozenTeacher, not an object"),
    "teachers in a dict": ({"teacher": {"a": net()}}, "the teacher must be a Teacher.*got a dict"),
    "name of a teacher": ({"teacher": "resnet50"}, "got the text 'resnet50'"),
    "class of a student": ({"student": nn.Linear}, "the student is the class Linear"),
    "teacher as student": ({"student": FrozenTeacher(net())}, "got a FrozenTeacher"),
    "class of a method": ({"method": KD}, r"is the class KD, .* as in KD\(\)"),
    "methods in a list": ({"method": [KD(), RCKA()]}, r"as in CombinedMethod\(\[KD"),
    "name of a method": ({"method": "kd"}, "the method must be a Method.*got the text 'kd'"),
    "loss as a method": ({"method": nn.KLDivLoss()}, "such as KD.*got a KLDivLoss"),
    "method and teacher swapped": (
        {"method": FrozenTeacher(net()), "teacher": KD()},
        "the method must be a Method.*got a FrozenTeacher",
    ),
    "class of a task": ({"task": Classification}, "the task is the class Classification"),
    "loss as a task": ({"task": nn.CrossEntropyLoss()}, "got a CrossEntropyLoss"),
}


@pytest.mark.parametrize("name", PARTS)
def test_a_part_of_another_kind_is_named(name: str) -> None:
    parts, says = PARTS[name]
    with pytest.raises(UserError, match=says):
        make(**parts)


CALLS: dict[str, tuple[Callable[[], Any], str]] = {
    "one by one": (lambda: CombinedMethod(KD(), RCKA(), DIST()), r"CombinedMethod\(\[KD\(\), RCKA"),
    "one alone": (lambda: CombinedMethod(KD()), "takes one list of methods"),
    "classes": (lambda: CombinedMethod([KD]), "in CombinedMethod is the class KD"),
    "losses": (lambda: CombinedMethod([nn.MSELoss()]), "must be a Method.*got a MSELoss"),
    "a dict": (lambda: CombinedMethod({"kd": KD()}), "takes a list of methods.*got a dict"),
    "a weight": (lambda: CombinedMethod([KD()], task_weight=-1.0), "finite number from 0 on"),
    "a network": (lambda: FrozenTeacher("net"), "the teacher's network must be a Module"),
    "a list": (lambda: Teachers([FrozenTeacher(net())]), "Teachers takes a mapping of names"),
    "bare": (lambda: Teachers({"a": net()}), "the teacher 'a' is a bare network"),
    "a number": (lambda: Teachers({1: FrozenTeacher(net())}), "name is text, got 1"),
    "one layer": (lambda: FeatureTaps(net(), "stage1"), r"a list of names, such as \['stage1'\]"),
    "a module": (lambda: FeatureTaps(net(), [nn.ReLU()]), "as in named_modules.., got a ReLU"),
    "a tensor": (lambda: Batch(X), r"takes a mapping of fields, got a Tensor; write Batch\("),
    "nothing": (lambda: Batch.of({}), "a batch needs inputs"),
    "labels alone": (lambda: Batch.of({"labels": Y}), r"a mapping of \['labels'\] alone"),
    "empty": (lambda: Batch.of([]), "got an empty list"),
    "text": (lambda: Batch.of("images"), "got a str"),
}


@pytest.mark.parametrize("name", CALLS)
def test_an_argument_of_another_kind_is_named(name: str) -> None:
    call, says = CALLS[name]
    with pytest.raises(UserError, match=says):
        call()


class Given(Method):
    """Returns what a function makes of the step."""

    info = MethodInfo("", "", "")

    def __init__(self, give: Callable[[Step], Any]) -> None:
        super().__init__()
        self.give = give

    def forward(self, step: Step) -> Any:
        return self.give(step)


TERMS: dict[str, tuple[Callable[[Step], Any], str]] = {
    "a tensor": (lambda step: step.student.logits.sum(), "a dict of named terms.*got a Tensor"),
    "nothing": (lambda step: None, "a dict of named terms.*got None"),
    "a number": (lambda step: 1.0, "a dict of named terms.*got 1.0"),
    "pairs": (lambda step: [("a", step.student.logits.sum())], "got a list"),
    "a vector": (lambda step: {"a": step.student.logits[0]}, r"'a' of Given has the shape \(3,\)"),
    "a number as term": (lambda step: {"a": 1.0}, "'a' of Given must be a tensor.*got 1.0"),
    "None as term": (lambda step: {"a": None}, "'a' of Given must be a tensor.*got None"),
    "an integer": (lambda step: {"a": torch.tensor(1)}, "torch.int64, which has no gradient"),
    "a number as name": (lambda step: {1: step.student.logits.sum()}, "name its terms by text"),
    "the task's name": (lambda step: {"task": step.student.logits.sum()}, "named 'task', which is"),
}


@pytest.mark.parametrize("name", TERMS)
def test_what_is_no_named_scalar_is_refused(name: str) -> None:
    give, says = TERMS[name]
    for method in (Given(give), CombinedMethod([KD(), Given(give)])):
        distiller = make(method=method)
        with pytest.raises(UserError, match=says):
            distiller.setup((X, Y))
    with pytest.raises(UserError, match=says):  # without `setup`, in the first step
        make(method=Given(give))((X, Y))


def test_a_method_that_forgets_its_base_or_misnames_its_layers_is_told() -> None:
    class Forgetful(Given):
        def __init__(self) -> None:
            self.give = lambda step: {}

    with pytest.raises(UserError, match=r"Forgetful.__init__ does not call super\(\).__init__"):
        make(method=Forgetful())
    method = Given(lambda step: {})
    method.student_layers = "0"
    with pytest.raises(UserError, match="student_layers of Given must be a list"):
        make(method=method)
    method = Given(lambda step: {})
    method.task_weight = None  # type: ignore[assignment]
    with pytest.raises(UserError, match="task_weight of Given must be a finite number"):
        make(method=method)


BATCHES: dict[str, tuple[Any, str]] = {
    "labels in a list": ((X, Y.tolist()), r"labels of the batch are a list .*torch.as_tensor\("),
    "labels of NumPy": ((X, Y.numpy()), "labels of the batch are a ndarray"),
    "short labels": ((X, Y.int()), r"labels are torch.int32, but .*labels.long\(\)"),
    "labels as numbers": ((X, Y.float()), "labels are torch.float32, but classes are int64"),
    "inputs of NumPy": ((X.numpy(), Y), "the student's inputs are a ndarray; make them tensors"),
    "inputs in lists": ((X.tolist(), Y), "the student's inputs are a list; make them tensors"),
    "double inputs": ((X.double(), Y), "inputs are torch.float64, but its weights torch.float32"),
    "whole inputs": ((X.long(), Y), r"are torch.int64, .*use inputs.to\(torch.float32\)"),
    "other names": ({"x": X, "labels": Y}, r"cannot take a batch of the fields \['x'\]"),
}


@pytest.mark.parametrize("name", BATCHES)
def test_a_batch_that_does_not_fit_is_named(name: str) -> None:
    batch, says = BATCHES[name]
    with pytest.raises(UserError, match=says):
        make()(batch)


def test_a_teacher_of_another_precision_is_named() -> None:
    distiller = make(teacher=FrozenTeacher(net().double()))
    with pytest.raises(UserError, match=r"the teacher's inputs are torch.float32, .*float64"):
        distiller((X, Y))


def test_errors_of_a_network_itself_stay_as_they_are() -> None:
    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("out of order")

    with pytest.raises(RuntimeError, match="out of order"):
        make(student=Broken())((X, Y))


def test_a_task_of_another_kind_of_data_is_named() -> None:
    with pytest.raises(UserError, match=r"task \(Detection\) cannot make inputs .*belong together"):
        make(method=Baseline(), task=Detection(num_classes=3)).setup((X, Y))


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_scripted_networks_run_but_have_no_taps_and_lazy_teachers_wait() -> None:
    scripted = torch.jit.script(net(12))
    terms = make(teacher=FrozenTeacher(scripted))((X, Y))
    assert list(terms) == ["task", "kd"]
    assert not any(p.requires_grad for p in scripted.parameters())
    for parts in ({"teacher": FrozenTeacher(scripted)}, {"student": torch.jit.script(net())}):
        with pytest.raises(UserError, match="'1' is a scripted module, which takes no hooks"):
            make(**parts, method=RCKA({"1": "1"}))
    lazy = nn.Sequential(nn.LazyLinear(8), nn.LazyLinear(3))
    with pytest.raises(
        UserError, match=r"the teacher \(Sequential\) is lazy: its parameter '0.weig"
    ):
        FrozenTeacher(lazy)
    lazy(X)
    make(teacher=FrozenTeacher(lazy)).setup((X, Y))


def test_outputs_without_logits_say_of_which_network() -> None:
    class Named(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"embedding": x}

    batch = torch.randn(16, 8)
    distiller = make(student=net(), teacher=FrozenTeacher(Named()))
    with pytest.raises(UserError, match="the teacher gives a dict without logits"):
        distiller.method(distiller.step(batch))
    distiller = make(student=Named())
    with pytest.raises(UserError, match="the student gives a dict without logits"):
        distiller.method(distiller.step(batch))
