"""Residual knowledge distillation: an assistant learns what the student missed of the teacher.

Source: M. Gao, Y. Shen, Q. Li, C. C. Loy, "Residual Knowledge Distillation", 2020, arXiv
2002.09168; journal version M. Gao, Y. Wang, L. Wan, Neurocomputing 2021, doi
10.1016/j.neucom.2020.10.113. No official code was found, and only abstract and introduction were
available: the roles of student, assistant and teacher are sourced, the rest is **our design**.

    f_S = P_S F_S,   f_A = P_A F_A,   f̂ = f_S + Σ f_A,   logits = head(f̂)
    L_S = d(f_S, f_T)
    L_A = Σ_k d(f_{A_k}, sg[f_T - f_S - Σ_{j<k} f_{A_j}])
    L_C = d(f̂, f_T)
    L = task_weight · CE(head(f̂)) + student_task_weight · CE(head(f_S))
        + student_weight · L_S + assistant_weight · L_A

F_S, F_A, f_T: features of the members and the teacher; P: 1×1 convolutions with bias, P_A = 0 at
first; d: mean squared error or attention distance (`losses.py`); sg stops the gradient. With the
mean squared error and one assistant L_A and L_C are one number, and differ in whether the
assistant's error may move the student.

Schedules: "joint" trains all of it at once, with L_A after a warm-up. "end_to_end" has L_C for L_A.
"stagewise" trains the student by CE(head(f_S)) and L_S, then the assistants by L_A, then the head.

`build_student` splits the student into narrow copies that together cost no more (`split.py`), and
`deploy` keeps all of them, as one network without adapters. Cost: narrow networks are often slower
together than one wide network of equal multiply-adds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from tutelage.core import Around, Method, MethodInfo, Step, Teacher
from tutelage.core.distributed import is_distributed
from tutelage.core.frozen import Unregistered
from tutelage.errors import UserError
from tutelage.methods._checks import check_choice, check_weights
from tutelage.methods._layer_pairs import checked_pairs
from tutelage.methods._projection import pooled
from tutelage.methods.residual_kd.joint_head import (
    JointHead,
    check_classifiers,
    check_same_size,
    initial_classifier,
    make_adapters,
)
from tutelage.methods.residual_kd.losses import (
    FeatureDistance,
    Schedule,
    feature_distance,
    residual_kd_loss,
)
from tutelage.methods.residual_kd.network import ResidualNetwork, member_names
from tutelage.methods.residual_kd.split import check_budget, check_student_layers, split_student

Pair = tuple[list[Tensor], Tensor]
"""Features of one pair of layers: those of all members, and the teacher's."""

WARMUP = 0.1
"""Share of the run without L_A under "joint": the residual is noise before the student settles."""

STAGE_STARTS = (0.5, 0.9)
"""Shares of the run at which "stagewise" goes on to the assistants, and to the head."""


