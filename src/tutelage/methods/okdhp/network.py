"""A network with several branches on a shared trunk, and the ensemble of their heat maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from tutelage.core.normalization import normalization, normalize_inputs
from tutelage.errors import UserError
from tutelage.methods.okdhp.aggregation import FeatureAggregation, Variant, ensemble_of
from tutelage.models.pose_network import PoseNetwork, run_stages


class BranchedPose(nn.Module):
    """Stem, shared stages, and branches of stages, of which one is deployed.

    The output is a mapping: `heatmaps` (N, S, K, h, w) of the trunk's stages and those of the
    deployed branch, `auxiliary` with the maps of the other branches by name, and the `ensemble`
    (N, K, h, w), if there is an aggregation unit.

    Args:
        student: gives its stem.
        trunk: the shared stages, maybe none.
        branches: the stages of each branch, two branches or more.
        deployed: which branch is deployed.
        aggregation: weighs the branches by the stem's features; None forms no ensemble.
    """

    def __init__(
        self,
        student: PoseNetwork,
        trunk: Sequence[nn.Module],
        branches: Sequence[Sequence[nn.Module]],
        deployed: int,
        aggregation: FeatureAggregation | None,
    ) -> None:
        super().__init__()
        self.stem = student.stem
        self.trunk = nn.ModuleList(trunk)
        self.branches = nn.ModuleList(nn.ModuleList(stages) for stages in branches)
        self.aggregation = aggregation
        self.deployed = deployed
        self.width = student.width
        self.num_joints = student.num_joints
        self.make_stages = student.make_stages

    def forward(self, images: Tensor) -> dict[str, Any]:
        """Return the maps of all branches and their ensemble."""
        stem = self.stem(images)
        features, shared = run_stages(self.trunk, stem)
        own = [run_stages(self._branch(index), features)[1] for index in range(len(self.branches))]
        auxiliary = {
            branch_name(index): torch.stack(maps, 1)
            for index, maps in enumerate(own)
            if index != self.deployed
        }
        output: dict[str, Any] = {
            "heatmaps": torch.stack([*shared, *own[self.deployed]], 1),
            "auxiliary": auxiliary,
        }
        if self.aggregation is not None:
            # Of each branch the last map: the official code takes the last ones of all.
            output["ensemble"] = ensemble_of([maps[-1] for maps in own], self.aggregation(stem))
        return output

    def get_extra_state(self) -> Tensor:
        """Return which branch is deployed; copies of the network take it with the weights."""
        return torch.tensor(self.deployed)

    def set_extra_state(self, state: Tensor) -> None:
        """Set which branch is deployed."""
        self.deployed = int(state)

    def path(self, index: int) -> PoseNetwork:
        """Return the network of one branch alone, with the same weights."""
        network = PoseNetwork(
            self.stem,
            [*self.trunk, *self._branch(index)],
            width=self.width,
            num_joints=self.num_joints,
            make_stages=self.make_stages,
        )
        _copy_statistics(self, network)
        return network

    def _branch(self, index: int) -> nn.ModuleList:
        return cast("nn.ModuleList", self.branches[index])


def branch_name(index: int) -> str:
    """Return what metrics call a branch.

    >>> branch_name(0)
    'branch0'
    """
    return f"branch{index}"


def branched(
    student: nn.Module,
    *,
    branches: int,
    shared: int | None,
    depths: Sequence[int] | None,
    deployed: int,
    has_ensemble: bool,
    squeeze: int | None,
    variant: Variant,
) -> BranchedPose:
    """Return the student with branches; the deployed one consists of the student's own stages.

    Args:
        student: a `PoseNetwork` that can make stages.
        branches: T.
        shared: stages of the trunk; None takes half of the student's.
        depths: stages of each branch; None takes those of the student for all.
        deployed: which branch is the student's.
        has_ensemble: whether there is an aggregation unit.
        squeeze: width inside that unit; None takes a quarter of the stem's channels, as the code.
        variant: of that unit.

    Raises:
        UserError: If the student has no stages to multiply, or the numbers do not fit it.
    """
    if not isinstance(student, PoseNetwork):
        raise UserError(
            f"OKDHP multiplies the last stages of a PoseNetwork, but the student is a "
            f"{type(student).__name__}; take tutelage.models.stacked_hourglass, deconv_pose or "
            "small_pose, or build a PoseNetwork of a stem and stages"
        )
    count = len(student.stages)
    shared = count // 2 if shared is None else shared
    if not 0 <= shared < count:
        raise UserError(
            f"the student has {count} stages, so that 0 to {count - 1} can be shared, got "
            f"shared={shared}"
        )
    depths = [count - shared] * branches if depths is None else list(depths)
    if depths[deployed] != count - shared:
        raise UserError(
            f"the deployed branch {deployed} has the student's {count - shared} own stages, but "
            f"depths {depths} says {depths[deployed]}; let them agree"
        )
    trunk, own = list(student.stages)[:shared], list(student.stages)[shared:]
    stages = [
        own if index == deployed else student.make_stages(depth)
        for index, depth in enumerate(depths)
    ]
    unit = None
    if has_ensemble:
        squeeze = max(student.width // 4, 1) if squeeze is None else squeeze
        unit = FeatureAggregation(student.width, branches, student.num_joints, squeeze, variant)
    network = BranchedPose(student, trunk, stages, deployed, unit)
    parameter = next(student.parameters())
    network.to(parameter.device, parameter.dtype)
    _copy_statistics(student, network)
    return network


def _copy_statistics(source: nn.Module, network: nn.Module) -> None:
    """Let a network normalize its inputs as another one does."""
    statistics = normalization(source)
    if statistics is not None:
        normalize_inputs(network, *statistics)
