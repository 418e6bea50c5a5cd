"""The `data` section of a recipe."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from tutelage.core._configuration import configuration
from tutelage.data.samples import Samples
from tutelage.errors import UserError


class Data(ABC):
    """A data set.

    Its constructor stores settings; files are read when `splits` is called.
    """

    @abstractmethod
    def splits(self, num_labels: int | None = None, seed: int = 0) -> Mapping[str, Samples]:
        """Return the parts by name: `train`, `validation`, `test`, and more if a task needs them.

        Args:
            num_labels: number of labeled training samples; None takes all.
            seed: the run's seed; it draws the label subset and the augmentation, and leaves the
                validation and test parts as they are.
        """

    def remarks(self, parts: Mapping[str, Samples]) -> list[str]:
        """Return what whoever trains on these parts should know; default: nothing.

        Args:
            parts: what `splits` returned.
        """
        return []

    def normalize(
        self,
        network: nn.Module,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> nn.Module:
        """Return the network with the input normalization that this data needs; default: as is.

        Args:
            network: student or teacher.
            mean: what the recipe says for this network; None leaves it to the data.
            std: what the recipe says for this network; None leaves it to the data.

        Raises:
            UserError: If the recipe says something, and inputs are not normalized.
        """
        if mean is not None or std is not None:
            raise UserError(
                f"the inputs of {type(self).__name__} are not normalized; leave mean and std of "
                "student and teacher out"
            )
        return network

    def prepare_network(self, network: nn.Module) -> nn.Module:
        """Return a network that is ready for this data, before its weights are loaded.

        Where the size of a network's tables, or a graph that it reads, is a matter of the data, it
        gets them here; default: as is.

        Raises:
            UserError: If the network is for other data.
        """
        return network

    def check_network(self, facts: Mapping[str, Any], where: str) -> None:
        """Raise if weights were learned on data that does not fit this; default: never.

        Args:
            facts: the `student.json` of the run that the weights are from, see `input_info`.
            where: the run, for the message.

        Raises:
            UserError: If they were.
        """
        return None

    def input_info(self, network: nn.Module) -> dict[str, Any]:
        """Return what `student.json` says about the inputs of the trained network."""
        return {}

    def usage_info(self, parts: Mapping[str, Samples]) -> dict[str, Any]:
        """Return what else `student.json` says for the use of the trained network elsewhere.

        Args:
            parts: the data by name.
        """
        return {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({configuration(self)})"
