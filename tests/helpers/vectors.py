"""The official codes' inputs and outputs in tests/reference, with their hyper-parameters."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(__file__).parents[1] / "reference"


@cache
def cases(name: str) -> dict[str, dict[str, Any]]:
    """Return what the JSON says of every case, by id."""
    listed = json.loads((FOLDER / f"{name}.json").read_text())["cases"]
    return listed if isinstance(listed, dict) else {case["id"]: case for case in listed}


@cache
def _arrays(name: str) -> dict[str, Any]:
    with np.load(FOLDER / f"{name}.npz") as arrays:
        return dict(arrays)


def tensor(name: str, key: str, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return one array as a tensor of this dtype."""
    return torch.tensor(np.asarray(_arrays(name)[key])).to(dtype)
