"""Put a recipe together and forget it, so that mistakes show before hours are spent on its teacher."""

from __future__ import annotations

from accelerate import Accelerator
from accelerate.state import AcceleratorState

from tutelage.engine.assemble import assemble
from tutelage.engine.recipe import Recipe


def rehearse(recipe: Recipe) -> None:
    """Assemble a recipe; the teacher may be untrained. Nothing is trained or written.

    Raises:
        UserError: the data, a tap or a shape does not fit.
    """
    if recipe.teacher is not None:
        recipe.teacher.remember = False  # a pass over all images for nothing
    forget_precision()
    assemble(recipe, Accelerator(mixed_precision=recipe.train.precision))


def forget_precision() -> None:
    """Let the next run of this process have another mixed precision than the last one, as a teacher's may be."""
    AcceleratorState._reset_state()
