"""What compares the layers of student and teacher while a student is trained."""

from __future__ import annotations

from tutelage.analysis import LayerTracker
from tutelage.core import Batch
from tutelage.engine.setup import TrainingSetup
from tutelage.errors import UserError

PROBE_SIZE = 256


def layer_tracker(ready: TrainingSetup) -> LayerTracker | None:
    """Return what compares layers during training, or None if the recipe does not ask for it."""
    setup = ready.setup
    if not setup.recipe.train.cka_every:
        return None
    models = list(setup.teacher.models().values())
    if len(models) != 1:
        raise UserError(
            "train.cka_every compares the student's layers with a teacher's; "
            "give the recipe a teacher"
        )
    validation = setup.parts["validation"]
    keys = [(0, position) for position in range(min(PROBE_SIZE, len(validation)))]
    batch = Batch.of(validation.batch(keys)).to(ready.loading.device)
    return LayerTracker(models[0], setup.recipe.task.inputs(batch))
