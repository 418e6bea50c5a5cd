"""Where the teacher's outputs come from: one frozen network, several, a cache, or nowhere.

A teacher is never a registered submodule: it is not in `state_dict`, not in `parameters()`, not
flipped by `.train()` and not wrapped by DDP. It runs in eval mode under `no_grad`; not under
`inference_mode`, since relational losses save its tensors for backward.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.core._arguments import (
    blame_inputs,
    check_initialized,
    check_kind,
    check_layer_names,
    check_teacher,
    check_teacher_name,
    shown_kind,
)
from tutelage.core._checks import refuse_changed_inputs, versions_of
from tutelage.core.batch import Batch, first_tensor
from tutelage.core.output import Output
from tutelage.core.taps import FeatureTaps, find_module
from tutelage.errors import UserError, near_misses


class Teacher(ABC):
    """Anything that answers a batch with an `Output`.

    Attributes:
        student_layers: addresses of student outputs that it needs before it can answer; they are
            in the `student` that it is called with.
        other_rows: addresses of layers, in both networks, whose rows are not the items of the
            batch, such as a detector's proposals.
    """

    student_layers: Sequence[str] = ()
    other_rows: Sequence[str] = ()

    @abstractmethod
    def with_taps(self, layers: Sequence[str]) -> Teacher:
        """Return this teacher, recording these layers; the original stays as it was."""

    @abstractmethod
    def __call__(
        self, batch: Batch, inputs: tuple[Any, ...], student: Output | None = None
    ) -> Output:
        """Return the teacher's outputs for a batch.

        Args:
            batch: the whole batch; a cache looks its ids up.
            inputs: the positional arguments of a network's forward.
            student: the student's outputs for the batch; None in evaluation.
        """

    def models(self) -> Mapping[str, nn.Module]:
        """Return the networks behind the outputs by name; none by default, as for a file."""
        return {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Teacher:
        """Return the teacher itself: it is frozen, so a copy of what uses it can share it."""
        memo[id(self)] = self
        return self

    def module(self, name: str) -> nn.Module:
        """Return a submodule of the teacher, such as its classifier.

        Args:
            name: of the submodule; with several networks `teacher/name`.

        Raises:
            UserError: If there is no network at hand, or no such submodule in it.
        """
        models = self.models()
        if not models:
            raise UserError(
                f"the method needs the teacher's module {name!r}, but there is no teacher network; "
                "give the recipe one"
            )
        if len(models) == 1:
            return find_module(next(iter(models.values())), name)
        teacher, _, rest = name.partition("/")
        if teacher not in models:
            raise UserError(
                f"{name!r} names none of the teachers; write 'teacher/module'"
                f"{near_misses(teacher, models)}"
            )
        return find_module(models[teacher], rest)


class FrozenTeacher(Teacher):
    """A frozen network as the teacher.

    The network is put into eval mode, its parameters stop requiring gradients, and it follows its
    inputs to their device.

    >>> teacher = FrozenTeacher(nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2)))
    >>> teacher.model.training, any(p.requires_grad for p in teacher.model.parameters())
    (False, False)

    Args:
        model: any module.
        layers: addresses of the outputs to record (a `Distiller` asks for its method's).

    Raises:
        UserError: If the model is no network, has parameters without a shape, or has no such layer.
    """

    def __init__(self, model: nn.Module, layers: Sequence[str] = ()) -> None:
        check_kind("the teacher's network", model, nn.Module, "torch.nn.Linear(8, 3)")
        check_layer_names("the teacher's layers", layers)
        check_initialized("the teacher", model)
        self._taps = FeatureTaps(model, layers)
        self.model = model.eval()
        for parameter in model.parameters():  # a scripted module has no requires_grad_ of its own
            parameter.requires_grad_(False)

    def with_taps(self, layers: Sequence[str]) -> FrozenTeacher:
        """Return a teacher with the same network that records these layers.

        Raises:
            UserError: If one of them is not in the network.
        """
        try:
            return FrozenTeacher(self.model, layers)
        except UserError as error:
            raise UserError(f"a layer of the teacher: {error}") from error

    def __call__(
        self, batch: Batch, inputs: tuple[Any, ...], student: Output | None = None
    ) -> Output:
        """Run the network on `inputs`."""
        return self.run(self.model, inputs)

    @torch.no_grad()
    def run(self, part: nn.Module, inputs: tuple[Any, ...]) -> Output:
        """Run a part of the network that holds all taps, such as a detector's backbone.

        Raises:
            UserError: If a tap does not fire, or if the network changes its inputs in place.
        """
        for module in self.model.modules():
            if module.training:  # somebody flipped it back, perhaps this part only
                module.eval()
        self._follow(first_tensor(inputs))
        versions = versions_of(inputs)
        try:
            output = self._taps.run(part, *inputs)
        except Exception as error:
            blamed = blame_inputs("the teacher", self.model, inputs, error)
            if blamed is None:
                raise
            raise blamed from error
        refuse_changed_inputs(f"the teacher ({type(self.model).__name__})", versions)
        return Output(output.output, output.features, "teacher")

    def models(self) -> Mapping[str, nn.Module]:
        """Return the network under the name `teacher`."""
        return {"teacher": self.model}

    def _follow(self, tensor: Tensor | None) -> None:
        parameter = next(self.model.parameters(), None)
        if tensor is not None and parameter is not None and parameter.device != tensor.device:
            self.model.to(tensor.device)

    def __repr__(self) -> str:
        return f"FrozenTeacher({type(self.model).__name__})"


class Teachers(Teacher):
    """Several teachers by name.

    A layer of one of them is addressed as `name/layer`. The output is the mean of the logits if all
    teachers give tensors of one shape, else the mapping of their outputs by name.

    >>> batch = Batch.of(torch.ones(2, 4))
    >>> both = Teachers({"a": FrozenTeacher(nn.Linear(4, 3)), "b": FrozenTeacher(nn.Linear(4, 3))})
    >>> both(batch, (batch.inputs,)).logits.shape
    torch.Size([2, 3])

    Args:
        teachers: one or more, by names without a slash.
    """

    def __init__(self, teachers: Mapping[str, Teacher]) -> None:
        if not isinstance(teachers, Mapping):
            raise UserError(
                "Teachers takes a mapping of names, such as {'large': FrozenTeacher(net)}, got "
                f"{shown_kind(teachers)}"
            )
        if not teachers:
            raise UserError(
                "Teachers needs at least one teacher, such as {'large': FrozenTeacher(net)}"
            )
        for name, teacher in teachers.items():
            check_teacher_name(name)
            check_teacher(f"the teacher {name!r}", teacher, Teacher)
        self.teachers = dict(teachers)
        layers = [layer for teacher in teachers.values() for layer in teacher.student_layers]
        self.student_layers = tuple(dict.fromkeys(layers))

    def with_taps(self, layers: Sequence[str]) -> Teachers:
        """Return teachers that record these layers, each written as `name/layer`.

        Raises:
            UserError: If a layer does not begin with the name of a teacher, or is not in its
                network.
        """
        wanted: dict[str, list[str]] = {name: [] for name in self.teachers}
        for address in layers:
            name, slash, layer = address.partition("/")
            if not slash:
                raise UserError(
                    f"the teacher layer {address!r} does not say whose it is; write it as "
                    f"'{next(iter(wanted))}/{name}'{near_misses(name, wanted)}"
                )
            if name not in wanted:
                raise UserError(
                    f"there is no teacher {name!r}, of which {address!r} would be a layer"
                    f"{near_misses(name, wanted)}"
                )
            wanted[name].append(layer)
        return Teachers({name: self._tapped(name, wanted[name]) for name in self.teachers})

    def __call__(
        self, batch: Batch, inputs: tuple[Any, ...], student: Output | None = None
    ) -> Output:
        """Ask every teacher."""
        answers = {name: t(batch, inputs, student) for name, t in self.teachers.items()}
        features = {
            f"{name}/{layer}": feature
            for name, answer in answers.items()
            for layer, feature in answer.features.items()
        }
        return Output(_mean_logits(answers), features)

    def models(self) -> Mapping[str, nn.Module]:
        """Return the networks of all teachers, each under its teacher's name."""
        models: dict[str, nn.Module] = {}
        for name, teacher in self.teachers.items():
            own = teacher.models()
            for inner, model in own.items():
                models[name if len(own) == 1 else f"{name}/{inner}"] = model
        return models

    def _tapped(self, name: str, layers: Sequence[str]) -> Teacher:
        try:
            return self.teachers[name].with_taps(layers)
        except UserError as error:
            said = str(error)
            where = f"a layer of the teacher {name!r}: "
            raise UserError(where + said.removeprefix("a layer of the teacher: ")) from error

    def __repr__(self) -> str:
        return f"Teachers({self.teachers})"


class NoTeacher(Teacher):
    """No teacher: the baseline, or a method whose branches teach each other."""

    def with_taps(self, layers: Sequence[str]) -> NoTeacher:
        """Return itself if there is nothing to record.

        Raises:
            UserError: If there is.
        """
        if layers:
            raise UserError(
                f"the method taps {list(layers)} of a teacher, but there is none; "
                "give the recipe a teacher"
            )
        return self

    def __call__(
        self, batch: Batch, inputs: tuple[Any, ...], student: Output | None = None
    ) -> Output:
        """Return an empty output."""
        return Output(None)

    def __repr__(self) -> str:
        return "NoTeacher()"


def _mean_logits(answers: Mapping[str, Output]) -> Any:
    outputs = {name: answer.output for name, answer in answers.items()}
    logits = []
    for answer in answers.values():
        try:
            logits.append(answer.logits)
        except UserError:  # one of them gives no logits: the method must know what to do
            return outputs
    if len({value.shape for value in logits}) > 1:
        return outputs
    return torch.stack(logits).mean(0)
