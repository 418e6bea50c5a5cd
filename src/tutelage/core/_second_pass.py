"""What only a second pass shows: whether rows follow the items, and whether a teacher is fixed.

Features with time first look right as long as there are as many time steps as items. A teacher that
draws random numbers or counts in its forward pass gives other outputs in each step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.core._checks import check_rows, is_time_first
from tutelage.core.batch import Batch, num_items, tensors_in
from tutelage.core.output import Output, Step
from tutelage.core.taps import FeatureTaps, unwrapped
from tutelage.core.teacher import Teacher
from tutelage.errors import UserError

TOLERANCE = 1e-4  # of the largest value, for sums in another order
COARSE_TOLERANCE = 1e-2  # for half precision, and for accelerators, which may round to TF32

Buffers = Mapping[str, Tensor]


def buffers_of(teacher: Teacher) -> dict[str, Tensor]:
    """Return copies of the buffers of all networks of a teacher, by network and name."""
    return {name: value.detach().clone() for name, value in _named_buffers(teacher)}


@torch.no_grad()
def check_second_pass(
    first: Step, inputs: tuple[Any, ...], taps: FeatureTaps, teacher: Teacher, before: Buffers
) -> None:
    """Run the networks once more, on the batch without its last item, and compare.

    Where the batch cannot be cut, or a network refuses it, only the teacher runs, on the whole
    batch. The random state and the student's buffers stay as they are, as do the teacher's if it is
    fixed.

    Args:
        first: what both networks gave.
        inputs: the positional arguments of that pass.
        taps: of the student.
        teacher: what answered.
        before: the teacher's buffers before the first pass; they are put back if they change.

    Raises:
        UserError: If the first axis of an output or a feature stays as long as it was, or if the
            teacher's outputs or buffers change from pass to pass.
    """
    after = buffers_of(teacher)
    with undisturbed(taps.network):
        shorter = _without_last_item(first, inputs, taps, teacher)
        if shorter is not None:
            _check_shorter(first, shorter, inputs, teacher)
        if not teacher.models():
            return
        count = num_items(inputs)
        expected = None if count is None else _cut(first.teacher, count)
        if shorter is None or not _agree(shorter.teacher, expected):
            # Not all that differs is random: normalization over the batch, or another padding.
            if teacher.student_layers or teacher.other_rows:  # it takes something of the student's
                taps.run(unwrapped(taps.network), *inputs)
            again = teacher(first.batch, inputs, first.student)
            if not _agree(again, first.teacher):
                raise UserError(
                    f"{_described(teacher)} is not fixed: in eval mode it gives other outputs for "
                    "the same batch in each pass; let its dropout and noise act while it trains "
                    "only (training=self.training), and its batch norms stay in eval mode"
                )
    _refuse_changed_buffers(teacher, before, after)


def _without_last_item(
    first: Step, inputs: tuple[Any, ...], taps: FeatureTaps, teacher: Teacher
) -> Step | None:
    """Return what the networks give without the last item; None if that is not known."""
    count = num_items(inputs)
    if count is None or count < 2:
        return None
    shorter = _cut(inputs, count)
    batch = Batch(_cut(dict(first.batch), count))
    if num_items(batch.get("labels")) == count or num_items(batch.get("ids")) == count:
        return None
    try:
        # A compiled network would be compiled once more, for this size of batch.
        with _eager():
            output = taps.run(unwrapped(taps.network), *shorter)
            student = Output(output.output, output.features, "student")
            answer = teacher(batch, shorter, student)
    except Exception:  # networks may take batches of one size only
        return None
    return Step(student, answer, batch, first.task_loss)


def _check_shorter(first: Step, shorter: Step, inputs: tuple[Any, ...], teacher: Teacher) -> None:
    """Raise if the first axis of an output or a feature is not the items."""
    count = num_items(inputs)
    assert count is not None
    labels = num_items(first.batch.get("labels"))
    if labels not in (None, count):  # such as two views of each item
        return
    if is_time_first(inputs, count):
        # Either axis of the inputs may be the items; the output shows whether it was the first.
        rows = [x.shape[0] for x in tensors_in(shorter.student.output) if x.ndim]
        if not rows or any(row != count - 1 for row in rows):
            return
    try:
        check_rows(shorter, _cut(inputs, count), teacher.other_rows)
    except UserError as error:
        raise UserError(f"without the last of the {count} items, {error}") from error


def _cut(value: Any, count: int) -> Any:
    """Return a copy of a nested value in which all that has `count` rows has one fewer."""
    if isinstance(value, Output):
        return Output(_cut(value.output, count), _cut(value.features, count), value.role)
    if isinstance(value, Tensor):
        return value[:-1].clone() if value.shape[:1] == (count,) else value
    if isinstance(value, Mapping):
        return {name: _cut(entry, count) for name, entry in value.items()}
    if isinstance(value, list):
        return value[:-1] if len(value) == count else value
    if isinstance(value, tuple):
        return tuple(_cut(entry, count) for entry in value)
    return value


def _agree(answer: Output, other: Output | None) -> bool:
    """Return whether two answers are the same but for rounding."""
    if other is None:
        return False
    values = list(tensors_in((answer.output, dict(answer.features))))
    others = list(tensors_in((other.output, dict(other.features))))
    return len(values) == len(others) and all(map(_are_close, values, others))


def _are_close(value: Tensor, other: Tensor) -> bool:
    if value.shape != other.shape or value.dtype != other.dtype:
        return False
    if not value.is_floating_point():
        return bool(torch.equal(value, other))
    is_coarse = value.dtype != torch.float64 and (
        value.device.type != "cpu"
        or value.dtype != torch.float32
        or torch.is_autocast_enabled(value.device.type)
    )
    this, that = value.double(), other.double()
    scale = this.where(this.isfinite(), 0.0).abs().amax() if this.numel() else this.new_zeros(())
    apart = (this - that).abs().where(this != that, 0.0)
    apart = apart.where(~(this.isnan() & that.isnan()), 0.0)
    return bool((apart <= (COARSE_TOLERANCE if is_coarse else TOLERANCE) * scale).all())


def _refuse_changed_buffers(teacher: Teacher, before: Buffers, after: Buffers) -> None:
    """Raise if a buffer of the teacher changed in the second pass, and put all of them back.

    What the first pass alone fills is a table that the network computes when it is first needed.
    """
    now = dict(_named_buffers(teacher))
    changed = [
        name
        for name, value in after.items()
        if name in now and now[name].shape == value.shape and not _is_same(now[name], value)
    ]
    if not changed:
        return
    for name, value in before.items():
        if name in now and now[name].shape == value.shape:
            now[name].copy_(value)
    raise UserError(
        f"{_described(teacher)} is not fixed: its buffer {changed[0]!r} changes in each pass, even "
        "in eval mode; let its forward leave batch norms in eval mode, and count or average while "
        "it trains only (self.training)"
    )


def _is_same(value: Tensor, other: Tensor) -> bool:
    same = value == other
    if value.is_floating_point():
        same |= value.isnan() & other.isnan()
    return bool(same.all())


def _named_buffers(teacher: Teacher) -> Iterator[tuple[str, Tensor]]:
    models = teacher.models()
    for network, model in models.items():
        for name, value in model.named_buffers():
            yield name if len(models) == 1 else f"{network}/{name}", value


def _described(teacher: Teacher) -> str:
    models = teacher.models()
    if len(models) == 1:
        return f"the teacher ({type(next(iter(models.values()))).__name__})"
    listed = ", ".join(f"{name}: {type(model).__name__}" for name, model in models.items())
    return f"one of the teachers ({listed})"


def _eager() -> AbstractContextManager[Any]:
    set_stance = getattr(torch.compiler, "set_stance", None)  # older versions have none
    return nullcontext() if set_stance is None else set_stance("force_eager")


@contextmanager
def undisturbed(network: nn.Module) -> Iterator[None]:
    """Restore a network's buffers and the random state after the block."""
    buffers = {name: value.detach().clone() for name, value in network.named_buffers()}
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        yield
    with torch.no_grad():
        for name, value in network.named_buffers():
            if name in buffers and value.shape == buffers[name].shape:
                value.copy_(buffers[name])
