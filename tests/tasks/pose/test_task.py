"""The task: loss, validation, the mean pose, what is drawn."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tutelage.core import Batch, Evaluation
from tutelage.errors import UserError
from tutelage.tasks import Pose
from tutelage.tasks.pose.heatmaps import averaged


def batch() -> Batch:
    points = torch.tensor([[[8.0, 8.0, 1.0], [20.0, 12.0, 0.0]]]).repeat(2, 1, 1)
    return Batch.of((torch.zeros(2, 3, 32, 32), points))


def test_the_loss_is_the_sum_over_stacks_and_branches() -> None:
    task = Pose(2)
    maps = torch.randn(2, 3, 2, 8, 8)
    single = torch.stack([task.loss(maps[:, index], batch()) for index in range(3)])
    assert task.loss(maps, batch()) == pytest.approx(single.sum().item())
    mapping = {"heatmaps": maps[:, :1], "auxiliary": {"branch1": maps[:, 1:]}, "ensemble": maps}
    assert task.loss(mapping, batch()) == pytest.approx(single.sum().item())


def test_a_hidden_joint_has_no_gradient() -> None:
    maps = torch.randn(2, 2, 8, 8, requires_grad=True)
    Pose(2).loss(maps, batch()).backward()
    assert maps.grad is not None
    assert maps.grad[:, 1].abs().sum() == 0


class Constant(nn.Module):
    """A network that answers with the same maps."""

    def __init__(self, maps: Tensor) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, images: Tensor) -> Tensor:
        return self.maps


class Train:
    """A training part that knows its points."""

    def input_points(self) -> Tensor:
        return torch.tensor([[[8.0, 10.0, 1.0], [0.0, 0.0, 0.0]], [[8.0, 6.0, 1.0]] * 2])


def test_the_mean_training_pose_stands_beside_the_network() -> None:
    task = Pose(2, names=["nose", "tail"])
    run = Evaluation("test", lambda part: [batch()])
    found = task.evaluate(Constant(torch.zeros(2, 2, 8, 8)), {"test": None, "train": Train()}, run)
    assert found["constant/pck"] == 1.0
    assert found["pck"] == 0.0


class Reads(nn.Module):
    """A network that gives the channels of its images as maps."""

    def forward(self, images: Tensor) -> Tensor:
        return images


def test_the_flip_test_averages_with_the_mirror_image() -> None:
    images = torch.zeros(1, 2, 32, 32)
    images[0, 0, 10, 8] = 1.0
    images[0, 1, 20, 25] = 1.0
    names = ["left", "right"]
    whole = averaged(images, Reads()(images.flip(-1)), torch.tensor([0, 1]))
    # The maps of the mirror image come back a pixel further to the right.
    assert whole[0, 0, 10, 8:10].tolist() == [0.5, 0.5]
    swapped = averaged(images, Reads()(images.flip(-1)), torch.tensor([1, 0]))
    assert swapped[0, 0, 10, 8] == 0.5
    assert swapped[0, 0, 20, 26] == 0.5
    # And in evaluation.
    points = torch.tensor([[[8.0, 10.0, 1.0], [25.0, 20.0, 1.0]]])
    run = Evaluation("test", lambda part: [Batch.of((images, points))])
    for flip_test in (None, []):
        task = Pose(2, names=names, flip_test=flip_test)
        assert task.evaluate(Reads(), {"test": None}, run)["pck"] == 1.0
    with pytest.raises(UserError, match="names 'tail', which is none of the joints"):
        Pose(2, names=names, flip_test=[("left", "tail")])


def test_points_are_drawn_in_pixels_of_the_image() -> None:
    maps = torch.zeros(2, 2, 8, 8)
    maps[:, 0, 2, 3] = 1.0
    overlays = Pose(2).overlays(batch(), maps)
    assert overlays[0].points is not None
    assert overlays[0].points[0].tolist() == [12.0, 8.0]
    truth = Pose(2).overlays(batch())[1]
    assert truth.point_scores is not None
    assert truth.point_scores.tolist() == [1.0, 0.0]


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match=r"maps of 3 joints, but task.num_joints is 2"):
        Pose(2).loss(torch.zeros(2, 3, 8, 8), batch())
    with pytest.raises(UserError, match=r"the data has 2 joints, but task.num_joints is 3"):
        Pose(3).loss(torch.zeros(2, 3, 8, 8), batch())
    with pytest.raises(UserError, match=r"stride of 4 in y and 2 in x"):
        Pose(2).loss(torch.zeros(2, 2, 8, 16), batch())
    with pytest.raises(UserError, match=r"points \(N, K, 3\)"):
        Pose(2).loss(torch.zeros(2, 2, 8, 8), Batch.of((torch.zeros(2, 3, 32, 32), torch.ones(2))))
    with pytest.raises(UserError, match=r"alpha is one of the thresholds \[0.1\], got 0.05"):
        Pose(2, thresholds=[0.1])
    with pytest.raises(UserError, match="the group 'paws' has the joint 'paw'"):
        Pose(2, names=["nose", "tail"], groups={"paws": ["paw"]})
    with pytest.raises(UserError, match="names are one for each of the 2 joints"):
        Pose(2, names=["nose", "nose"])


def test_a_flip_test_that_swaps_other_joints_than_the_data_is_named() -> None:
    class Mirrored:
        pairs = torch.tensor([1, 0])

    task = Pose(2, names=["left", "right"], flip_test=[("left", "right")])
    task.validate(torch.zeros(2, 2, 8, 8), batch(), Mirrored())
    with pytest.raises(UserError, match=r"swaps the joints \[0, 1\], but data.flip_pairs"):
        Pose(2, flip_test=[]).validate(torch.zeros(2, 2, 8, 8), batch(), Mirrored())
    with pytest.raises(UserError, match="not two joints that are in no other pair"):
        Pose(3, names=["a", "b", "c"], flip_test=[("a", "b"), ("b", "c")])
