"""Poses: heat maps of joints, from points and back, and how many joints are found."""

from __future__ import annotations

from tutelage.tasks.pose.heatmaps import decode, gaussian_maps
from tutelage.tasks.pose.metrics import pck
from tutelage.tasks.pose.task import Pose

__all__ = ["Pose", "decode", "gaussian_maps", "pck"]
