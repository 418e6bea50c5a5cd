"""Losses leave autocast and do without TF32, forward and backward, and put both back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tutelage.core._float32 import HAS_NAMES
from tutelage.core.precision import full_precision, left_autocast
from tutelage.similarity._products import matmul

pytestmark = pytest.mark.skipif(not HAS_NAMES, reason="names of precisions came with torch 2.9")
CUDA = torch.device("cuda")  # its settings are there without a GPU


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    owners = (
        torch.backends.cuda.matmul,
        torch.backends.cudnn.conv,
        torch.backends.mkldnn.matmul,
        torch.backends.mkldnn.conv,
    )
    before = [owner.fp32_precision for owner in owners]
    yield
    for owner, precision in zip(owners, before, strict=True):
        owner.fp32_precision = precision


def settings() -> list[str]:
    return [torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision]


@pytest.mark.parametrize("precision", ["high", "medium", "highest"])
def test_products_and_convolutions_are_in_full(precision: str) -> None:
    torch.set_float32_matmul_precision(precision)
    before = settings()
    with full_precision(CUDA):
        assert set(settings()) <= {"ieee", "none"}
        with full_precision(CUDA):
            pass
        assert set(settings()) <= {"ieee", "none"}
    assert settings() == before
    assert (before[0] == "tf32") == (precision != "highest")
    assert torch.get_float32_matmul_precision() == precision
    assert torch.backends.cuda.matmul.allow_tf32 == (precision != "highest")


def test_an_error_puts_tf32_back() -> None:
    torch.set_float32_matmul_precision("high")
    with pytest.raises(ZeroDivisionError), full_precision(CUDA):
        _ = 1 / 0
    assert settings()[0] == "tf32"


def test_the_gradient_is_in_full_where_backward_runs_later() -> None:
    torch.set_float32_matmul_precision("high")
    torch.backends.mkldnn.matmul.fp32_precision = "tf32"
    x = torch.randn(3, 4, requires_grad=True)
    with full_precision(x.device):
        assert left_autocast()
        assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"
        value = matmul(x, x.detach().mT)
    assert value.grad_fn is not None
    assert value.grad_fn.name() == "_MatmulBackward"
    value.sum().backward()
    assert torch.backends.mkldnn.matmul.fp32_precision == "tf32"


def test_convolutions_alone_change_no_gradient_function() -> None:
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.conv.fp32_precision = "tf32"
    with full_precision(CUDA):
        assert not left_autocast()
        assert settings()[1] == "ieee"
    assert settings()[1] == "tf32"
