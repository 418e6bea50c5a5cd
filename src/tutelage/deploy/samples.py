"""Real images for an exported network: of the run's own data, or the user's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tutelage.data.image_set import ImageSet
from tutelage.deploy.inputs import image_files
from tutelage.deploy.predictor import Predictor
from tutelage.errors import UserError

NUM_IMAGES = 8


def images_of(model: Predictor, files: Sequence[str] | None) -> list[Tensor]:
    """Return inputs for a network: batches of different lengths, or single images.

    Images of one size are one batch (N, C, H, W), and one of them is a batch of its own, so that
    what is exported is asked for two lengths. Detectors get images (C, H, W), one at a time.

    Args:
        model: the run.
        files: images and folders of images; None takes the first of the run's test data.

    Raises:
        UserError: If the images or the data are missing.
    """
    images = _of_files(model, files) if files else _of_data(model)
    if model.transform is not None and model.transform.batch == "list":
        return images
    by_shape: dict[tuple[int, ...], list[Tensor]] = {}
    for image in images:
        by_shape.setdefault(tuple(image.shape), []).append(image)
    batches = [torch.stack(group) for group in by_shape.values()]
    return [*batches, images[0][None]]


def _of_files(model: Predictor, files: Sequence[str]) -> list[Tensor]:
    sources = image_files(files)[:NUM_IMAGES]
    return [model.read(source).inputs[0] for source in sources]


def _of_data(model: Predictor) -> list[Tensor]:
    try:
        parts = model.data.splits()
    except UserError as error:
        raise UserError(
            f"the export is compared on real images, and the run's data cannot be read: {error}; "
            "or give images of your own with --images"
        ) from error
    test = parts["test"]
    if not isinstance(test, ImageSet):
        raise UserError(f"{type(model.data).__name__} has no images; give some with --images")
    # Spread over the part, whose order is often that of the classes.
    count = min(NUM_IMAGES, len(test))
    positions = [place * len(test) // count for place in range(count)]
    return [test.batch([(0, position)]).inputs[0] for position in positions]
