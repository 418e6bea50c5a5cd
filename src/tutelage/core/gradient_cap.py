"""Keep a method from pulling the student away from the labels.

The weight of a loss that is right for one setting is wrong for the next: with more labels or a
smaller student the same term turns from help to harm. What harms a student that cannot follow its
teacher is gradient across that of the labels, and methods are loudest in their first steps. So both
gradients on the student's parameters are measured now and then, and

    loss = w L_task + λ Σ L_method
    λ = min(1, limit · n_task / n_method · (1 + min(0, c)) / (1 - max(0, c)))

where n ← 0.9 n + 0.1 ‖∂L/∂θ‖ follows the norms of both gradients from one look to the next, and c
follows the cosine of the angle between them in the same way. A method that pulls across the labels
(c near 0) may pull `limit` times as hard as they do; one that pulls along with them, as KD does,
much harder; one that pulls against them less, so that the labels keep at least 1 - limit / 4 of
their descent, the least of 1 + limit · c (1 + c). Relations between items do not see the sign of
the logits, so without this they held a student on the wrong side that happened to start there.
The averages follow over some 10 looks, 200 steps by default, so a method that grows in fewer may
pull harder for a while.
n_task is that of the labels at weight 1, whatever w is. So the weights that a recipe or a paper
gives are upper limits.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from tutelage.core._arguments import (
    check_kind,
    check_positive_number,
    check_scalar,
    shown_kind,
)
from tutelage.core._checks import blame_reentrant
from tutelage.core.distiller import Distiller
from tutelage.core.distributed import mean_of_ranks
from tutelage.errors import UserError

FIRST_STEPS = 5  # of a run: all of them are looked at
MOMENTUM = 0.9
SMALLEST = 1e-2  # of 1 - c
PATIENCE = 10  # looks without any gradient, before that is said


class GradientCap(nn.Module):
    """The loss of a step, with the method's terms weighed so that they do not outdo the labels.

    It looks at the gradients in the first five steps and then in every `every`-th one, which costs
    two more backward passes. Nothing waits for a value on an accelerator.

    >>> import tutelage
    >>> student, teacher = nn.Linear(4, 3), tutelage.FrozenTeacher(nn.Linear(4, 3))
    >>> method, task = tutelage.RCKA(feature_weight=None), tutelage.Classification(num_classes=3)
    >>> distiller = tutelage.Distiller(student, teacher, method, task)
    >>> cap = GradientCap(distiller)
    >>> batch = torch.randn(16, 4), torch.randint(3, (16,))
    >>> cap(distiller(batch)).backward()
    >>> 0 < cap.weight.item() <= 1
    True

    Args:
        distiller: student and method.
        limit: how many times as hard as the labels a method may pull across them.
        every: steps from one look to the next; the averages follow over ten times as many.
        scale: of a loss before its gradient is taken, as `torch.amp.GradScaler().scale`, where
            gradients are too small for float16.

    Attributes:
        weight: λ of the last step, a scalar; 0 until a look has seen the method.
        ratio: n_method / n_task.
        cosine: c.

    Raises:
        UserError: If the limit is not positive, `every` is below 1, the labels have no weight, or
            no parameter of the student is trained.
    """

    weight: Tensor
    ratio: Tensor
    cosine: Tensor
    _norms: Tensor
    _step: Tensor

    def __init__(
        self,
        distiller: Distiller,
        limit: float = 1.0,
        every: int = 20,
        scale: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        example = "tutelage.Distiller(student, teacher, method, task)"
        check_kind("what is capped", distiller, Distiller, example)
        check_positive_number("the limit of a gradient cap", limit)
        if type(every) is not int or every < 1:
            raise UserError(f"every is a whole number of steps, at least 1, got {every!r}")
        if not distiller.method.task_weight:
            raise UserError(
                "the method's task_weight is 0, so there is no gradient of the labels to cap its "
                "own by; leave the cap out, or give the labels a weight"
            )
        self.limit = limit
        self.every = every
        self._scale = scale
        self._task_weight = distiller.method.task_weight
        self._student_parameters = list(distiller.student.parameters())
        trained = self._trained()
        if not trained:
            raise UserError("a gradient cap needs a student with parameters that are trained")
        device = trained[0].device
        # Sums of squares leave float32's range where gradients do not; MPS has no float64.
        self._dtype = torch.float32 if device.type == "mps" else torch.float64
        for name in ("weight", "ratio", "cosine"):
            # A method that no look has seen yet has no weight.
            self.register_buffer(name, torch.zeros((), device=device))
        self.register_buffer("_norms", torch.zeros(2, dtype=self._dtype, device=device))
        self.register_buffer("_step", torch.zeros((), dtype=torch.long))

    def forward(self, terms: Mapping[str, Tensor]) -> Tensor:
        """Return the loss of one step.

        Args:
            terms: weighted scalars by name, as a `Distiller` returns them; `task` is the labels'.
                Without it, or with nothing else, the loss is the sum of all.

        Raises:
            UserError: In the first step, if they are no named scalars.
        """
        step = int(self._step)
        if step == 0:
            _check_terms(terms)
        self._step += 1
        of_method = [term for name, term in terms.items() if name != "task"]
        if "task" not in terms or not of_method:
            return torch.stack(list(terms.values())).sum()
        task = terms["task"]
        method = torch.stack(of_method).sum()
        if step < FIRST_STEPS or step % self.every == 0:
            self._look(task / self._task_weight, method)
        if step == PATIENCE * self.every:
            self._warn_if_silent()
        return task + self.weight * method

    def _look(self, task: Tensor, method: Tensor) -> None:
        """Measure both gradients, and set the weight from their averages."""
        trained = self._trained()
        if not trained:
            return
        gradients = [self._gradient(loss, trained) for loss in (task, method)]
        norms = torch.stack([self._dot(gradient, gradient).sqrt() for gradient in gradients])
        cosine = self._dot(*gradients) / norms.prod()
        # A method that is silent for now, or overflows in half precision, keeps its weight.
        counts = norms.isfinite().all() & (norms > 0).all()
        step = torch.where(self._norms[0] > 0, 1 - MOMENTUM, 1.0) * counts
        norms = self._norms.lerp(norms, step.to(self._dtype))
        cosine = self.cosine.lerp(cosine.float(), step)
        ratio = norms[1] / norms[0]
        share = (1 + cosine).clamp(0.0, 1.0) / (1 - cosine).clamp(SMALLEST, 1.0)
        weight = self.limit * share / ratio
        self._norms = torch.where(counts, norms, self._norms)
        self.cosine = torch.where(counts, cosine, self.cosine)
        self.ratio = torch.where(counts, ratio.float(), self.ratio)
        self.weight = torch.where(counts, weight.clamp(max=1.0).float(), self.weight)

    def _warn_if_silent(self) -> None:
        if not float(self.ratio):
            warnings.warn(
                "the terms of the method, or the labels, had no gradient on the student's "
                "parameters at any look so far, so the method has no weight yet",
                stacklevel=3,
            )

    def record(self) -> dict[str, float]:
        """Return weight, ratio and cosine as numbers, rounded for a log."""
        values = {"weight": self.weight, "ratio": self.ratio, "cosine": self.cosine}
        return {name: float(f"{float(value):.4g}") for name, value in values.items()}

    def _dot(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
        products = [
            (one.detach().to(self._dtype) * other.to(self._dtype)).sum()
            for one, other in zip(a, b, strict=True)
        ]
        return torch.stack(products).sum()

    def _trained(self) -> list[nn.Parameter]:
        """Return the parameters that are trained now: layers may be frozen during a run."""
        return [parameter for parameter in self._student_parameters if parameter.requires_grad]

    def _gradient(self, loss: Tensor, trained: list[nn.Parameter]) -> Sequence[Tensor]:
        """Return the gradient on every trained parameter, of all ranks together."""
        if not loss.requires_grad:
            return mean_of_ranks([torch.zeros_like(parameter) for parameter in trained])
        one = loss.new_ones(())
        scale = one if self._scale is None else self._scale(one)
        try:
            # The graph is kept: the backward pass of the step is still to come.
            gradients = torch.autograd.grad(
                scale * loss,
                trained,
                retain_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
        except RuntimeError as error:
            raise blame_reentrant(error) or error from error
        if self._scale is not None:
            gradients = tuple(gradient / scale for gradient in gradients)
        return mean_of_ranks(gradients)


def _check_terms(terms: object) -> None:
    if not isinstance(terms, Mapping) or not terms:
        raise UserError(
            f"a gradient cap takes the terms of a step by name, got {shown_kind(terms)}; "
            "call cap(distiller(batch))"
        )
    for name, term in terms.items():
        check_scalar(f"a gradient cap takes scalars: the term {name!r}", term)
