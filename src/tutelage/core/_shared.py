"""Modules and weights that a student has in common with its frozen teacher."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parameter import is_lazy

from tutelage.errors import UserError

Span = tuple[int, int, int]
"""The storage of a tensor, and the addresses of its first byte and of the one after its last."""


def refuse_shared(student: nn.Module, teachers: Mapping[str, nn.Module]) -> None:
    """Raise if a student shares a module or weights with a teacher.

    The teacher is frozen and in eval mode, so that the common part would not be trained and would
    have no dropout; or the student would be trained, and the teacher with it.

    Args:
        student: the network to train.
        teachers: the networks of the teacher by name.

    Raises:
        UserError: The message names the module or the weights in both networks.
    """
    for role, teacher in teachers.items():
        whose = "the teacher" if role == "teacher" else f"the teacher {role!r}"
        found = _shared_module(student, teacher) or _shared_weights(student, teacher)
        if found is not None:
            raise UserError(
                f"the student's {found[0]} is {whose}'s {found[1]}, but a teacher is frozen and in "
                "eval mode; make the teacher of a copy, as in FrozenTeacher(copy.deepcopy(network))"
            )


def _shared_module(student: nn.Module, teacher: nn.Module) -> tuple[str, str] | None:
    names = {id(module): name for name, module in teacher.named_modules()}
    for name, module in student.named_modules():
        if id(module) in names and not _is_stateless(module):
            return _called("module", name), _called("module", names[id(module)])
    return None


def _is_stateless(module: nn.Module) -> bool:
    """Return whether a module of torch computes the same in both modes, such as one `nn.ReLU()`."""
    if next(module.children(), None) is not None:
        return True  # its children are looked at themselves
    has_tensors = bool(module._parameters or module._buffers)
    own = type(module).__module__.startswith("torch.nn.modules.")
    return own and not has_tensors and not isinstance(module, (_DropoutNd, nn.RReLU))


def _shared_weights(student: nn.Module, teacher: nn.Module) -> tuple[str, str] | None:
    by_storage: dict[int, list[tuple[Span, str]]] = {}
    for name, tensor in _weights(teacher):
        span = _span(tensor)
        if span is not None:
            by_storage.setdefault(span[0], []).append((span, name))
    for name, tensor in _weights(student):
        span = _span(tensor)
        if span is None:
            continue
        for other, other_name in by_storage.get(span[0], []):
            if span[1] < other[2] and other[1] < span[2]:
                return _called("tensor", name), _called("tensor", other_name)
    return None


def _weights(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Give parameters and saved buffers; others may be constants that networks do share."""
    yield from network.named_parameters()
    for prefix, module in network.named_modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and name not in module._non_persistent_buffers_set:
                yield f"{prefix}.{name}".lstrip("."), buffer


def _span(tensor: Tensor) -> Span | None:
    """Return which memory a tensor is in; None if it has none of its own, as on the meta device."""
    if is_lazy(tensor) or tensor.numel() == 0:
        return None
    try:
        storage = tensor.untyped_storage().data_ptr()
        start = tensor.data_ptr()
    except (RuntimeError, NotImplementedError):  # sparse and wrapped tensors
        return None
    if storage == 0:
        return None
    last = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    return storage, start, start + (last + 1) * tensor.element_size()


def _called(kind: str, name: str) -> str:
    return f"{kind} {name!r}" if name else "network itself"
