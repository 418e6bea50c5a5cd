"""Networks, batch and task that methods for poses are tried on."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.methods.harness import Setting
from tutelage.models import small_pose
from tutelage.tasks import Pose

NUM_JOINTS = 3


def pose_batch(count: int = 6, size: int = 32) -> tuple[Tensor, Tensor]:
    """Return the same random images and points in every call; every third joint has no label."""
    generator = torch.Generator().manual_seed(5)
    images = torch.rand(count, 1, size, size, generator=generator)
    points = torch.rand(count, NUM_JOINTS, 3, generator=generator) * (size - 1)
    points[..., 2] = 1.0
    points.view(-1, 3)[::4] = 0.0
    return images, points


SETTING = Setting(
    student=lambda: small_pose(NUM_JOINTS, channels=1, width=8, stages=2, convs=1),
    teacher=lambda: small_pose(NUM_JOINTS, channels=1, width=16),
    batch=pose_batch,
    task=lambda: Pose(num_joints=NUM_JOINTS, sigma=1.0),
)