class ResidualKD(Method):
    """A student with assistants.

    The terms are `residual_kd/student/<layer>`, `residual_kd/assistant/<layer>` (or
    `residual_kd/combined/<layer>`, end to end) and `residual_kd/student_task`. Stagewise there is
    one term, `residual_kd`, with the labels in it.

    >>> ResidualKD({"stage3": "stage3"}, num_assistants=2).student_layers
    ('student.stage3', 'assistants.0.stage3', 'assistants.1.stage3')

    Args:
        layer_pairs: student layer → teacher layer; the last pair is what the classifiers see,
            before the global pooling.
        share: part of the student's budget, between 0 and 1, that all assistants have together.
        num_assistants: how many of them there are.
        channel_multiple: all numbers of channels are multiples of it; 8 suits a GPU.
        input_shape: (C, H, W), to hold the multiply-adds to the student's as well; None holds the
            parameters alone.
        student_weight: factor of L_S; 0 is off.
        assistant_weight: factor of L_A or L_C; 0 is off.
        student_task_weight: factor of the supervised loss of the student without its assistants.
        schedule: `"joint"`, `"end_to_end"`, or `"stagewise"`, which needs `task_weight=0`.
        distance: `"mse"`, or `"attention"`, which is blind to sign and channels.
        classifier: name of the teacher's linear classifier, a copy of which is the head's start;
            None starts from a new one.
        task_weight: factor of the supervised loss.

    Raises:
        UserError: If options are out of range or do not fit together.
    """

    info = MethodInfo(
        paper="M. Gao et al., Residual Knowledge Distillation, 2020, arXiv 2002.09168 "
        "(roles; the form is ours)",
        tasks="classification",
        needs="a convolutional student, which is split, with a linear classifier after global "
        "pooling; pairs of layers",
        trains="assistants, which are deployed, and a 1×1 adapter for each, fused into the "
        "classifiers for deployment",
    )
    search_space = (Around("student_weight", 10.0), Around("assistant_weight", 10.0))

    def __init__(
        self,
        layer_pairs: Mapping[str, str],
        *,
        share: float = 0.2,
        num_assistants: int = 1,
        channel_multiple: int = 1,
        input_shape: tuple[int, int, int] | None = None,
        student_weight: float = 1.0,
        assistant_weight: float = 1.0,
        student_task_weight: float = 0.5,
        schedule: Schedule = "joint",
        distance: FeatureDistance = "mse",
        classifier: str | None = "classifier",
        task_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_weights("ResidualKD", student_weight, assistant_weight)
        check_weights("ResidualKD", student_task_weight, task_weight)
        check_budget(share, num_assistants, channel_multiple, input_shape)
        check_choice("schedule", schedule, Schedule)
        check_choice("distance", distance, FeatureDistance)
        self.layer_pairs = checked_pairs("ResidualKD", layer_pairs)
        self.share = share
        self.num_assistants = num_assistants
        self.channel_multiple = channel_multiple
        self.input_shape = input_shape
        self.student_weight = student_weight
        self.assistant_weight = assistant_weight
        self.student_task_weight = student_task_weight
        self.schedule = schedule
        self.distance = distance
        self.classifier = classifier
        self.task_weight = task_weight
        self._check_weights()
        members = member_names(num_assistants)
        self.student_layers = tuple(f"{m}.{name}" for name in self.layer_pairs for m in members)
        self.teacher_layers = tuple(self.layer_pairs.values())
        self._network: Unregistered[ResidualNetwork] | None = None

    @property
    def network(self) -> ResidualNetwork:
        """The student and its assistants, as `build_student` returned them."""
        if self._network is None:
            raise UserError(
                "ResidualKD has no assistant yet; give the Distiller "
                "method.build_student(student, teacher)"
            )
        return self._network.module

    def build_student(self, student: nn.Module, teacher: Teacher) -> nn.Module:
        """Split the student into a narrower one and its assistants, with new weights."""
        check_student_layers(student, list(self.layer_pairs))
        members = split_student(
            student,
            share=self.share,
            num_assistants=self.num_assistants,
            channel_multiple=self.channel_multiple,
            input_shape=self.input_shape,
        )
        network = ResidualNetwork(members[0], members[1:])
        # The Distiller trains and saves it as its student; the method only reads its head.
        self._network = Unregistered(network)
        return network

    def setup(self, example: Step, teacher: Teacher) -> None:
        """Build adapters and head from one batch."""
        if self.schedule == "stagewise" and is_distributed():
            # Parameters without a gradient, which is what a frozen stage has, would stop DDP.
            raise UserError(
                "the schedule 'stagewise' trains its parts in turn, in one process; take 'joint'"
            )
        raw = self._raw_features(example)
        teacher_features = [example.teacher.feature(layer) for layer in self.teacher_layers]
        classifiers = self.network.fuse().classifiers
        check_classifiers(classifiers, raw[-1], example.student.logits, "the student")
        classifier = initial_classifier(teacher, self.classifier, example, teacher_features[-1])
        uses_labels = self.student_task_weight or self.task_weight or self.schedule == "stagewise"
        classifier.requires_grad_(bool(uses_labels))
        adapters = [
            make_adapters(row, width=feature.shape[1])
            for row, feature in zip(raw, teacher_features, strict=True)
        ]
        head = JointHead(adapters, classifier)
        head.freeze_unused(
            student=bool(self.student_weight), assistants=bool(self.assistant_weight)
        )
        self.network.set_joint_head(head)
        if self.schedule == "stagewise":
            # The Distiller tries the last stage; those before it have other terms.
            for probe_point in (0.0, STAGE_STARTS[0]):
                self(replace(example, progress=probe_point))

    def on_step_start(self, progress: float) -> None:
        """Keep the members in eval mode whose stage is over."""
        if self.schedule != "stagewise":
            return
        stage = _stage(progress)
        if stage > 0:
            self.network.student.eval()
        if stage > 1:
            self.network.assistants.eval()

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Return the terms that have a weight."""
        head = self.network.joint_head()
        raw = self._raw_features(step)
        pairs: list[Pair] = []
        for index, layer in enumerate(self.teacher_layers):
            features = head.features(raw[index], pair=index)
            teacher = step.teacher.feature(layer)
            check_same_size(features, teacher)
            pairs.append((features, teacher))
        if self.schedule == "stagewise":
            return {"residual_kd": self._stage_loss(step, raw[-1], pairs)}
        # A term that waits stays, at 0: DDP needs its gradients.
        ramp = 0.0 if self.schedule == "joint" and step.progress < WARMUP else 1.0
        second = "combined" if self.schedule == "end_to_end" else "assistant"
        terms: dict[str, Tensor] = {}
        for layer, (features, teacher) in zip(self.layer_pairs, pairs, strict=True):
            losses = residual_kd_loss(
                features[0], features[1:], teacher, distance=self.distance, schedule=self.schedule
            )
            if self.student_weight:
                terms[f"residual_kd/student/{layer}"] = self.student_weight * losses["student"]
            if self.assistant_weight:
                weight = self.assistant_weight * ramp
                terms[f"residual_kd/{second}/{layer}"] = weight * losses[second]
        if self.student_task_weight:
            task_loss = step.task_loss(head.member_logits(0, pooled(raw[-1][0])))
            terms["residual_kd/student_task"] = self.student_task_weight * task_loss
        return terms

    def deploy(self, student: nn.Module) -> nn.Module:
        """Fuse adapters and head into the members' classifiers; all members are deployed."""
        if not isinstance(student, ResidualNetwork):
            raise UserError(
                f"ResidualKD deploys what build_student returned, got a {type(student).__name__}"
            )
        return student.fuse()

    def _check_weights(self) -> None:
        if self.schedule == "stagewise":
            if self.task_weight:
                raise UserError(
                    "'stagewise' has the labels in its own term; set task_weight to 0, not "
                    f"{self.task_weight}"
                )
        elif not (self.task_weight or self.assistant_weight):
            raise UserError("the assistants learn nothing: raise assistant_weight or task_weight")

    def _raw_features(self, step: Step) -> list[list[Tensor]]:
        """Return the features of all members, for each pair of layers."""
        members = member_names(self.num_assistants)
        return [
            [step.student.feature(f"{member}.{layer}") for member in members]
            for layer in self.layer_pairs
        ]

    def _stage_loss(
        self, step: Step, last_features: Sequence[Tensor], pairs: Sequence[Pair]
    ) -> Tensor:
        """Return the loss of the stage."""
        # What is frozen gets no gradient at all, instead of zeros, so that no optimizer moves it.
        stage = _stage(step.progress)
        head = self.network.joint_head()
        if stage == 2:
            vectors = [pooled(feature) for feature in last_features]
            return step.task_loss(head.detached_logits(vectors))
        losses = []
        for (student, *assistants), teacher in pairs:
            if stage == 1:
                fit = residual_kd_loss(student, assistants, teacher, distance=self.distance)
                losses.append(fit["assistant"])
            else:
                losses.append(feature_distance(student, teacher, distance=self.distance))
        total = torch.stack(losses).sum()
        if stage == 1:
            return self.assistant_weight * total
        task_loss = step.task_loss(head.member_logits(0, pooled(last_features[0])))
        return task_loss + self.student_weight * total


def _stage(progress: float) -> int:
    """Return what "stagewise" trains: 0 the student, 1 the assistants, 2 the head.

    >>> [_stage(progress) for progress in (0.0, 0.5, 0.9, 1.0)]
    [0, 1, 2, 2]
    """
    return sum(progress >= start for start in STAGE_STARTS)
