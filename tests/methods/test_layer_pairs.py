"""Layers and weights of methods that are of another kind than is needed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tutelage import (
    AFD,
    DIST,
    DKD,
    KD,
    OFA,
    PCKA,
    RCKA,
    RTK,
    SRD,
    SSIM,
    Classification,
    Distiller,
    FitNet,
    FrozenTeacher,
    ResidualKD,
    UnlabeledData,
    UserError,
    rcka_loss,
)
from tutelage.models import small_cnn
from tutelage.similarity import CKAMatrix

PAIRED = [FitNet, PCKA, RCKA, ResidualKD, SSIM]


@pytest.mark.parametrize("method", PAIRED)
@pytest.mark.parametrize(
    "pairs", ["stage3", ["stage3"], ["ab"], {"a", "b"}, 3, {"a": ["b", "c"]}, {1: "a"}, {"a": None}]
)
def test_layers_that_are_no_pairs_of_names_are_refused(method: Any, pairs: Any) -> None:
    with pytest.raises(
        UserError, match=rf"{method.__name__} (takes layer_pairs as|pairs the name)"
    ):
        method(pairs)


@pytest.mark.parametrize("method", [AFD, RTK])
@pytest.mark.parametrize("layers", ["stage3", None, [1], {"a": "b"}])
def test_layers_that_are_no_list_of_names_are_refused(method: Any, layers: Any) -> None:
    with pytest.raises(UserError, match=f"{method.__name__} (needs student_layers|must be)"):
        method(layers)


def test_a_layer_that_is_no_name_is_refused() -> None:
    with pytest.raises(UserError, match="the layers of SRD must be names of modules"):
        SRD(student_layer=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", [FitNet, PCKA, SSIM])
def test_a_step_before_setup_asks_for_it(method: Any) -> None:
    networks = small_cnn(width=4), FrozenTeacher(small_cnn(width=6))
    distiller = Distiller(*networks, method({"stage1": "stage1"}), Classification(num_classes=10))
    with pytest.raises(
        UserError, match=f"{method.__name__} is not set up yet; call distiller.setup"
    ):
        distiller((torch.rand(4, 1, 28, 28), torch.arange(4)))


@pytest.mark.parametrize("weight", [None, True, "1", -1.0, float("nan"), float("inf")])
def test_a_weight_that_is_no_number_from_0_on_is_refused(weight: Any) -> None:
    with pytest.raises(UserError, match="the weights of KD are finite numbers from 0 on"):
        KD(weight=weight)
    for method in (DIST, DKD, PCKA, RCKA, SRD):
        arguments = {"layer_pairs": {"a": "b"}} if method is PCKA else {}
        with pytest.raises(UserError, match="are finite numbers from 0 on"):
            method(**arguments, task_weight=weight)
    if weight is not None:
        with pytest.raises(UserError, match="the weights of RCKA are finite numbers"):
            RCKA(intra_weight=weight)


def test_a_layer_of_a_split_student_is_sought_under_its_own_name() -> None:
    student = small_cnn(width=8)
    method = ResidualKD({"stage9": "stage3"})
    with pytest.raises(UserError, match=r"no module 'stage9' in SmallCNN; did you mean \['stage3'"):
        method.build_student(student, FrozenTeacher(nn.Identity()))


OPTIONS: list[tuple[Any, dict[str, Any]]] = [
    (DKD, {"ramp": 3}),
    (DKD, {"ramp": "ab"}),
    (RTK, {"coverage": None}),
    (RTK, {"coverage": "x"}),
    (OFA, {"prefix_tokens": "x"}),
    (OFA, {"grid": 3}),
    (OFA, {"stages": {1: 1}}),
    (SSIM, {"layer_pairs": {"a": "b"}, "exponents": None}),
    (SSIM, {"layer_pairs": {"a": "b"}, "exponents": "abc"}),
    (SSIM, {"layer_pairs": {"a": "b"}, "k1": float("nan")}),
    (SSIM, {"layer_pairs": {"a": "b"}, "max_val": "x"}),
    (SSIM, {"layer_pairs": {"a": "b"}, "min_range": "x"}),
    (SRD, {"unlabeled": "near"}),
    (SRD, {"unlabeled": {"near": "a"}}),
    (UnlabeledData, {"shares": None}),
    (UnlabeledData, {"shares": ["near"]}),
    (UnlabeledData, {"shares": {"near": float("nan")}}),
    (CKAMatrix, {"left": None}),
    (CKAMatrix, {"left": [1]}),
    (CKAMatrix, {"left": ["a"], "permutations": -1}),
    (CKAMatrix, {"left": ["a"], "permutations": 2.5}),
    (CKAMatrix, {"left": ["a"], "seed": None}),
]


@pytest.mark.parametrize(("method", "options"), OPTIONS)
def test_an_option_of_another_type_is_refused(method: Any, options: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        method(**options)


def test_logits_without_classes_are_refused() -> None:
    with pytest.raises(UserError, match=r"RCKA needs tensors \(N, ...\), one row an item, got"):
        rcka_loss(torch.ones(4), torch.ones(4), intra_weight=None)
