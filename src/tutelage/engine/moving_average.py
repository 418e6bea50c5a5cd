"""The exponential moving average of a student's weights."""

from __future__ import annotations

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class MovingAverage(AveragedModel):
    """Averages of a network's weights and buffers; integer buffers are those of the network.

    torch rounds the mean of two equal integers down, which would change an index.

    Args:
        network: that is trained.
        decay: share of the average that stays in each step.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        super().__init__(network, multi_avg_fn=average, use_buffers=True)

    def update_parameters(self, model: nn.Module) -> None:
        """Add the weights of the network after a step."""
        super().update_parameters(model)
        for average, value in zip(self.module.buffers(), model.buffers(), strict=True):
            if not average.is_floating_point():
                average.copy_(value)
