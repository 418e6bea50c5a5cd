"""The baseline, and unlabeled data beside it: no terms of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tests.methods.harness import distill, image_batch, make_step
from tutelage.core import Method, NoTeacher
from tutelage.methods import Baseline, UnlabeledData

EXAMPLES: dict[str, Callable[[], Method]] = {
    "baseline": Baseline,
    "unlabeled data": lambda: UnlabeledData({"near": 1.0}),
}


def test_the_baseline_is_the_task_loss_alone() -> None:
    distiller = distill(Baseline())
    images, labels = image_batch()
    terms = distiller((images, labels))
    assert list(terms) == ["task"]
    assert terms["task"] == distiller.task.loss(
        distiller.student(images), distiller.step((images, labels)).batch
    )


def test_unlabeled_data_join_with_their_shares_and_add_no_term() -> None:
    class Recorder:
        def with_streams(self, shares: Mapping[str, float]) -> Any:
            return dict(shares)

    method = UnlabeledData({"near": 0.5, "far": 0.25})
    assert method.build_data(Recorder(), NoTeacher()) == {"near": 0.5, "far": 0.25}
    assert method(make_step()) == {}
    assert not method.uses_teacher
