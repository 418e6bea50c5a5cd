"""A step on a whole batch whose networks run on pieces of it, one after the other.

What a training step keeps in memory is mostly what the layers of the student gave, for the backward
pass. Plain accumulation of gradients, a loss for each piece, needs less of it, but changes every
loss that relates the items of a batch: CKA, correlations, in-batch negatives. Here the method sees
the whole batch. The student runs on each piece and keeps its outputs and tapped layers alone; these
are joined, and the loss is that of all items. In the backward pass the student runs on each piece
once more, now with what its own backward pass needs, which is let go before the next piece:

    y_i = f(x_i)                       for all pieces i; kept
    loss = L(y_1, ..., y_k)
    gradient = Σ_i ∂L/∂y_i · ∂f(x_i)   each with a second pass of x_i

That is gradient checkpointing with the student on one piece as its only segment, so gradients of
single terms, gradient scaling and data parallelism work as in any other step. The second pass of a
piece draws the random numbers of the first, and leaves buffers such as running means as they are.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tutelage.core._second_pass import undisturbed
from tutelage.core.batch import Batch, num_items
from tutelage.core.modes import device_of
from tutelage.core.output import Output, Step
from tutelage.core.taps import FeatureTaps
from tutelage.errors import UserError

Kind = Literal["rows", "mean", "same"]


class Pieces:
    """Runs student and teacher on the pieces of a batch, and joins what they gave.

    Which entries of an output have the items as their rows is seen from pieces of two sizes, in the
    first batch. Their rows are put one behind the other. The mean over the pieces, by their size,
    is taken of the others: of losses that a network returns itself it is the mean over the items,
    and a table that does not depend on the batch stays what it is.

    Args:
        count: number of pieces.

    Raises:
        UserError: If the count is no number of pieces.
    """

    def __init__(self, count: int) -> None:
        if not isinstance(count, int) or count < 1:
            raise UserError(f"accumulate is a number of pieces, at least 1, got {count!r}")
        self.count = count
        # How the outputs of student and teacher are joined, in train mode and in eval mode.
        self._kinds: dict[bool, Sequence[Any]] = {}

    def __call__(
        self, batch: Batch, run: Callable[[Batch], Step], student: nn.Module
    ) -> tuple[Output, Output]:
        """Return what student and teacher give for a batch.

        Args:
            batch: the whole batch.
            run: runs both on a piece.
            student: its buffers and the random state stay as they are in the trial of two sizes.

        Raises:
            UserError: If the batch has fewer items than there are pieces, or an output has other
                sizes in one piece than in another.
        """
        training = student.training
        if training not in self._kinds:
            with torch.no_grad(), undisturbed(student):
                piece = batch.split(self.count)[0]
                # Batch norm needs two items, which the half of a piece may not have.
                others = 2 * self.count if _size(piece) > 2 else self.count // 2
                one = run(piece)
                other = run(batch.split(others)[0])
            self._kinds[training] = [
                _kinds(_entries(one.student), _entries(other.student)),
                _kinds(_entries(one.teacher), _entries(other.teacher)),
            ]
        steps = [run(piece) for piece in batch.split(self.count)]
        sizes = [_size(step.batch) for step in steps]
        of_student, of_teacher = self._kinds[training]
        return (
            _join([step.student for step in steps], of_student, sizes),
            _join([step.teacher for step in steps], of_teacher, sizes),
        )


def _size(piece: Batch) -> int:
    return num_items(piece.get("ids", piece.inputs)) or 1


def _entries(output: Output) -> dict[str, Any]:
    return {"output": output.output, "features": dict(output.features)}


def _join(outputs: Sequence[Output], kinds: Any, sizes: Sequence[int]) -> Output:
    role = outputs[0].role
    joined = _joined([_entries(output) for output in outputs], kinds, sizes, f"the {role}'s")
    return Output(joined["output"], joined["features"], role)


def checkpointed(taps: FeatureTaps) -> Callable[..., Output]:
    """Return a call of the tapped network that keeps nothing for the backward pass.

    That pass runs the network once more, with the same random numbers.
    """

    def run(*inputs: Any) -> Output:
        if not torch.is_grad_enabled():
            return taps(*inputs)
        output: Output = checkpoint(
            taps,
            *inputs,
            use_reentrant=False,
            preserve_rng_state=False,  # it finds no device in a batch of texts
            context_fn=partial(_contexts, taps.network),
        )
        return output

    return run


def _contexts(network: nn.Module) -> tuple[_Nothing, _Replay]:
    return _Nothing(), _Replay(network)


class _Nothing:
    """The context of the first pass."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        pass


