"""A detector as teacher: its backbone alone, on the very batch that the student's transform has made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from tutelage.core import Network, Output
from tutelage.core.tap import Address, find_module
from tutelage.errors import UserError

SHARED = ("image_mean", "image_std", "size_divisible")


class BackboneTeacher:
    """A `Teacher` whose backbone is fed with the student's resized, normalised and padded images.

    A detector draws the size of each image at random while it trains, so a teacher with a transform of its own would
    see another size. Neither its head nor its box code runs. Images as a list go through the whole detector.

    Args:
        network: the detector.
        backbone: address of the part to run; taps lie within it.
    """

    def __init__(self, network: Network, backbone: str) -> None:
        self.network, self.backbone = network, backbone
        self._part = network.module(backbone)

    def tapped(self, names: Sequence[str]) -> BackboneTeacher:
        """Return a teacher that records these outputs of the backbone.

        Raises:
            UserError: a tap lies outside of the backbone.
        """
        for name in names:
            module = Address.parse(name).module
            if module != self.backbone and not module.startswith(f"{self.backbone}."):
                raise UserError(
                    f"the tap {name!r} of the teacher lies outside of its {self.backbone!r}, the only part that runs "
                    f"in training; tap {self.backbone!r}, or set task.backbone to the part that holds it"
                )
        return BackboneTeacher(self.network.tapped(names), self.backbone)

    def __call__(self, batch: Any, inputs: tuple[Any, ...]) -> Output:
        """Run the backbone on one padded batch (B, 3, H, W), or the whole detector on a list of images."""
        if isinstance(inputs[0], Tensor):
            return self.network.run(self._part, inputs)
        return self.network(batch, inputs)

    def module(self, name: str) -> nn.Module:
        """Return a submodule of the detector."""
        return self.network.module(name)


def check_transforms(student: nn.Module, teacher: nn.Module, name: str) -> None:
    """Refuse detectors whose images are not prepared alike.

    Raises:
        UserError: one has no module of that name, or the statistics or the padding differ.
    """
    mine, theirs = (vars(find_module(network, name)) for network in (student, teacher))
    for what in SHARED:
        one, two = mine.get(what), theirs.get(what)
        if one != two:
            raise UserError(
                f"the student's {name}.{what} is {one} and the teacher's {two}, but the teacher is fed with the "
                f"student's transformed images; make both detectors with the same {what}"
            )
