"""Residual knowledge distillation: an assistant learns what the student missed of the teacher's features.

Source: M. Gao, Y. Shen, Q. Li, C. C. Loy, "Residual Knowledge Distillation", 2020, arXiv 2002.09168; journal version
M. Gao, Y. Wang, L. Wan, Neurocomputing 2021, doi 10.1016/j.neucom.2020.10.113. No official code was found, and only the
abstract and introduction: the roles of student, assistant and teacher are theirs, the rest is **our design**.

    f_S = P_S F_S, f_A = P_A F_A (1×1 with bias, P_A = 0 at first), f̂ = f_S + Σ f_A, logits = head(f̂)
    L_S = d(f_S, f_T),   L_A = Σ_k d(f_{A_k}, sg[f_T - f_S - Σ_{j<k} f_{A_j}]),   L_C = d(f̂, f_T)
    L = task_weight · CE(head(f̂)) + alone · CE(head(f_S)) + student · L_S + assistant · L_A

d: mean squared error or attention distance (`residual_loss.py`); sg stops the gradient. With mse and one assistant
L_A and L_C are one number, and differ in whether the assistant's error may move the student. Schemes: "joint" (L_A),
"end_to_end" (L_C for L_A), "stagewise" (the student by CE(head(f_S)) and L_S, then the assistants, then the head).

`grow` splits the student into narrow copies that together cost no more (`budget.py`); `ship` keeps them all, as one
network without adapters. Cost: narrow networks, often slower together than one wide one of equal multiply-adds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from tutelage.core import Method, Step, Teacher
from tutelage.core.method import Card
from tutelage.errors import UserError
from tutelage.methods.budget import Budget, split
from tutelage.methods.parts import check_finite
from tutelage.methods.residual_head import pooled, same_size
from tutelage.methods.residual_loss import feature_distance, residual_kd_loss
from tutelage.methods.residual_pair import ResidualPair
from tutelage.methods.residual_scheme import Scheme
from tutelage.methods.residual_setup import check_classifiers, check_settings, first_head, join

BUDGET, SCHEME = Budget(), Scheme()


class ResidualKD(Method):
    """A student with assistants; terms `residual_kd.student.<tap>`, `.assistant.<tap>` or `.combined.<tap>`, `.alone`.

    >>> ResidualKD({"stage3": "stage3"}, Budget(assistants=2)).student_taps
    ('student.stage3', 'assistants.0.stage3', 'assistants.1.stage3')

    Args:
        pairs: student tap → teacher tap; the last is what the classifier sees, before the global pooling.
        budget: how the student's is shared out between student and assistants.
        student, assistant: factors of L_S and of L_A or L_C, λ_S and λ_A; 0 is off.
        alone: factor of the supervised loss of the student without its assistants.
        scheme: what is trained when; "stagewise" has one term, `residual_kd`, with the labels in it.
        distance: "mse" or "attention".
        classifier, train_head: the teacher's linear one, which the head starts from, None is new; False keeps it so.
        resize: "bilinear" brings the larger map to the size of the smaller one.
        task_weight: factor of the supervised loss.
    """

    card = Card(
        paper="M. Gao et al., Residual Knowledge Distillation, 2020, arXiv 2002.09168 (roles; the form is ours)",
        tasks="classification",
        needs="a convolutional student, which is split, with a linear classifier after global pooling; pairs of taps",
        trains="assistants, which are deployed, and a 1×1 adapter for each, folded into the classifiers at ship",
    )
    grows = True

    def __init__(
        self, pairs: Mapping[str, str], budget: Budget = BUDGET, student: float = 1.0, assistant: float = 1.0,
        alone: float = 0.5, scheme: Scheme = SCHEME, distance: str = "mse", classifier: str | None = "classifier",
        train_head: bool = True, resize: str | None = None, task_weight: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        check_settings(pairs, budget, scheme, distance, resize)
        self.pairs, self.budget, self.student, self.assistant = dict(pairs), budget, student, assistant
        self.alone, self.scheme, self.distance, self.classifier = alone, scheme, distance, classifier
        self.train_head, self.resize, self.task_weight = train_head, resize, task_weight
        scheme.check_weights(task_weight, assistant)
        if not train_head and (distance == "attention" or scheme.stagewise or classifier is None):
            raise UserError("train_head=False needs a classifier, distance 'mse' and another scheme than 'stagewise'")
        self.student_taps = tuple(f"{member}.{tap}" for tap in self.pairs for member in budget.members)
        self.teacher_taps = tuple(self.pairs.values())
        self._grown: tuple[ResidualPair, ...] = ()  # in a tuple: the student, not a part of the method

    def grow(self, student: nn.Module, teacher: Teacher) -> nn.Module:
        """Split the student into a narrower one and its assistants; what it has learned is not kept."""
        first, *rest = split(student, self.budget)
        self._grown = (ResidualPair(first, rest),)
        return self._grown[0]

    def setup(self, example: Step, teacher: Teacher) -> None:
        """Build adapters and head from one batch, and try every term."""
        check_finite(example)
        self.scheme.check_processes()
        rows, told = self._raw(example), [example.teacher.tap(name) for name in self.teacher_taps]
        check_classifiers(self.pair.fold().classifiers, rows[-1], example.student.logits, "the student")
        head = first_head(teacher, self.classifier, example, told[-1])
        labels = bool(self.alone or self.task_weight or self.scheme.stagewise)
        join(self.pair, rows, told, head.requires_grad_(self.train_head and labels))
        self.pair.joint().rest(bool(self.student), bool(self.assistant))
        for progress in self.scheme.tries:
            self(replace(example, progress=progress))

    def begin(self, progress: float) -> None:
        """Keep members in eval mode whose phase of "stagewise" is over."""
        if self.scheme.stagewise:
            for member in self.pair.members[: (0, 1, None)[self.scheme.phase(progress)]]:
                member.eval()

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Return the terms that have a weight."""
        head, raw = self.pair.joint(), self._raw(step)
        rows = zip(raw, self.teacher_taps, strict=True)
        fitted = [same_size(head.features(x, i), step.teacher.tap(t), self.resize) for i, (x, t) in enumerate(rows)]
        if self.scheme.stagewise:
            return {"residual_kd": self._stage(step, raw[-1], fitted)}
        terms, later = {}, self.scheme.assistant(step.progress)
        for tap, (mine, told) in zip(self.pairs, fitted, strict=True):
            losses = residual_kd_loss(mine[0], mine[1:], told, self.distance, self.scheme.name == "end_to_end")
            for name, loss in losses.items():
                weight, fade = (self.student, 1.0) if name == "student" else (self.assistant, later)
                if weight:
                    terms[f"residual_kd.{name}.{tap}"] = weight * fade * loss
        if self.alone:
            terms["residual_kd.alone"] = self.alone * step.task(head.logits(0, pooled(raw[-1][0])))
        return terms

    def _stage(self, step: Step, last: list[Tensor], fitted: list[tuple[list[Tensor], Tensor]]) -> Tensor:
        """Return the loss of the phase; what is frozen gets no gradient at all, so that no optimiser moves it."""
        phase = self.scheme.phase(step.progress)
        if phase == 2:
            return step.task(self.pair.joint().classify([pooled(x) for x in last]))
        if phase == 1:
            fits = [residual_kd_loss(m[0], m[1:], t, self.distance)["assistant"] for m, t in fitted]
            return self.assistant * torch.stack(fits).sum()
        fits = [feature_distance(m[0], t, self.distance) for m, t in fitted]
        return step.task(self.pair.joint().logits(0, pooled(last[0]))) + self.student * torch.stack(fits).sum()

    def _raw(self, step: Step) -> list[list[Tensor]]:
        return [[step.student.tap(f"{member}.{tap}") for member in self.budget.members] for tap in self.pairs]

    @property
    def pair(self) -> ResidualPair:
        """The grown student."""
        if not self._grown:
            raise UserError("ResidualKD has no assistant yet; give the Distiller method.grow(student, teacher)")
        return self._grown[0]

    def ship(self, student: nn.Module) -> nn.Module:
        """Fold adapters and head into the members' classifiers; student and assistants are all deployed."""
        return self.pair.fold()
