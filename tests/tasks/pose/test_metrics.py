"""PCK and PCKh: the official code's numbers, branches, groups, the constant."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.helpers.vectors import tensor
from tutelage.core import Batch
from tutelage.errors import UserError
from tutelage.tasks import Pose
from tutelage.tasks.pose import decode, gaussian_maps, pck

NOT_IN_THE_MEAN = [6, 7]  # pelvis and thorax


@pytest.mark.parametrize("case", [22, 26])
def test_pck_of_heat_maps_is_that_of_the_official_code(case: int) -> None:
    """Its maps are square; on others it takes the height for the width."""
    found, _ = decode(tensor("okdhp", f"case{case}_pred"), refine=False)
    truth, _ = decode(tensor("okdhp", f"case{case}_target"), refine=False)
    weight = (truth > 1).all(-1, keepdim=True)
    side = tensor("okdhp", f"case{case}_pred").shape[-1]
    reference = torch.full((len(found),), side / 10, dtype=found.dtype)
    labels = torch.cat([truth, weight], -1)
    hits, counts = pck(found, labels, reference, thresholds=[0.4999999])
    shares = torch.where(counts > 0, hits[0] / counts, -1.0)
    mean = shares[counts > 0].mean()
    expected = tensor("okdhp", f"case{case}_pck_per_joint", torch.float32)
    torch.testing.assert_close(torch.cat([mean[None], shares]), expected)
    assert mean.item() == pytest.approx(tensor("okdhp", f"case{case}_pck_mean").item())


def test_pck_of_maps_that_are_not_square_divides_x_by_the_width() -> None:
    truth = torch.tensor([[[20.0, 20.0, 1.0]]])
    found = torch.tensor([[[23.0, 20.0]]])
    height, width = 64, 48
    official, _ = pck(found, truth, torch.tensor([[height / 10, width / 10]]), thresholds=[0.5])
    ours, _ = pck(found, truth, torch.tensor([[width / 10, height / 10]]), thresholds=[0.5])
    assert official.item() == 1
    assert ours.item() == 0


@pytest.mark.parametrize("case", [28, 31])
def test_pckh_is_that_of_the_official_code(case: int) -> None:
    truth, found = (tensor("okdhp", f"case{case}_{n}").permute(2, 0, 1) for n in ("gt", "pred"))
    visible = 1 - tensor("okdhp", f"case{case}_missing").T[..., None]
    boxes = tensor("okdhp", f"case{case}_headboxes")
    heads = 0.6 * (boxes[1] - boxes[0]).norm(dim=0)
    hits, counts = pck(found, torch.cat([truth, visible], -1), heads, thresholds=[0.5])
    expected = tensor("okdhp", f"case{case}_pckh_per_joint", torch.float32)
    torch.testing.assert_close(100 * hits[0] / counts, expected, equal_nan=True)
    counted = torch.ones(16)
    counted[NOT_IN_THE_MEAN] = 0
    mean = 100 * (hits[0] * counted).sum() / (counts * counted).sum()
    assert mean.item() == pytest.approx(tensor("okdhp", f"case{case}_pckh_mean").item())


def batch_and_maps(shift: float = 0.0) -> tuple[Batch, Tensor]:
    """Return four images with two joints, and their true maps, moved to the right."""
    points = torch.tensor([[[8.0, 8.0, 1.0], [20.0, 12.0, 1.0]]]).repeat(4, 1, 1)
    points[0, 1, 2] = 0.0
    moved = points + torch.tensor([shift, 0.0, 0.0])
    maps, _ = gaussian_maps(moved, (32, 32), (1, 1))
    return Batch.of((torch.zeros(4, 3, 32, 32), points)), maps


def task(**settings: object) -> Pose:
    return Pose(2, names=["nose", "tail"], alpha=0.1, **settings)  # type: ignore[arg-type]


def test_every_metric_counts_labeled_joints_only() -> None:
    batch, maps = batch_and_maps(shift=2.0)
    metrics = task(groups={"ends": ["tail"]}).metrics()
    metrics.update(maps, batch, maps)
    found = metrics.compute()
    # Two pixels of 32 are 6.25 %.
    assert found["pck@0.05"] == 0.0
    assert found["pck"] == found["pck/nose"] == found["pck/tail"] == found["pck/ends"] == 1.0
    assert found["error"] == pytest.approx(6.25, abs=0.8)
    assert found["agreement"] == 1.0
    assert found["num_samples"] == 7


def test_branches_and_ensemble_have_metrics_of_their_own() -> None:
    batch, right = batch_and_maps()
    _, wrong = batch_and_maps(shift=8.0)
    output = {"heatmaps": right, "auxiliary": {"branch1": wrong[:, None]}, "ensemble": right}
    metrics = task().metrics()
    metrics.update(output, batch)
    found = metrics.compute()
    assert (found["pck"], found["branch1/pck"], found["ensemble/pck"]) == (1.0, 0.0, 1.0)
    assert found["branch_agreement"] == 0.0


def test_joints_can_be_left_out_of_the_headline() -> None:
    batch, maps = batch_and_maps()
    maps[:, 1] = maps[:, 1].flip(-1)
    for uncounted, expected in (((), 4 / 7), (("tail",), 1.0)):
        metrics = task(uncounted=uncounted).metrics()
        metrics.update(maps, batch)
        found = metrics.compute()
        assert found["pck"] == pytest.approx(expected)
        assert found["pck/tail"] == 0.0


def test_the_reference_of_the_data_takes_the_place_of_the_side() -> None:
    batch, maps = batch_and_maps(shift=2.0)
    batch = batch.with_fields({"reference": torch.tensor([10.0, 10.0, 60.0, 60.0])})
    metrics = task().metrics()
    metrics.update(maps, batch)
    assert metrics.compute()["pck"] == pytest.approx(4 / 7)


def test_nothing_labeled_and_nan_are_refused() -> None:
    batch, maps = batch_and_maps()
    metrics = task().metrics()
    with pytest.raises(UserError, match="no joint is labeled"):
        metrics.compute()
    metrics.update(maps * torch.nan, batch)
    with pytest.raises(UserError, match="the network gives NaN or infinity for 4 of 4 images"):
        metrics.compute()


def test_joints_and_lengths_that_do_not_fit_are_named() -> None:
    points = torch.zeros(4, 2, 2)
    for truth in (torch.zeros(4, 2, 2), torch.zeros(4, 3, 3), torch.zeros(1, 2, 3)):
        with pytest.raises(UserError, match="let them have the same joints"):
            pck(points, truth, torch.ones(4), thresholds=[0.1])
    with pytest.raises(UserError, match="give a length of each"):
        pck(points, torch.zeros(4, 2, 3), torch.ones(1), thresholds=[0.1])
