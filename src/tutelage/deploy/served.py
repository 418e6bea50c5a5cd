"""A student as it is exported: one tensor in, tensors out, normalization and temperature inside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.core import Task
from tutelage.core.prediction import HasOutputs
from tutelage.core.taps import call
from tutelage.data.image_input import ImageInput
from tutelage.deploy.predictor import Predictor
from tutelage.errors import UserError

LOGITS = "logits"  # of which a temperature makes probabilities


class ServedNetwork(nn.Module):
    """The network of a run with the outputs that are of use elsewhere.

    The input is a batch of images (N, C, H, W) in [0, 1]; for detectors it is one image (C, H, W).

    Args:
        network: in eval mode; it normalizes its inputs itself.
        task: names the outputs.
        takes_list: whether the network takes a list of images.
        temperature: logits are divided by it.
    """

    def __init__(
        self, network: nn.Module, task: HasOutputs, takes_list: bool, temperature: float
    ) -> None:
        super().__init__()
        self.network = network
        self.task = task
        self.takes_list = takes_list
        self.temperature = temperature
        self.eval()

    def forward(self, images: Tensor) -> Any:
        """Return the output, or a tuple of outputs."""
        outputs = tuple(self.named_outputs(images).values())
        return outputs[0] if len(outputs) == 1 else outputs

    def named_outputs(self, images: Tensor) -> dict[str, Tensor]:
        """Return the outputs by name."""
        inputs: Any = [images] if self.takes_list else images
        outputs = dict(self.task.outputs(call(self.network, (inputs,)), inputs))
        if LOGITS in outputs and self.temperature != 1:
            outputs[LOGITS] = outputs[LOGITS] / self.temperature
        return outputs


@dataclass(frozen=True)
class Served:
    """What is exported, and real inputs for it.

    Attributes:
        network: the student.
        rule: how images enter.
        inputs: real inputs, each (N, C, H, W), or (C, H, W) for detectors.
        names: of the outputs.
    """

    network: ServedNetwork
    rule: ImageInput
    inputs: list[Tensor]
    names: list[str]

    @property
    def takes_list(self) -> bool:
        """Whether there is one image in a call."""
        return self.network.takes_list

    def shape(self) -> list[str | int]:
        """Return the shape of the input, with names for what may vary."""
        shape: list[str | int] = [] if self.takes_list else ["batch"]
        height, width = self.rule.size or ("height", "width")
        return [*shape, self.rule.channels, height, width]

    def outputs(self, images: Tensor) -> list[Tensor]:
        """Return what the network gives, in the order of the names."""
        with torch.no_grad():
            return list(self.network.named_outputs(images).values())


def check_exported(model: Predictor) -> None:
    """Refuse a run whose network is not exported.

    Raises:
        UserError: If it takes no images, or its task names no outputs.
    """
    if model.transform is not None and isinstance(model.task, HasOutputs):
        return
    encoder, tables = model.folder / "student", model.folder / "recommender.safetensors"
    instead = ""
    if encoder.is_dir():
        instead = f"; sentence-transformers opens {encoder}"
    elif tables.is_file():
        instead = f"; {tables} holds the vectors of users and items, and ids.json their ids"
    raise UserError(
        f"{model.folder} was trained for {type(model.task).__name__} on "
        f"{type(model.data).__name__}, whose networks are not exported; networks that take images "
        f"are{instead}"
    )


def served(model: Predictor, inputs: list[Tensor]) -> Served:
    """Return the student of a run as it is exported.

    Args:
        model: the run.
        inputs: real images as `images_of` returns them.

    Raises:
        UserError: If it takes no images, or its task names no outputs.
    """
    task: Task = model.task
    rule = model.transform
    check_exported(model)
    assert rule is not None
    assert isinstance(task, HasOutputs)
    takes_list = rule.batch == "list"
    network = ServedNetwork(model.network, task, takes_list, model.temperature)
    with torch.no_grad():
        names = list(network.named_outputs(inputs[0]))
    return Served(network, rule, inputs, names)
