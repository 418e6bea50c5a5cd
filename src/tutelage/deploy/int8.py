"""Quantize an ONNX file to int8 after training, and say what that costs in accuracy."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tutelage.core import Evaluation, Task
from tutelage.data.image_set import ImageSet
from tutelage.data.samples import Samples
from tutelage.deploy.formats import require
from tutelage.deploy.predictor import Predictor
from tutelage.engine.evaluate import EvalLoading, evaluate, evaluation
from tutelage.errors import UserError

NUM_CALIBRATION = 128  # training images from which the ranges of activations are taken
BATCH_SIZE = 32


class SessionNetwork(nn.Module):
    """An ONNX file, called as a network.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.session = open_session(path)
        self.input = self.session.get_inputs()[0].name

    def forward(self, images: Tensor) -> Any:
        """Return the output, or a tuple of outputs."""
        outputs = self.session.run(None, {self.input: images.cpu().numpy()})
        tensors = tuple(torch.from_numpy(output) for output in outputs)
        return tensors[0] if len(tensors) == 1 else tensors


def open_session(path: Path) -> Any:
    """Return an onnxruntime session on one thread of the CPU."""
    require("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # errors; it warns of what it optimizes away
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def quantize(source: Path, target: Path, train: ImageSet) -> int:
    """Write an int8 file for an ONNX file, and return how many images it is calibrated on.

    Static quantization: weights per output channel, activations per tensor from their range on
    training images without augmentation.

    Args:
        source: in float32.
        target: of the new file.
        train: the training part.
    """
    require("onnx", "onnxruntime")
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    count = min(NUM_CALIBRATION, len(train))
    positions = torch.arange(count) * len(train) // count
    images = train.subset_with(positions, None, 0)
    name = SessionNetwork(source).input

    def inputs() -> Iterator[dict[str, Any]]:
        for place in range(count):
            yield {name: images.batch([(0, place)]).inputs.numpy()}

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rest = inputs()

        def get_next(self) -> dict[str, Any] | None:
            return next(self.rest, None)

    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own dependencies
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(prepared),
            str(target),
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QInt8,
            weight_type=quantization.QuantType.QInt8,
        )
    return count


def accuracy(network: nn.Module, task: Task, parts: Mapping[str, Samples]) -> dict[str, float]:
    """Return the metrics of a network on validation data."""
    loading = EvalLoading(BATCH_SIZE, 0, torch.device("cpu"))
    run: Evaluation = evaluation("validation", loading)
    return evaluate(network, task, parts, run)


def int8_parts(model: Predictor) -> Mapping[str, Samples]:
    """Return the data of a run, on which a network is calibrated and evaluated.

    Raises:
        UserError: If the data is missing, or the run is of a detector.
    """
    if model.transform is not None and model.transform.batch == "list":
        raise UserError(
            "detectors are not quantized to int8, since the arithmetic of their boxes would be "
            "rounded too; leave --int8 out"
        )
    if model.transform is not None and model.transform.size is None:
        raise UserError(
            "int8 needs images of one size; this run's data has images of any size, so leave "
            "--int8 out"
        )
    try:
        parts = model.data.splits()
    except UserError as error:
        raise UserError(
            f"--int8 is calibrated on the run's training data and evaluated on its validation "
            f"data, which cannot be read: {error}"
        ) from error
    if not isinstance(parts["train"], ImageSet):
        raise UserError(f"{type(model.data).__name__} has no images; leave --int8 out")
    return parts


def drop(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, Any]:
    """Return the metrics before and after as JSON can hold them."""
    return {
        "before": {name: float(np.float64(value)) for name, value in before.items()},
        "after": {name: float(np.float64(value)) for name, value in after.items()},
    }
