"""PCK, the share of joints that are found, by threshold, joint, group and branch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tutelage.core import Batch, Metrics
from tutelage.core.heatmaps import further_predictions
from tutelage.errors import UserError
from tutelage.tasks._checks import refuse_undefined
from tutelage.tasks.pose.oks import OksMetrics

Points = Callable[[Tensor, Batch], Tensor]


def pck(
    points: Tensor, truth: Tensor, reference: Tensor, *, thresholds: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Return how many joints lie within a share of a length from the truth, and how many there are.

    >>> truth = torch.tensor([[[10.0, 10.0, 1.0], [0.0, 0.0, 0.0]]])
    >>> pck(torch.full((1, 2, 2), 13.0), truth, torch.tensor([50.0]), thresholds=[0.05, 0.1])
    (tensor([[0., 0.],
            [1., 0.]]), tensor([1., 0.]))

    Args:
        points: (N, K, 2).
        truth: (N, K, 3), with a weight; a joint of weight 0 does not count.
        reference: (N,), the length that thresholds are shares of; or (N, 2), one in x and in y.
        thresholds: R shares; a distance of exactly that share is found.

    Returns:
        Hits (R, K) and counts (K,).

    Raises:
        UserError: If shapes do not fit.
    """
    is_pair = points.ndim == 3 and points.shape[-1] == 2
    if not is_pair or truth.shape != (*points.shape[:2], 3):
        raise UserError(
            f"points are (N, K, 2) and the truth is (N, K, 3) with a weight, got "
            f"{tuple(points.shape)} and {tuple(truth.shape)}; let them have the same joints"
        )
    if tuple(reference.shape) not in ((len(points),), (len(points), 2)):
        raise UserError(
            f"the reference is (N,) or (N, 2) for {len(points)} images, got "
            f"{tuple(reference.shape)}; give a length of each"
        )
    visible = truth[..., 2] > 0
    lengths = reference[:, None, None] if reference.ndim == 1 else reference[:, None]
    distance = ((points - truth[..., :2]) / lengths).norm(dim=-1)
    limits = torch.tensor(list(thresholds), device=distance.device, dtype=distance.dtype)
    hits = (distance[None] <= limits[:, None, None]) & visible
    return hits.sum(1).to(torch.float32), visible.sum(0).to(torch.float32)


