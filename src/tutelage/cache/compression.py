"""Smaller copies of a teacher's outputs, and what they cost.

`float16` halves every output. `top_k` keeps the k largest logits of an item, their classes, and the
logarithm of the mass that the softmax gives to all others, which then share it evenly:

    z'_c = z_c                              for the k largest
    z'_c = log Σ_rest exp(z) - log(C - k)   for the others

so that at temperature 1 the probabilities of the k classes are exact. At a higher temperature those
of the others are not, and the error is reported at temperature 1 and 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tutelage.errors import UserError

Dtype = Literal["float32", "float16"]
Parts = Mapping[str, Tensor]


@dataclass(frozen=True)
class Compression:
    """How one output is stored.

    Attributes:
        dtype: of floating-point values; float32 keeps them as they are.
        top_k: how many logits are stored; None stores the whole output.
    """

    dtype: Dtype = "float32"
    top_k: int | None = None

    def pack(self, values: Tensor) -> dict[str, Tensor]:
        """Return what is stored of some rows (n, ...), on the CPU.

        Raises:
            UserError: If `top_k` is asked for and they are not logits (n, C) with C above it, or a
                value is too large for float16.
        """
        values = values.detach().cpu()
        if self.top_k is None:
            return {"values": self._rounded(values)}
        if values.ndim != 2 or values.shape[1] <= self.top_k:
            raise UserError(
                f"teacher.cache_top_k {self.top_k} needs logits (N, C) of more classes, got "
                f"{tuple(values.shape)}; leave it out"
            )
        largest, classes = values.topk(self.top_k, 1)
        # log of the others' mass by their own logarithms: a difference of sums would cancel.
        rest = values.scatter(1, classes, -torch.inf).logsumexp(1)
        return {
            "values": self._rounded(largest),
            "classes": classes.int(),
            "rest": rest.float(),
            "num_classes": torch.full((len(values),), values.shape[1], dtype=torch.int32),
        }

    def unpack(self, parts: Parts) -> Tensor:
        """Return rows as they are used; float16 becomes float32."""
        values = parts["values"]
        if values.dtype == torch.float16 and self.dtype == "float16":
            values = values.float()
        if self.top_k is None:
            return values
        count = int(parts["num_classes"][0]) if len(values) else self.top_k + 1
        others = parts["rest"] - torch.tensor(float(count - self.top_k)).log()
        rows = others.to(values.dtype).unsqueeze(1).expand(-1, count)
        return rows.scatter(1, parts["classes"].long(), values)

    def _rounded(self, values: Tensor) -> Tensor:
        if self.dtype == "float32" or not values.is_floating_point():
            return values
        rounded = values.half()
        if not bool(rounded.isfinite().all()):
            raise UserError(
                f"the teacher's outputs reach {float(values.abs().max()):.3g}, more than float16 "
                "holds; set teacher.cache_dtype to float32"
            )
        return rounded


def errors(exact: Tensor, stored: Tensor) -> dict[str, float]:
    """Return what storing did to rows: the largest difference, and for logits (n, C) divergences.

    >>> logits = torch.tensor([[4.0, 1.0, 1.0]])
    >>> found = errors(logits, Compression(top_k=1).unpack(Compression(top_k=1).pack(logits)))
    >>> found["difference"] < 1e-6, found["kl"] < 1e-6
    (True, True)

    Args:
        exact: (n, ...), as the teacher gave them.
        stored: as they are read back.

    Returns:
        `difference`, the largest absolute one; `kl` and `kl_at_4`, the means over the rows of
        KL(exact ‖ stored) at temperature 1 and 4.
    """
    exact, stored = exact.detach().cpu().double(), stored.double()
    found = {"difference": float((exact - stored).abs().max()) if exact.numel() else 0.0}
    if exact.ndim == 2:
        for name, temperature in (("kl", 1.0), ("kl_at_4", 4.0)):
            log_exact = (exact / temperature).log_softmax(1)
            log_stored = (stored / temperature).log_softmax(1)
            found[name] = float((log_exact.exp() * (log_exact - log_stored)).sum(1).mean())
    return found
