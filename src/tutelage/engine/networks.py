"""From what a recipe says of a network to the network itself: its weights, its input normalisation."""

from __future__ import annotations

from torch import nn

from tutelage.core.normalization import normalize_inputs
from tutelage.data import Data
from tutelage.engine.recipe import Student, TeacherNetwork
from tutelage.engine.weights import load_weights
from tutelage.errors import UserError


def ready_network(spec: Student | TeacherNetwork, data: Data) -> nn.Module:
    """Return the network with the weights that are named; it normalises images by its own or the data's statistics.

    Where neither names any, as for detectors, the network does that by itself.

    Raises:
        UserError: there is no network, or the weights do not fit.
    """
    if spec.network is None:
        raise UserError("teacher.network is missing; give its class path, or teacher.recipe to train it first")
    if spec.weights is not None:
        load_weights(spec.network, spec.weights)
    mean = data.mean if spec.mean is None else spec.mean
    std = data.std if spec.std is None else spec.std
    if mean is None or std is None:
        return spec.network
    return normalize_inputs(spec.network, mean, std)
