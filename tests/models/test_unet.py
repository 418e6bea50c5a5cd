from __future__ import annotations

import pytest
import torch

from tutelage import UserError
from tutelage.models import unet


@pytest.mark.parametrize("size", [(32, 32), (33, 46), (4, 5)])
def test_the_logits_have_the_size_of_the_image(size: tuple[int, int]) -> None:
    assert unet(5, channels=1, width=3, convs=1)(torch.rand(2, 1, *size)).shape == (2, 5, *size)


def test_the_stages_have_names_and_a_pixel_sees_its_surroundings() -> None:
    torch.manual_seed(0)
    network = unet(2, width=3)
    assert [name for name, _ in network.named_children()] == [
        "down1",
        "down2",
        "down3",
        "up2",
        "up1",
        "classifier",
    ]
    image = torch.rand(1, 3, 48, 48, requires_grad=True)
    network.eval()(image)[0, 0, 24, 24].backward()
    receptive_field = (image.grad.abs().sum(1)[0] > 0).nonzero()
    extent = receptive_field.amax(0) - receptive_field.amin(0)
    assert extent.min() > 20


def test_a_width_below_1_is_refused() -> None:
    with pytest.raises(UserError, match="width of at least 1"):
        unet(2, width=0)
