"""What a forward pass must be to be believed: finite, item by item, with gradients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.core.batch import Batch, first_tensor, num_items, tensors_in
from tutelage.core.output import LOGITS, Output, Step
from tutelage.errors import UserError


def check_finite(example: Step) -> None:
    """Raise if an output or a feature of either network holds NaN or infinity.

    It makes an accelerator wait, so it is for `setup`.

    Raises:
        UserError: The message names the network and the output or layer.
    """
    for role, output in (("student", example.student), ("teacher", example.teacher)):
        for name, value in _named_tensors(output):
            if not value.isfinite().all():
                raise UserError(
                    f"the {role}'s {name} holds NaN or infinity; "
                    "check its weights and input scaling"
                )


def check_rows(step: Step, inputs: tuple[Any, ...], other_rows: Sequence[str] = ()) -> None:
    """Raise if the first axis of an output or a feature does not count the items of the batch.

    Losses relate and compare rows. Recurrent networks and encoders that give time first would have
    their moments compared instead, without any error.

    Args:
        step: what both networks gave.
        inputs: the positional arguments of the forward passes.
        other_rows: layers that are not looked at, see `Teacher`.

    Raises:
        UserError: The message names the network and the output or layer.
    """
    counts = item_counts(step.batch, inputs)
    if not counts:
        return
    exempt = {f"feature {layer!r}" for layer in other_rows}
    for role, output in (("student", step.student), ("teacher", step.teacher)):
        for name, value in _named_tensors(output):
            if name in exempt:
                continue
            # A network may return its loss; but a layer that gives a number is none to distill.
            if value.ndim == 0 and not name.startswith("feature"):
                continue
            # One call of a module that runs item by item, as `neck:0`, has the row of one item.
            if ":" in name and value.shape[:1] == (1,):
                continue
            refuse_rows(f"the {role}'s {name}", value.shape, counts)


def refuse_rows(what: str, shape: Sequence[int], counts: Sequence[int]) -> None:
    """Raise if the first axis of a shape is none of the possible numbers of items.

    Args:
        what: has this shape, for the message.
        shape: of an output.
        counts: what `item_counts` returned.

    Raises:
        UserError: The message says how to put it right.
    """
    if len(shape) > 0 and shape[0] in counts:
        return
    fix = "tap a layer whose output has one row an item"
    if len(shape) > 1 and shape[1] in counts:
        fix = (
            "the second one is, so let the network give the batch first (batch_first=True, or a "
            "transpose in a module of its own), or tap a layer that does"
        )
    raise UserError(
        f"{what} has the shape {tuple(shape)}, but the batch has {counts[0]} items: its first axis "
        f"is not the items; {fix}"
    )


def item_counts(batch: Batch, inputs: tuple[Any, ...]) -> list[int]:
    """Return the numbers of rows that an output of a batch may have; none if it does not say.

    There are two where a task makes another number of inputs of the items, such as two views of
    each.

    >>> item_counts(Batch.of((torch.ones(4, 3), torch.zeros(4))), (torch.ones(8, 3),))
    [4, 8]

    Args:
        batch: its ids and labels count the items.
        inputs: the positional arguments of the forward passes.
    """
    labeled = None
    for name in ("ids", "labels"):
        if labeled is None and name in batch:
            labeled = num_items(batch[name])
    rows = num_items(inputs)
    if labeled is None or rows is None or labeled == rows:
        return [count for count in (labeled, rows) if count is not None][:1]
    return [labeled] if is_time_first(inputs, labeled) else [labeled, rows]


def is_time_first(inputs: tuple[Any, ...], count: int) -> bool:
    """Return whether inputs are sequences (T, N) of tokens or (T, N, C), for `count` items."""
    first = first_tensor(inputs)
    if first is None:
        return False
    ndim = 3 if first.is_floating_point() else 2
    return first.ndim == ndim and first.shape[1] == count


def check_gradients(step: Step, layers: Sequence[str], without: Sequence[str]) -> None:
    """Raise if a layer that a method reads has no gradient while the student's output has one.

    Reentrant checkpointing runs a block twice, first without gradients; a term on a layer inside
    sees that first pass and would never reach the student. Nor would one on a frozen layer.

    Args:
        step: what both networks gave.
        layers: of the student, that the method reads.
        without: the layers that ran while gradients were off.

    Raises:
        UserError: The message names the layer.
    """
    features = {layer: step.student.feature(layer) for layer in layers}
    lost = [layer for layer, feature in features.items() if not feature.requires_grad]
    if not lost or not any(x.requires_grad for x in tensors_in(step.student.output)):
        return
    if lost[0] in without:
        raise UserError(
            f"the student's layer {lost[0]!r} ran without gradients, as in reentrant "
            "checkpointing, so a term on it would not reach the student; use "
            "torch.utils.checkpoint with use_reentrant=False, or tap a layer outside of the "
            "checkpointed block"
        )
    raise UserError(
        f"the student's layer {lost[0]!r} is detached or frozen with all before it, so a term on "
        "it would not reach the student; leave the layer out, or let it train (requires_grad)"
    )


def blame_reentrant(error: Exception) -> UserError | None:
    """Return why gradients of single terms failed, if it is reentrant checkpointing; else None.

    Such a block knows `backward()` into all parameters alone, and no `torch.autograd.grad`.

    Args:
        error: what `torch.autograd` raised.
    """
    if "use_reentrant" not in str(error):
        return None
    return UserError(
        "the student uses reentrant checkpointing, which lets no gradient of a single term be "
        "taken; use torch.utils.checkpoint with use_reentrant=False"
    )


def refuse_frozen(student: nn.Module) -> None:
    """Raise if no parameter of a student is trained, as in a copy of a teacher."""
    parameters = list(student.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        raise UserError(
            f"the student ({type(student).__name__}) has no trainable parameters; call "
            "student.requires_grad_(True), as the copy of a frozen teacher is frozen too"
        )


Versions = list[tuple[Tensor, int]]


def versions_of(inputs: Any) -> Versions:
    """Return all tensors of some inputs with how often they were changed in place."""
    if torch.compiler.is_compiling():
        return []
    return [(x, x._version) for x in tensors_in(inputs) if not x.is_inference()]


def refuse_changed_inputs(who: str, before: Versions) -> None:
    """Raise if a network has changed its inputs in place, which the other one gets too.

    Args:
        who: the network, for the message.
        before: what `versions_of` returned before the pass.

    Raises:
        UserError: If a tensor was changed.
    """
    if any(tensor._version != version for tensor, version in before):
        raise UserError(
            f"{who} changes its inputs in place, and what runs next would get what it made of "
            "them; let its first operation make a new tensor (inplace=False, x = x - mean)"
        )


def _named_tensors(output: Output) -> Iterator[tuple[str, Tensor]]:
    """Give the output, the logits in it, and the features, each with what to call it."""
    values: dict[str, Any] = {"output": output.output}
    if isinstance(output.output, Mapping):
        names = [name for name in LOGITS if name in output.output]
        values |= {f"output {name!r}": output.output[name] for name in names}
    values |= {f"feature {name!r}": value for name, value in output.features.items()}
    for name, value in values.items():
        if isinstance(value, Tensor):
            yield name, value
