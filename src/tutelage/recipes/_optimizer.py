"""The optimizer of a recipe that names none."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from tutelage.recipes.config import TrainConfig

OPTIMIZER = "--train.optimizer"


def default_optimizer(content: Mapping[str, Any], overrides: Sequence[str]) -> list[str]:
    """Return the default optimizer as class path and arguments, unless the recipe names one.

    The default of the dataclass is a function, which could not be written to the resolved recipe.
    """
    if "optimizer" in content.get("train", {}):
        return []
    keys = [option.partition("=")[0] for option in overrides]
    if OPTIMIZER in keys or f"{OPTIMIZER}.class_path" in keys:
        return []
    default = TrainConfig().optimizer
    assert isinstance(default, partial)
    path = f"{default.func.__module__}.{default.func.__qualname__}"
    return [OPTIMIZER, json.dumps({"class_path": path, "init_args": default.keywords})]
