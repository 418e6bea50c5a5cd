"""Classification with any number of labels an item."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from tutelage.core import Batch, Method, Metrics, Task
from tutelage.core.distributed import gather_lists, mean_over_ranks
from tutelage.core.prediction import ClassMap, Prediction
from tutelage.core.task import check_num_classes
from tutelage.errors import UserError
from tutelage.tasks._checks import refuse_undefined
from tutelage.tasks.classification._logits import class_logits


class MultiLabelClassification(Task):
    """Binary cross-entropy of every class: an item has any number of them.

    The labels of a batch are (N, num_classes) of 0 and 1, negative where it is not known whether an
    item has a class: such entries leave the loss and the metrics. The network returns logits
    (N, num_classes), or a mapping with `logits`.

    Methods that read features (RCKA, FitNet, AFD, RTK, PCKA, SSIM, ResidualKD) work as ever. KD,
    DKD, DIST, CKD, OFA, SRD and RCKA with `soften` are refused: they put the logits through a
    softmax, as if an item had one class.

    >>> import torch
    >>> from tutelage.core import Batch
    >>> task = MultiLabelClassification(num_classes=3)
    >>> labels = torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    >>> batch = Batch.of((torch.zeros(2, 1, 8, 8), labels))
    >>> round(task.loss(torch.zeros(2, 3), batch).item(), 4)
    0.6931

    Args:
        num_classes: at least 1.
        pos_weight: factor of the loss where an item has a class, one for each class; above 1 for
            rare ones. None is 1.
        threshold: probability from which on a class is decided for, in `f1` and in predictions.

    Raises:
        UserError: If an argument is out of range.
    """

    monitor = "map"

    def __init__(
        self,
        num_classes: int,
        pos_weight: Sequence[float] | None = None,
        threshold: float = 0.5,
    ) -> None:
        if not isinstance(num_classes, int) or num_classes < 1:
            raise UserError(f"num_classes must be at least 1, got {num_classes!r}")
        if not 0 < threshold < 1:
            raise UserError(f"task.threshold is a probability between 0 and 1, got {threshold!r}")
        if pos_weight is not None and (
            len(pos_weight) != num_classes or not all(weight > 0 for weight in pos_weight)
        ):
            raise UserError(
                f"task.pos_weight has one positive number for each of {num_classes} classes, got "
                f"{list(pos_weight)}"
            )
        self.num_classes = num_classes
        self.pos_weight = pos_weight
        self.threshold = threshold

    def inputs(self, batch: Batch) -> tuple[Any, ...]:
        """Return the inputs of the batch as the only argument."""
        return (batch.inputs,)

    def loss(self, output: Any, batch: Batch) -> Tensor:
        """Return the mean binary cross-entropy over all items and classes that are known.

        Under several ranks, with gradient, it is the mean over those of all ranks.

        Raises:
            UserError: If the logits or the labels are not (N, num_classes).
        """
        logits = self.logits(output).float()
        labels = _checked(batch.labels, logits)
        is_known = labels >= 0
        weight = None if self.pos_weight is None else logits.new_tensor(self.pos_weight)
        losses = binary_cross_entropy_with_logits(
            logits, labels.clamp(min=0.0), pos_weight=weight, reduction="none"
        )
        return mean_over_ranks(losses.where(is_known, 0.0).sum(), is_known.sum())

    def logits(self, output: Any) -> Tensor:
        """Return the logits (N, num_classes) in a network's output.

        Raises:
            UserError: If there are none of that shape.
        """
        return class_logits(output, self.num_classes)

    def outputs(self, output: Any, inputs: Any) -> dict[str, Tensor]:
        """Return the logits (N, num_classes) as what an exported network gives."""
        return {"logits": self.logits(output)}

    def output_info(self) -> dict[str, Any]:
        """Return that an item has every class whose own probability reaches the threshold."""
        text = f"several classes an image: those with sigmoid(logit) >= {self.threshold:g}"
        return {
            "multi_label": True,
            "activation": "sigmoid",
            "threshold": self.threshold,
            "text": text,
        }

    def predictions(
        self, output: Any, batch: Batch, classes: ClassMap, top: int | None
    ) -> list[Prediction]:
        """Return the classes that are decided for, the most likely first, maybe none.

        Args:
            output: of the network.
            batch: as `Predicts`.
            classes: their names.
            top: give at most so many of them.
        """
        predictions = []
        for row in self.logits(output).float().sigmoid().cpu():
            labels = row.argsort(descending=True, stable=True)
            decided = labels[row[labels] >= self.threshold][:top]
            entries = [
                {**classes.entry(label), "probability": round(row[label].item(), 6)}
                for label in decided.tolist()
            ]
            predictions.append(Prediction({"classes": entries}))
        return predictions

    def check_method(self, method: Method) -> None:
        """Refuse a method that reads the logits as those of one class an item.

        Raises:
            UserError: If it does.
        """
        if method.needs_one_class:
            raise UserError(
                f"the method ({type(method).__name__}) reads logits as those of one class an item, "
                "but here items have several; take one on features, such as FitNet, AFD, or RCKA "
                "without soften"
            )

    def validate(self, output: Any, batch: Batch, data: Any = None) -> None:
        """Raise unless the data has as many classes as the task, and the loss can be computed."""
        check_num_classes(self.num_classes, data)
        self.loss(output, batch)

    def metrics(self) -> Metrics:
        """Return new running metrics."""
        return MultiLabelMetrics(self.num_classes, self.logits, self.threshold)

    def chance_level(self) -> float:
        """Return 0: what a guess scores depends on how rare the classes are."""
        return 0.0


class MultiLabelMetrics(Metrics):
    """Running metrics of items with any number of labels.

    - `map`: mean over the classes of the average precision, of those that occur; the area below
      the precision-recall curve without interpolation
    - `f1`, `f1_macro`: F1 at the threshold, over all decisions, and as the mean over the classes
    - `bce`: binary cross-entropy in nats
    - with a teacher `agreement`, the share of equal decisions
    - `num_samples`: the number of items

    Args:
        num_classes: of the task.
        logits: reads logits (N, num_classes) from a network's output.
        threshold: probability from which on a class is decided for.
    """

    def __init__(
        self, num_classes: int, logits: Callable[[Any], Tensor], threshold: float = 0.5
    ) -> None:
        self._num_classes = num_classes
        self._logits = logits
        self._threshold = threshold
        self._outputs: list[Tensor] = []
        self._labels: list[Tensor] = []
        self._teacher: list[Tensor] = []

    def update(self, output: Any, batch: Batch, teacher: Any = None) -> None:
        """Add one batch.

        Raises:
            UserError: If labels are not (N, num_classes).
        """
        logits = self._logits(output).detach().float().cpu()
        self._outputs.append(logits)
        self._labels.append(_checked(batch.labels.cpu(), logits).to(torch.int8))
        if teacher is not None:
            self._teacher.append(self._logits(teacher).detach().float().cpu())

    def compute(self) -> dict[str, float]:
        """Return the metrics by name, over all ranks.

        Raises:
            UserError: If there is no item, no class occurs, or logits are NaN.
        """
        outputs, rows, teachers = gather_lists([self._outputs, self._labels, self._teacher])
        if not sum(map(len, outputs)):
            raise UserError("there is nothing to evaluate: no item; check data.root and the split")
        logits = torch.cat(outputs)
        labels = torch.cat(rows)
        total = f"{len(logits)} items"
        refuse_undefined("network", int((~logits.isfinite()).any(1).sum()), total)
        known = labels >= 0
        if not bool((labels > 0).any()):
            raise UserError(
                "no item that is evaluated has any of the classes, so that nothing can be "
                "measured; check data.label and the split"
            )
        decided = logits.sigmoid() >= self._threshold
        right = (decided & (labels > 0)).sum(0)
        # F1 is twice the right ones among all that are decided for or true, counted twice.
        either = (decided & known).sum(0) + (labels > 0).sum(0)
        losses = binary_cross_entropy_with_logits(
            logits, labels.clamp(min=0).float(), reduction="none"
        )
        metrics = {
            "map": _mean_average_precision(logits, labels),
            "f1": float(2 * right.sum() / either.sum().clamp(min=1)),
            "f1_macro": float((2 * right / either.clamp(min=1)).mean()),
            "bce": float(losses[known].double().mean()),
        }
        if teachers:
            teacher = torch.cat(teachers)
            refuse_undefined("teacher", int((~teacher.isfinite()).any(1).sum()), total)
            equal = decided == (teacher.sigmoid() >= self._threshold)
            metrics["agreement"] = float(equal[known].double().mean())
        metrics["num_samples"] = float(len(logits))
        return metrics


def _mean_average_precision(logits: Tensor, labels: Tensor) -> float:
    """Return the mean of the average precision over the classes that occur."""
    from sklearn.metrics import average_precision_score

    values = []
    for scores, truth in zip(logits.double().T, labels.T, strict=True):
        known = truth >= 0
        if bool((truth > 0).any()):
            values.append(average_precision_score(truth[known].numpy(), scores[known].numpy()))
    return float(sum(values) / len(values))


def _checked(labels: Any, logits: Tensor) -> Tensor:
    """Return the labels as float, once they fit the logits."""
    if not isinstance(labels, Tensor) or labels.shape != logits.shape:
        got = tuple(labels.shape) if isinstance(labels, Tensor) else type(labels).__name__
        raise UserError(
            f"the labels are {got}, but items with several labels have one 0 or 1 for every class, "
            f"{tuple(logits.shape)}; take data with multi_label: true, or Classification"
        )
    if bool((labels > 1).any()):
        raise UserError(
            f"a label is {float(labels.max()):g}, but it is 0 or 1 for every class, or negative "
            "where that is not known"
        )
    return labels.float()
