"""OKDHP: the branches of a pose network learn from the ensemble of their heat maps.

Source: Z. Li, J. Ye, M. Song, Y. Huang, Z. Pan, "Online Knowledge Distillation for Efficient Pose
Estimation", ICCV 2021, arXiv 2108.02092; official code zhengli97/OKDHP@d0bf3c4. The formulas are
those of the code, since the paper's text was not available; nothing is copied, because the code has
no license file.

    L = Σ_o L_mse(o) + ensemble_weight · L_mse(m) + kd_weight · r(e) · Σ_o L_kl(o, m)
    L_mse(o) = ½ mean (w (o - g))²,    m_k = Σ_t A_tk o_tk,    L_kl: `okdhp_loss`

o: every heat map of the network, those of shared stages included; o_t: the last one of branch t;
g: targets; w: 1 for visible joints; A: attention over branches (`aggregation.py`); r: `okdhp_ramp`.
There is no teacher. One branch is deployed, as a plain network.

Symbols → arguments: T `branches`, n₀ `shared`, λ_kd `kd_weight`, λ_ens `ensemble_weight`, E `ramp`
(as a share of the run; the code's 90 of 150 epochs are 0.6). The defaults are those of the released
run script; the code's own are 5 and 6.

Differs from the official code:
- The last heat map of **each branch** enters the ensemble. The code takes the last ones of a flat
  list, which for four stacks are those of branch 2 last, branch 3 first, branch 3 last.
- Branches of any number and depth, on any `PoseNetwork`; there T = 3 and two own stacks are fixed,
  and there are as many attention heads as kernels.
- A weight w gates the divergence of its joint. There it scales the maps, which for weights other
  than 0 and 1 would be a temperature.
- The ramp follows the progress of the run step by step, not by epochs.
- The deployed branch is chosen in advance or on validation data, not as the best of all epochs on
  the reported data.

What acts: the softmax over thousands of pixels of a map of peak 1 is nearly uniform, so that the
divergence's gradient is about a hundredth of the squared error's (see docs/methods/okdhp.md).

Cost: training runs T paths and three convolutions of 3×3, 5×5 and 7×7 at the stem's width; what is
deployed costs as much as the student.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tutelage.core import Around, Method, MethodInfo, Step, Teacher
from tutelage.core.heatmaps import auxiliary_maps, heatmaps_of, joint_weights
from tutelage.errors import UserError
from tutelage.methods._checks import check_choice, check_positive, check_weights
from tutelage.methods.okdhp.aggregation import Variant
from tutelage.methods.okdhp.losses import Reduction, okdhp_loss, okdhp_ramp
from tutelage.methods.okdhp.network import BranchedPose, branched


class OKDHP(Method):
    """Branches that learn from their ensemble; the terms are `okdhp/ensemble` and `okdhp/kd`.

    The supervised loss (`task`) is that of all branches. Metrics of the ensemble and of the other
    branches stand beside those of the deployed one.

    >>> from tutelage.core import NoTeacher
    >>> from tutelage.models import small_pose
    >>> network = OKDHP(branches=3).build_student(small_pose(num_joints=5), NoTeacher())
    >>> len(network.branches), network(torch.zeros(1, 3, 32, 32))["ensemble"].shape
    (3, torch.Size([1, 5, 8, 8]))

    Args:
        branches: how many there are, at least 2.
        shared: stages of the student that all branches share, besides the stem; None takes half.
        depths: stages of each branch after those; None takes the student's for all. The deployed
            branch has the student's.
        deployed: which branch is deployed, from 0; `best` is the one that is best on validation
            data at the end, until when branch 0 stands for it. All branches then have one depth.
        kd_weight: factor of the divergence; 0 is off.
        ensemble_weight: factor of the ensemble's squared error; 0 is off.
        ramp: share of the run over which the divergence fades in; 0 is no ramp.
        temperature: see `okdhp_loss`.
        reduction: see `okdhp_loss`.
        detach_teacher: see `okdhp_loss`.
        variant: of the aggregation unit, see `FeatureAggregation`.
        squeeze: width inside that unit; None takes a quarter of the stem's channels.
        task_weight: factor of the supervised loss.

    Raises:
        UserError: If options are out of range or do not fit together.
    """

    info = MethodInfo(
        paper="Z. Li et al., Online Knowledge Distillation for Efficient Pose Estimation, "
        "ICCV 2021, arXiv 2108.02092",
        tasks="pose",
        needs="a student of stages, such as a stacked hourglass; no teacher",
        trains="branches and their aggregation unit",
    )
    search_space = (
        Around("kd_weight", 10.0),
        Around("ensemble_weight", 10.0),
        Around("temperature", 4.0),
    )
    uses_teacher = False

    def __init__(
        self,
        *,
        branches: int = 3,
        shared: int | None = None,
        depths: Sequence[int] | None = None,
        deployed: int | Literal["best"] = 0,
        kd_weight: float = 2.0,
        ensemble_weight: float = 1.0,
        ramp: float = 0.6,
        temperature: float = 1.0,
        reduction: Reduction = "okdhp",
        detach_teacher: bool = False,
        variant: Variant = "code",
        squeeze: int | None = None,
        task_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_weights("OKDHP", kd_weight, ensemble_weight, task_weight)
        check_positive("the temperature of OKDHP", temperature)
        check_choice("reduction", reduction, Reduction)
        check_choice("variant", variant, Variant)
        okdhp_ramp(0.0, ramp)
        _check_branches(branches, depths, deployed)
        if squeeze is not None and squeeze < 1:
            raise UserError(f"squeeze is a width of at least 1, got {squeeze}")
        if kd_weight and detach_teacher and not ensemble_weight:
            raise UserError(
                "nothing trains the ensemble: give ensemble_weight a weight, or set detach_teacher "
                "to False"
            )
        self.branches = branches
        self.shared = shared
        self.depths = depths
        self.deployed = deployed
        self.kd_weight = kd_weight
        self.ensemble_weight = ensemble_weight
        self.ramp = ramp
        self.temperature = temperature
        self.reduction = reduction
        self.detach_teacher = detach_teacher
        self.variant = variant
        self.squeeze = squeeze
        self.task_weight = task_weight

    def build_student(self, student: nn.Module, teacher: Teacher) -> nn.Module:
        """Return the student with new branches beside its own last stages."""
        return branched(
            student,
            branches=self.branches,
            shared=self.shared,
            depths=self.depths,
            deployed=0 if self.deployed == "best" else self.deployed,
            has_ensemble=bool(self.kd_weight or self.ensemble_weight),
            squeeze=self.squeeze,
            variant=self.variant,
        )

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Return the terms that have a weight."""
        output = step.student.output
        if not isinstance(output, Mapping) or "auxiliary" not in output:
            raise UserError(
                "OKDHP trains a network with branches; give the Distiller "
                "method.build_student(student, teacher)"
            )
        terms: dict[str, Tensor] = {}
        if self.ensemble_weight:
            terms["okdhp/ensemble"] = self.ensemble_weight * step.task_loss(output["ensemble"])
        if self.kd_weight:
            loss = okdhp_loss(
                _all_maps(output),
                output["ensemble"],
                joint_weights(step.batch),
                temperature=self.temperature,
                reduction=self.reduction,
                detach_teacher=self.detach_teacher,
            )
            terms["okdhp/kd"] = self.kd_weight * okdhp_ramp(step.progress, self.ramp) * loss
        return terms

    def choose(self, student: nn.Module, score: Callable[[nn.Module], float]) -> dict[str, Any]:
        """Choose the branch with the best score, if that is asked for; the first one of equals."""
        if self.deployed != "best":
            return {}
        network = _branched(student)
        scores = [score(network.path(index)) for index in range(self.branches)]
        network.deployed = scores.index(max(scores))
        return {"branch": network.deployed, "scores": scores}

    def deploy(self, student: nn.Module) -> nn.Module:
        """Return stem, trunk and the deployed branch as a plain network."""
        network = _branched(student)
        return network.path(network.deployed)