class _Replay:
    """The context of the second pass of a network, which can be entered once for each gradient.

    Args:
        network: about to run for the first time.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._device = device_of(network)
        self._states = self._random_states()
        self._after: list[Tensor] = []
        self._kept: list[tuple[Tensor, Tensor]] = []

    def __enter__(self) -> None:
        self._after = self._random_states()
        self._set(self._states)
        self._kept = [(buffer, buffer.clone()) for buffer in self._buffers()]

    def __exit__(self, *error: object) -> None:
        self._set(self._after)
        for buffer, value in self._kept:
            # They have the values again that others may have saved, so no version is counted.
            buffer.data.copy_(value)
        self._kept = []

    def _buffers(self) -> list[Tensor]:
        """Return what a pass may change: dense buffers of modules in train mode."""
        return [
            buffer
            for module in self._network.modules()
            if module.training
            for buffer in module.buffers(recurse=False)
            if buffer.layout == torch.strided
        ]

    def _random_states(self) -> list[Tensor]:
        states = [torch.get_rng_state()]
        if self._device.type == "cuda":
            states.append(torch.cuda.get_rng_state(self._device))
        return states

    def _set(self, states: Sequence[Tensor]) -> None:
        torch.set_rng_state(states[0])
        if len(states) > 1:
            torch.cuda.set_rng_state(states[1], self._device)


def _kinds(one: Any, other: Any) -> Any:
    """Return how each entry of nested outputs is joined, nested in the same way."""
    if isinstance(one, Tensor):
        return "rows" if one.shape[:1] != other.shape[:1] else "mean"
    if isinstance(one, Mapping):
        return {name: _kinds(entry, other[name]) for name, entry in one.items()}
    if isinstance(one, (list, tuple)):
        if len(one) != len(other):  # an entry an item
            return "rows"
        return [_kinds(*entries) for entries in zip(one, other, strict=True)]
    return "same"


def _joined(values: Sequence[Any], kind: Any, sizes: Sequence[int], what: str) -> Any:
    """Return nested outputs of pieces as those of the whole batch.

    Args:
        values: of the pieces.
        kind: what `_kinds` returned.
        sizes: number of items of each piece.
        what: they are, for messages.
    """
    first = values[0]
    if isinstance(first, Tensor):
        return _joined_tensors(values, kind, sizes, what)
    if isinstance(first, Mapping):
        entries = {
            name: _joined([value[name] for value in values], kind[name], sizes, f"{what} {name}")
            for name in first
        }
        if type(first) is dict:
            return entries
        joined: Any = copy.copy(first)  # as the output of a Hugging Face model
        for name, entry in entries.items():
            joined[name] = entry
        return joined
    if isinstance(first, (list, tuple)):
        if kind == "rows":
            return type(first)([entry for value in values for entry in value])
        columns = zip(*values, strict=True)
        listed = [_joined(list(column), kind[i], sizes, what) for i, column in enumerate(columns)]
        if isinstance(first, list) or type(first) is tuple:
            return type(first)(listed)
        return type(first)(*listed)  # a named tuple
    return first


def _joined_tensors(
    values: Sequence[Tensor], kind: Kind, sizes: Sequence[int], what: str
) -> Tensor:
    start = 1 if kind == "rows" else 0
    if len({value.shape[start:] for value in values}) > 1:
        shapes = ", ".join(str(tuple(value.shape)) for value in values)
        raise UserError(
            f"{what} has other sizes in each piece of the batch ({shapes}), so that it cannot be "
            "joined; give all inputs one size, or set accumulate to 1"
        )
    if kind == "rows":
        return torch.cat(list(values))
    if not values[0].is_floating_point():
        return values[0]
    total = sum(sizes)
    shares = [value * (size / total) for value, size in zip(values, sizes, strict=True)]
    return torch.stack(shares).sum(0)
