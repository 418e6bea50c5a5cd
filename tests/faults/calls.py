"""Random arguments for every public loss and similarity: a value, or a refusal in a sentence."""

from __future__ import annotations

import inspect
import random
import typing
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

import tutelage.methods
import tutelage.similarity
from tutelage import UserError
from tutelage.similarity import CosineKernel, LinearKernel, RBFKernel

MAPS = ("afd_loss", "pcka_loss", "rtk_loss", "ssim_loss")  # take (N, C, H, W)
SIZES = (0, 1, 2, 3, 4, 5, 8, 16)
NUMBERS = (0.0, 1.0, 2.0, 4.0, 0.5, 1e-8, 1e8, -1.0, float("nan"), float("inf"), 3)
DTYPES = (*[torch.float32] * 12, torch.float64, torch.float16, torch.bfloat16, torch.int64)
FILLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "normal": lambda x: x,
    "zeros": torch.zeros_like,
    "constant": torch.ones_like,
    "large": lambda x: x * 1e10,
    "tiny": lambda x: x * 1e-20,
    "equal rows": lambda x: x[:1].expand_as(x).clone() if x.ndim else x,
    "NaN": lambda x: torch.where(x > 1, torch.nan, x),
    "infinite": lambda x: torch.where(x > 1, torch.inf, x),
}


def functions() -> dict[str, Callable[..., Any]]:
    """Return the public functions of losses and similarities by name."""
    found: dict[str, Callable[..., Any]] = {}
    for module in (tutelage.methods, tutelage.similarity):
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isfunction(value):
                found[name] = value
    return found


def random_calls(draw: random.Random, many: int) -> Iterator[str]:
    """Call the functions in turn, so many calls in all; give "" or what went wrong."""
    torch.manual_seed(draw.getrandbits(32))
    every = list(functions().items())
    for number in range(many):
        name, function = every[number % len(every)]
        rank = 4 if name in MAPS else draw.choice((0, 1, 2, 2, 2, 2, 3, 4))
        arguments = Arguments(draw, rank).of(function)
        problem = _problem(function, arguments)
        yield problem and f"{name}({_described(arguments)}): {problem}"


class Arguments:
    """Draws arguments by the annotations of a function; tensors of one call mostly fit.

    Args:
        draw: decides everything but the numbers in tensors.
        rank: dimensions of most tensors.
    """

    def __init__(self, draw: random.Random, rank: int) -> None:
        self.draw = draw
        self.shape = tuple(draw.choice(SIZES) for _ in range(rank))
        self.dtype = draw.choice(DTYPES)

    def of(self, function: Callable[..., Any]) -> dict[str, Any]:
        """Return arguments by name; options are left out now and then."""
        hints = typing.get_type_hints(function)
        drawn: dict[str, Any] = {}
        for name, parameter in inspect.signature(function).parameters.items():
            has_default = parameter.default is not parameter.empty
            if not has_default or self.draw.random() < 0.3:
                drawn[name] = self._value(name, hints[name])
        return drawn

    def _value(self, name: str, hint: Any) -> Any:
        choices = [part for part in typing.get_args(hint) if part is not type(None)]
        origin = typing.get_origin(hint)
        if origin is Literal:
            return self.draw.choice((*choices, choices[0], "x"))
        if hint is Tensor:
            return self._tensor(name)
        if origin is not None and issubclass_or_false(origin, Sequence):
            return [self._value(name, choices[0]) for _ in range(self.draw.randint(0, 3))]
        if origin is tuple:
            return tuple(self._value(name, part) for part in choices)
        if hint is bool:
            return self.draw.random() < 0.5
        if hint is int:
            return self.draw.choice((-1, 0, 1, 2, 3, 7, 16))
        if hint is float:
            return self.draw.choice(NUMBERS)
        if choices:  # a union
            return self._value(name, self.draw.choice(choices))
        return self.draw.choice((LinearKernel(), CosineKernel(), RBFKernel(), RBFKernel(t=0.2)))

    def _tensor(self, name: str) -> Tensor:
        shape = self.shape
        if name == "v":
            shape = shape[1:]
        elif name in ("attention", "scores"):
            shape = (*shape[:1], self.draw.randint(0, 3), self.draw.randint(0, 3))
        elif self.draw.random() < 0.1:
            shape = (*shape[:-1], self.draw.choice(SIZES)) if shape else (1,)
        if name == "labels":
            return torch.randint(-1, max(2, *shape, 2), shape[:1])
        if name in ("mask", "ignored_pairs"):
            return torch.rand(shape[:1] if name == "mask" else shape[:1] * 2) < 0.5
        dtype = self.dtype if self.draw.random() < 0.9 else self.draw.choice(DTYPES)
        filling = self.draw.choice(("normal", "normal", *FILLINGS))
        x = FILLINGS[filling](torch.randn(shape)) if 0 not in shape else torch.randn(shape)
        x = x.nan_to_num().clamp(-99, 99).to(dtype) if dtype == torch.int64 else x.to(dtype)
        return x.requires_grad_(dtype.is_floating_point and self.draw.random() < 0.3)


def issubclass_or_false(value: Any, kind: type) -> bool:
    """Return whether this is a class below another one."""
    return isinstance(value, type) and issubclass(value, kind)


def _problem(function: Callable[..., Any], arguments: dict[str, Any]) -> str:
    before = [tensor.detach().clone() for tensor in _tensors(arguments)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            function(**arguments)
        except UserError as error:
            return "" if len(str(error).split()) > 3 else f"refused with {str(error)!r}"
        except Exception as error:
            return f"{type(error).__name__}: {str(error).splitlines()[:1]}"
    for old, new in zip(before, _tensors(arguments), strict=True):
        if not torch.equal(old.nan_to_num(), new.detach().nan_to_num()):
            return "an argument was changed"
    return ""


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    values = value.values() if isinstance(value, dict) else value
    if not isinstance(value, (dict, list, tuple)):
        return []
    return [tensor for part in values for tensor in _tensors(part)]


def _described(arguments: dict[str, Any]) -> str:
    return ", ".join(f"{name}={_short(value)}" for name, value in arguments.items())


def _short(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if isinstance(value, list):
        return f"[{', '.join(map(_short, value))}]"
    return repr(value)