def _branched(student: nn.Module) -> BranchedPose:
    """Return the student as the network that `build_student` made."""
    if not isinstance(student, BranchedPose):
        raise UserError(
            f"OKDHP deploys what build_student returned, got a {type(student).__name__}"
        )
    return student


def _all_maps(output: Mapping[str, Any]) -> Tensor:
    """Return the maps of all stages (N, S, K, h, w)."""
    return torch.cat([heatmaps_of(output), *auxiliary_maps(output).values()], 1)


def _check_branches(
    branches: int, depths: Sequence[int] | None, deployed: int | Literal["best"]
) -> None:
    """Raise unless there are two branches or more, each with a depth, and the deployed one."""
    if branches < 2:
        raise UserError(f"online distillation needs at least two branches, got branches={branches}")
    if depths is not None and (len(depths) != branches or min(depths) < 1):
        raise UserError(
            f"depths are the numbers of stages of the {branches} branches, each at least 1, got "
            f"{list(depths)}"
        )
    if deployed == "best":
        if depths is not None and len(set(depths)) > 1:
            raise UserError(
                f"deployed='best' chooses among branches of one depth, but depths are "
                f"{list(depths)}; name the branch"
            )
    elif not isinstance(deployed, int) or not 0 <= deployed < branches:
        raise UserError(
            f"deployed is a branch from 0 to {branches - 1} or 'best', got {deployed!r}"
        )
