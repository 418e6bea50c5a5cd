"""What a checkpoint holds, and when it is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tutelage.engine.training_state import unpack
from tutelage.errors import UserError


def test_data_that_grew_or_shrank_is_refused() -> None:
    parts = {"train": range(24), "validation": range(3), "test": range(3)}
    trainer: Any = SimpleNamespace(ready=SimpleNamespace(setup=SimpleNamespace(parts=parts)))
    state = {"samples": {"train": 40, "validation": 5, "test": 3}}
    says = r"step40 is of data .*\(train 40 and now 24, validation 5 and now 3\); bring the data"
    with pytest.raises(UserError, match=says):
        unpack(trainer, {}, state, Path("checkpoints/step40"))
