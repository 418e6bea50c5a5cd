"""Poses as heat maps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tutelage.core import Batch, Evaluation, Metrics, Overlay, Task
from tutelage.core.heatmaps import (
    auxiliary_maps,
    flip_order,
    further_predictions,
    heatmap_mse,
    heatmaps_of,
    joint_weights,
)
from tutelage.core.prediction import ClassMap, Prediction
from tutelage.core.taps import call
from tutelage.core.task import HasClasses
from tutelage.errors import UserError
from tutelage.tasks.pose.constant import mean_pose
from tutelage.tasks.pose.heatmaps import averaged, decode, gaussian_maps, stride_of
from tutelage.tasks.pose.metrics import PoseMetrics
from tutelage.tasks.pose.oks import COCO_SIGMAS, OksMetrics, to_image


class Pose(Task):
    """Squared error of heat maps.

    The inputs of a batch are images (N, C, H, W), its labels (N, K, 3): x and y in pixels of the
    input, and the weight, 0 for a joint without a label. The network returns heat maps (N, K, h, w)
    or (N, S, K, h, w) of S stacks, by themselves or as `heatmaps` of a mapping (Hugging Face).

    >>> task = Pose(num_joints=2)
    >>> points = torch.tensor([[[8.0, 8.0, 1.0], [0.0, 0.0, 0.0]]])
    >>> batch = Batch.of((torch.zeros(1, 3, 32, 32), points))
    >>> round(task.loss(torch.zeros(1, 2, 8, 8), batch).item(), 4)
    0.0457

    Args:
        num_joints: K.
        sigma: of the Gaussians, in pixels of the maps.
        thresholds: of the metrics `pck@<threshold>`, shares of a length.
        alpha: the threshold of `pck`, by which the best epoch is chosen, and of metrics by joint.
        names: of the joints; without them there are no metrics by joint.
        groups: names of groups of joints → the names of their joints.
        uncounted: names of joints that `pck` leaves out, such as pelvis and thorax in PCKh.
        oks_sigmas: deviations of the joints for COCO's average precision, for data with areas;
            `coco` is those of its 17 joints, None computes none.
        flip_test: pairs of joint names that change places in a mirror: the maps of each image are
            averaged with those of its mirror image, in evaluation alone; None does not.

    Raises:
        UserError: If an argument is out of range, or a joint is unknown.
    """

    monitor = "pck"

    def __init__(
        self,
        num_joints: int,
        *,
        sigma: float = 2.0,
        thresholds: Sequence[float] = (0.05, 0.1, 0.2),
        alpha: float = 0.05,
        names: Sequence[str] = (),
        groups: Mapping[str, Sequence[str]] | None = None,
        uncounted: Sequence[str] = (),
        oks_sigmas: Sequence[float] | Literal["coco"] | None = None,
        flip_test: Sequence[tuple[str, str]] | None = None,
    ) -> None:
        if not isinstance(num_joints, int) or num_joints < 1:
            raise UserError(f"num_joints must be at least 1, got {num_joints!r}")
        if not 0 < sigma < math.inf:
            raise UserError(f"sigma must be positive and finite, got {sigma}")
        if names and (len(names) != num_joints or len(set(names)) != num_joints):
            raise UserError(
                f"names are one for each of the {num_joints} joints, all different, got "
                f"{list(names)}"
            )
        if not thresholds or min(thresholds) <= 0:
            raise UserError(f"thresholds are positive shares of a length, got {list(thresholds)}")
        if alpha not in thresholds:
            raise UserError(f"alpha is one of the thresholds {list(thresholds)}, got {alpha}")
        self.num_joints = num_joints
        self.sigma = sigma
        self.thresholds = tuple(thresholds)
        self.alpha = alpha
        self.names = tuple(names)
        self.groups = {name: tuple(members) for name, members in (groups or {}).items()}
        self.uncounted = tuple(uncounted)
        self.oks_sigmas = oks_sigmas
        self.flip_test = flip_test
        self._group_indices()
        self._indices("uncounted", self.uncounted)
        self._check_sigmas()
        self._mirror_order()

    def inputs(self, batch: Batch) -> tuple[Any, ...]:
        """Return the inputs of the batch as the only argument."""
        return (batch.inputs,)

    def loss(self, output: Any, batch: Batch) -> Tensor:
        """Return ½ · mean (w (o - g))², summed over all stacks of all branches.

        Raises:
            UserError: If maps and labels do not fit the task or each other.
        """
        paths = [self._maps(output), *auxiliary_maps(output).values()]
        maps = paths[0] if len(paths) == 1 else torch.cat(paths, 1)
        target, weight = self.targets(maps, batch)
        return heatmap_mse(maps, target, weight)

    def targets(self, maps: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return target maps (N, K, h, w) for maps of this size, and the weights (N, K)."""
        stride = stride_of(batch.inputs, maps)
        joint_weights(batch)  # raises unless the labels are points
        rows, columns = maps.shape[-2:]
        points = batch.labels.float()
        if points.shape[1] != self.num_joints:
            raise UserError(
                f"the data has {points.shape[1]} joints, but task.num_joints is "
                f"{self.num_joints}; set it and the network's to the data's"
            )
        return gaussian_maps(points, (rows, columns), stride, sigma=self.sigma)

    def points(self, maps: Tensor, batch: Batch) -> Tensor:
        """Return the points (N, K, 2) of maps (N, K, h, w), in pixels of the input."""
        stride_y, stride_x = stride_of(batch.inputs, maps)
        found, _ = decode(maps.float())
        return found * torch.tensor([stride_x, stride_y], device=found.device)

    def validate(self, output: Any, batch: Batch, data: Any = None) -> None:
        """Raise unless data, labels and maps have the joints of the task."""
        if isinstance(data, HasClasses) and len(data.classes) != self.num_joints:
            raise UserError(
                f"the data has {len(data.classes)} joints, but task.num_joints is "
                f"{self.num_joints}; set it and the network's to the data's"
            )
        if isinstance(data, HasClasses) and self.names and tuple(data.classes) != self.names:
            raise UserError(
                f"the data has the joints {list(data.classes)}, but task.names are "
                f"{list(self.names)}; name them in the order of the data"
            )
        self._check_mirror(data)
        self.loss(output, batch)

    def _check_mirror(self, data: Any) -> None:
        """Raise if the flip test swaps other joints than the data says change places."""
        order = self._mirror_order()
        pairs = getattr(data, "pairs", None)
        if order is None or not isinstance(pairs, Tensor):
            return
        if not torch.equal(order, pairs):
            raise UserError(
                f"task.flip_test swaps the joints {order.tolist()}, but data.flip_pairs "
                f"{pairs.tolist()}; name the same pairs in both"
            )

    def overlays(self, batch: Batch, output: Any = None) -> Sequence[Overlay]:
        """Return the points of every image: the true ones, or those of an output."""
        if output is None:
            labels = batch.labels
            return [Overlay(points=row[:, :2], point_scores=row[:, 2]) for row in labels]
        maps = self._maps(output)[:, -1]
        points = self.points(maps, batch)
        scores = maps.detach().flatten(-2).amax(-1)
        return [
            Overlay(points=row, point_scores=score)
            for row, score in zip(points.detach(), scores, strict=True)
        ]

    def further_overlays(self, batch: Batch, output: Any) -> dict[str, Sequence[Overlay]]:
        """Return the points of the ensemble, if the network has one."""
        further = further_predictions(output)
        if "ensemble" not in further:
            return {}
        return {"ensemble": self.overlays(batch, further["ensemble"])}

    def predictions(
        self, output: Any, batch: Batch, classes: ClassMap, top: int | None
    ) -> list[Prediction]:
        """Return the joints of each image, in pixels of the user's own image."""
        maps = self._maps(output)[:, -1]
        points = to_image(self.points(maps, batch), batch)
        peaks = maps.float().flatten(-2).amax(-1)
        names = classes.names or self.names or [f"joint{index}" for index in range(self.num_joints)]
        return [
            Prediction(_record(names, row, peak), Overlay(points=row, point_scores=peak))
            for row, peak in zip(points, peaks, strict=True)
        ]

    def outputs(self, output: Any, inputs: Any) -> dict[str, Tensor]:
        """Return the heat maps (N, K, h, w) of the last stack: what an exported network gives."""
        return {"heatmaps": heatmaps_of(output)[:, -1]}

    def metrics(self) -> Metrics:
        """Return new running metrics."""
        return self._metrics(None)

    def chance_level(self) -> float:
        """Return 0; what the mean training pose scores stands in the metrics as `constant`."""
        return 0.0

    def evaluate(
        self, model: nn.Module, parts: Mapping[str, Any], run: Evaluation
    ) -> dict[str, float]:
        """Return the metrics of a network, beside those of the mean training pose."""
        metrics = self._metrics(mean_pose(parts.get("train")))
        for batch in run.batches(parts[run.part]):
            inputs = self.inputs(batch)
            teacher = None if run.teacher is None else run.teacher(batch, inputs).output
            metrics.update(self._predicted(model, inputs), batch, teacher)
        return metrics.compute()

    def _predicted(self, model: nn.Module, inputs: tuple[Any, ...]) -> Any:
        """Return what a network gives in evaluation, with the flip test if there is one."""
        output = call(model, inputs)
        order = self._mirror_order()
        if order is None:
            return output
        return averaged(output, call(model, (inputs[0].flip(-1),)), order)

    def _metrics(self, constant: Tensor | None) -> PoseMetrics:
        return PoseMetrics(
            self.points,
            lambda output: self._maps(output)[:, -1],
            thresholds=self.thresholds,
            alpha=self.alpha,
            names=self.names,
            groups=self._group_indices(),
            uncounted=self._indices("uncounted", self.uncounted),
            oks=None if self.oks_sigmas is None else OksMetrics(self._sigmas()),
            constant=constant,
        )

    def _maps(self, output: Any) -> Tensor:
        """Return the maps of all stacks (N, S, K, h, w)."""
        maps = heatmaps_of(output)
        if maps.shape[2] != self.num_joints:
            raise UserError(
                f"the network gives maps of {maps.shape[2]} joints, but task.num_joints is "
                f"{self.num_joints}; set the network's num_joints and task.num_joints to the data's"
            )
        return maps

    def _sigmas(self) -> Sequence[float]:
        assert self.oks_sigmas is not None
        return COCO_SIGMAS if self.oks_sigmas == "coco" else self.oks_sigmas

    def _check_sigmas(self) -> None:
        if self.oks_sigmas is None:
            return
        sigmas = self._sigmas()
        if len(sigmas) != self.num_joints or min(sigmas) <= 0:
            raise UserError(
                f"oks_sigmas are one positive number for each of the {self.num_joints} joints, got "
                f"{list(sigmas)}"
            )

    def _mirror_order(self) -> Tensor | None:
        """Return which joint each one is in a mirror; None without a flip test."""
        if self.flip_test is None:
            return None
        if not self.flip_test:
            return torch.arange(self.num_joints)
        return flip_order(self.names, self.flip_test)

    def _group_indices(self) -> dict[str, list[int]]:
        return {
            name: self._indices(f"the group {name!r}", members)
            for name, members in self.groups.items()
        }

    def _indices(self, what: str, members: Sequence[str]) -> list[int]:
        unknown = [member for member in members if member not in self.names]
        if unknown:
            raise UserError(
                f"{what} has the joint {unknown[0]!r}, which is none of task.names "
                f"{list(self.names)}; name joints of the task"
            )
        return [self.names.index(member) for member in members]


def _record(names: Sequence[str], points: Tensor, peaks: Tensor) -> dict[str, Any]:
    """Return the joints of one image as JSON can hold them."""
    rows = zip(names, points.tolist(), peaks.tolist(), strict=True)
    return {
        "joints": {
            name: {"x": round(x, 2), "y": round(y, 2), "score": round(peak, 4)}
            for name, (x, y), peak in rows
        }
    }
