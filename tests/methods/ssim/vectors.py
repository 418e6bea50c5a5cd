"""The reference vectors of SSIM: raw maps, and the options that they were computed with."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

from tests.methods.harness import FOLDER, tensor

CASES: dict[str, dict[str, Any]] = json.loads((FOLDER / "ssim_kd.json").read_text())["cases"]
# Two cases replicate the edge, which is not offered.
OFFERED = [name for name, case in CASES.items() if case["padding"] != "replicate"]
WITH_GRADIENT = ["case0", "case1", "case3", "case4", "case6", "case7"]


def maps(name: str, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Return the student's and the teacher's raw maps."""
    student = tensor("ssim_kd", f"{name}_student_raw", dtype)
    return student, tensor("ssim_kd", f"{name}_teacher_raw", dtype)


def normalized(name: str) -> tuple[Tensor, Tensor]:
    """Return both maps as the independent derivation normalized them."""
    student = tensor("ssim_kd", f"{name}_student_norm")
    return student, tensor("ssim_kd", f"{name}_teacher_norm")


def index_options(name: str) -> dict[str, Any]:
    """Return the window of a case, as arguments of `ssim_index`."""
    case = CASES[name]
    border = "reflect" if case["padding"] == "same" else case["padding"]
    return {"window_size": case["window"], "sigma": case["sigma"], "border": border}


def normalize_of(name: str) -> str:
    """Return the normalization of a case."""
    case = CASES[name]
    return "teacher" if case.get("norm_ref") == "teacher" else case["norm"]


def loss_options(name: str) -> dict[str, Any]:
    """Return all options of a case, as arguments of `ssim_loss`."""
    normalization = {"normalize": normalize_of(name), "max_val": CASES[name]["L"]}
    return {**index_options(name), **normalization}