class PoseMetrics(Metrics):
    """Running metrics of a network for poses, over the joints that have a label.

    - `pck`: the share of joints whose distance to the truth is at most α times the reference: the
      longer side of the input, or what the data says, such as the size of a head
    - `pck@<threshold>`: the same for other thresholds
    - `pck/<joint>` by joint, and `pck/<group>` by group of joints
    - `error`: mean distance in percent of the reference
    - `<branch>/pck`, `ensemble/pck`: of further predictions in the output
    - `branch_agreement`: share of joints at which two branches are within α of each other
    - with deviations of joints `ap` to `ar_large`, see `keypoint_precision`
    - `constant/pck`: of the mean training pose, whatever the image
    - with a teacher `agreement`: share of joints at which it is within α
    - `num_samples`: the number of labeled joints

    Args:
        points: reads points (N, K, 2) in pixels of the input from maps (N, K, h, w).
        maps: reads the maps of the prediction from an output.
        thresholds: of the metrics.
        alpha: α, one of the thresholds.
        names: of the joints; without names there are no metrics by joint.
        groups: of joints by name: the joints' indices.
        uncounted: indices of joints that only metrics by joint count.
        oks: average precision by similarity of keypoints, or None.
        constant: (K, 2) a pose in pixels of the input that stands for every image, or None.
    """

    def __init__(
        self,
        points: Points,
        maps: Callable[[Any], Tensor],
        *,
        thresholds: Sequence[float],
        alpha: float,
        names: Sequence[str] = (),
        groups: Mapping[str, Sequence[int]] | None = None,
        uncounted: Sequence[int] = (),
        oks: OksMetrics | None = None,
        constant: Tensor | None = None,
    ) -> None:
        self._points = points
        self._maps = maps
        self._thresholds = tuple(thresholds)
        self._alpha = alpha
        self._headline = self._thresholds.index(alpha)
        self._names = tuple(names)
        self._groups = dict(groups or {})
        self._uncounted = list(uncounted)
        self._oks = oks
        self._constant = constant
        # Sums by name; those that not all ranks have are 0 there.
        self._sums: dict[str, Tensor] = {}

    def update(self, output: Any, batch: Batch, teacher: Any = None) -> None:
        """Add one batch."""
        # A joint beside the region that was cut out has no target map, but counts as one to find.
        truth = batch.get("joints", batch.labels).float()
        maps = self._maps(output)
        reference = reference_of(batch)
        self._add("undefined", maps.flatten(1).isfinite().logical_not().any(1).sum())
        self._add("samples", torch.tensor(float(len(truth))))
        points = self._points(maps, batch)
        self._add_pck("", points, truth, reference)
        if self._oks is not None:
            self._oks.update(points, maps.float().flatten(-2).amax(-1), batch)
        distance = (points - truth[..., :2]).norm(dim=-1) / reference[:, None]
        visible = truth[..., 2] > 0
        self._add("error", (distance * visible).sum())
        if self._constant is not None:
            constant = self._constant.to(truth.device).expand(len(truth), -1, -1)
            self._add_pck("constant/", constant, truth, reference)
        branches = [points]
        for name, further in further_predictions(output).items():
            others = self._points(further, batch)
            self._add_pck(f"{name}/", others, truth, reference)
            if name != "ensemble":
                branches.append(others)
        for first in range(len(branches)):
            for second in range(first):
                pair = branches[first], branches[second]
                self._add_agreement("branch_agreement", *pair, truth, reference)
        if teacher is not None:
            teacher_points = self._points(self._maps(teacher), batch)
            self._add_agreement("agreement", points, teacher_points, truth, reference)

    def compute(self) -> dict[str, float]:
        """Return the metrics by name.

        Raises:
            UserError: If no labeled joint was seen, on any rank, or if maps are NaN.
        """
        sums = _over_ranks(self._sums)
        if "counts" not in sums or float(sums["counts"].sum()) == 0:
            raise UserError(
                "there is nothing to evaluate: no joint is labeled; check data.root and the split"
            )
        refuse_undefined("network", int(sums["undefined"]), f"{int(sums['samples'])} images")
        counts = sums["counts"]
        metrics: dict[str, float] = {}
        for prefix in [key.removesuffix("hits") for key in sums if key.endswith("hits")]:
            hits = sums[f"{prefix}hits"]
            counted = torch.ones_like(counts)
            counted[self._uncounted] = 0.0
            metrics[f"{prefix}pck"] = _share(hits[self._headline] * counted, counts * counted)
            for row, threshold in zip(hits, self._thresholds, strict=True):
                if threshold != self._alpha:
                    metrics[f"{prefix}pck@{threshold:g}"] = _share(row * counted, counts * counted)
            if prefix in ("", "constant/"):
                metrics |= self._by_group(prefix, hits, counts)
        if self._oks is not None:
            metrics |= self._oks.compute()
        metrics["error"] = 100 * float(sums["error"] / counts.sum())
        for name in ("branch_agreement", "agreement"):
            if name in sums:
                near, total = sums[name].tolist()
                metrics[name] = near / max(total, 1.0)
        metrics |= self._by_joint(sums["hits"], counts)
        metrics["num_samples"] = float(counts.sum())
        return metrics

    def _by_joint(self, hits: Tensor, counts: Tensor) -> dict[str, float]:
        row = hits[self._headline]
        return {
            f"pck/{name}": _share(row[index], counts[index])
            for index, name in enumerate(self._names)
        }

    def _by_group(self, prefix: str, hits: Tensor, counts: Tensor) -> dict[str, float]:
        row = hits[self._headline]
        return {
            f"{prefix}pck/{name}": _share(row[list(members)], counts[list(members)])
            for name, members in self._groups.items()
        }

    def _add_pck(self, prefix: str, points: Tensor, truth: Tensor, reference: Tensor) -> None:
        hits, counts = pck(points, truth, reference, thresholds=self._thresholds)
        self._add(f"{prefix}hits", hits)
        if not prefix:
            self._add("counts", counts)

    def _add_agreement(
        self, name: str, first: Tensor, second: Tensor, truth: Tensor, reference: Tensor
    ) -> None:
        labeled = torch.cat([second, truth[..., 2:]], -1)
        hits, counts = pck(first, labeled, reference, thresholds=[self._alpha])
        self._add(name, torch.stack([hits.sum(), counts.sum()]))

    def _add(self, name: str, value: Tensor) -> None:
        value = value.double()
        self._sums[name] = value if name not in self._sums else self._sums[name] + value


def reference_of(batch: Batch) -> Tensor:
    """Return the length (N,) that errors are shares of: the data's, or the input's longer side."""
    reference = batch.get("reference")
    if isinstance(reference, Tensor):
        return reference.float()
    longest = float(max(batch.inputs.shape[-2:]))
    return torch.full((len(batch.inputs),), longest, device=batch.inputs.device)


def _share(hits: Tensor, counts: Tensor) -> float:
    """Return the share of labeled joints; NaN without any."""
    return float(hits.sum() / counts.sum())


def _over_ranks(sums: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the sums of all ranks, one of which may have seen no batch."""
    from tutelage.core.distributed import gather_lists, is_distributed

    own = {name: value.cpu() for name, value in sums.items()}
    if not is_distributed():
        return own
    (ranks,) = gather_lists([[{name: value.tolist() for name, value in own.items()}]])
    total: dict[str, Tensor] = {}
    for rank in ranks:
        for name, values in rank.items():
            value = torch.tensor(values, dtype=torch.float64)
            total[name] = value if name not in total else total[name] + value
    return total
