"""CKA, its angle and its chance level: reference values, invariances, numeric pitfalls."""

from __future__ import annotations

import itertools
import sys
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.helpers.vectors import cases, tensor
from tests.similarity.formulas import cka_of
from tutelage import UserError
from tutelage.similarity import (
    CKAMatrix,
    CosineKernel,
    LinearKernel,
    RBFKernel,
    SimilarityWarning,
    angular_cka,
    cka,
    expected_cka_by_chance,
    expected_cka_of_gaussians,
    participation_ratio,
)

HSIC = sys.modules["tutelage.similarity.hsic"]
MEASURES = "cka_measures"
RELIABILITY = "cka_reliability"
PAIRS = [0, 1, 3, 4, 6, 7]
KERNELS = {
    "linear": LinearKernel(),
    "cosine": CosineKernel(),
    "rbf": RBFKernel(),
    "rbf .2": RBFKernel(0.2, "nonzero"),
    "rbf 2": RBFKernel(2.0, "off-diagonal"),
}


def draw(n: int, p: int, q: int, noise: float = 1.0) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, p, dtype=torch.float64)
    y = x @ torch.randn(p, q, dtype=torch.float64) / p**0.5 + noise * torch.randn(
        n, q, dtype=torch.float64
    )
    return x, y


@pytest.mark.parametrize("name", cases(MEASURES))
def test_measures(name: str) -> None:
    x, y = (tensor(MEASURES, f"{name}_{side}") for side in "xy")

    def close(found: Tensor, key: str, tolerance: float = 1e-10) -> None:
        assert found.item() == pytest.approx(
            tensor(MEASURES, f"{name}_{key}").item(), abs=tolerance
        ), key

    for estimator in ("biased", "debiased"):
        leaf = y.clone().requires_grad_()
        value = cka(x, leaf, estimator=estimator)
        close(value.detach(), f"cka_{estimator}")
        gradient = torch.autograd.grad(value, leaf)[0]
        assert torch.allclose(
            gradient, tensor(MEASURES, f"{name}_grad_y_cka_{estimator}"), rtol=0, atol=1e-10
        )
        for t in (0.5, 1.0):
            close(
                cka(x, y, kernel=RBFKernel(t), estimator=estimator),
                f"rbf_{estimator}_t{t}_npmedian",
            )
    for t in (0.5, 1.0):
        close(
            cka(x, y, kernel=RBFKernel(t, "lower"), estimator="biased"),
            f"rbf_biased_t{t}_torchmedian",
        )
    close(cka(x, y), "cka_debiased_feature_space")
    close(angular_cka(x, y), "angular_cka", 1e-10 if name not in ("c06", "c07") else 1e-7)


@pytest.mark.parametrize("case", PAIRS)
def test_pairs_of_the_reliability_paper(case: int) -> None:
    x, y = (tensor(RELIABILITY, f"case{case}_{side}") for side in "XY")
    x.requires_grad_()

    def check(
        value: Tensor, key: str, gradient: str, tolerance: float, index: int | None = None
    ) -> None:
        expected, slope = (tensor(RELIABILITY, f"case{case}_{each}") for each in (key, gradient))
        expected, slope = (expected, slope) if index is None else (expected[index], slope[index])
        assert torch.isclose(value, expected, rtol=0, atol=tolerance)
        assert torch.allclose(torch.autograd.grad(value, x)[0], slope, rtol=0, atol=tolerance)

    check(cka(x, y, estimator="biased"), "cka_linear_biased", "grad_X_cka_linear_biased", 1e-12)
    check(cka(x, y), "cka_linear_unbiased", "grad_X_cka_linear_unbiased", 1e-10)
    for index, m in enumerate((0.2, 0.5, 1.0, 2.0)):
        value = cka(x, y, kernel=RBFKernel(m, "nonzero"), estimator="biased")
        check(value, "cka_rbf", "grad_X_cka_rbf", 1e-12, index)


@pytest.mark.parametrize("estimator", ["biased", "debiased"])
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_the_definition_on_both_sides_of_the_path_choice(kernel: object, estimator: str) -> None:
    for n, p, q in ((10, 30, 20), (60, 4, 7)):
        x, y = draw(n, p, q)
        expected = cka_of(kernel.gram(x), kernel.gram(y), estimator)
        assert torch.isclose(
            cka(x, y, kernel=kernel, estimator=estimator), expected, rtol=0, atol=1e-10
        )


@pytest.mark.parametrize("estimator", ["biased", "debiased"])
@pytest.mark.parametrize("cosine", [False, True])
def test_gram_and_feature_space_agree(
    estimator: str, cosine: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = draw(20, 12, 13)
    kernel = CosineKernel() if cosine else LinearKernel()
    found = []
    for space in (True, False):
        monkeypatch.setattr(HSIC, "gram_is_cheaper", lambda *_, space=space: space)
        leaf = x.clone().requires_grad_()
        value = cka(leaf, y, kernel=kernel, estimator=estimator)
        found.append((value.detach(), *torch.autograd.grad(value, leaf)))
    for one, two in zip(*found, strict=True):
        assert torch.allclose(one, two, rtol=0, atol=1e-12)


@pytest.mark.parametrize("estimator", ["biased", "debiased"])
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("shape", [(6, 8, 3), (9, 2, 3)], ids=str)
def test_gradcheck(kernel: object, estimator: str, shape: tuple[int, int, int]) -> None:
    x, y = (side.requires_grad_() for side in draw(*shape))
    if isinstance(kernel, RBFKernel):  # no gradient passes through the median: hold it
        kernel = RBFKernel(kernel.t, m=kernel.bandwidth(x.detach()))
    assert torch.autograd.gradcheck(
        lambda a, b: cka(a, b, kernel=kernel, estimator=estimator), (x, y)
    )


def test_gradcheck_of_angle_and_chance() -> None:
    x, y = (side.requires_grad_() for side in draw(7, 3, 4))
    assert torch.autograd.gradcheck(angular_cka, (x, y))
    assert torch.autograd.gradcheck(expected_cka_by_chance, (x, y))
    assert torch.autograd.gradcheck(participation_ratio, (x,))


# ---- invariances ----

sizes = st.tuples(st.integers(5, 24), st.integers(2, 12), st.integers(2, 12), st.integers(0, 2**31))


@settings(max_examples=25, deadline=None)
@given(sizes, st.sampled_from(["biased", "debiased"]))
def test_what_cka_is_blind_to(size: tuple[int, int, int, int], estimator: str) -> None:
    n, p, q, seed = size
    torch.manual_seed(seed)
    x, y = draw(n, p, q)
    value = cka(x, y, estimator=estimator)
    rotation, _ = torch.linalg.qr(torch.randn(p, p, dtype=torch.float64))
    moved = -3.7 * x @ rotation + torch.randn(p, dtype=torch.float64)
    order = torch.randperm(n)
    for other in (cka(moved, y, estimator=estimator), cka(y, x, estimator=estimator)):
        assert torch.isclose(other, value, rtol=0, atol=1e-10)
    assert torch.isclose(cka(x[order], y[order], estimator=estimator), value, rtol=0, atol=1e-10)
    assert torch.isclose(cka(x, moved, estimator=estimator), value.new_ones(()), rtol=0, atol=1e-10)
    assert value.abs() <= 1 + 1e-12


@settings(max_examples=25, deadline=None)
@given(sizes)
def test_the_angle_is_a_metric(size: tuple[int, int, int, int]) -> None:
    n, p, q, seed = size
    torch.manual_seed(seed)
    (x, y), z = draw(n, p, q), torch.randn(n, 3, dtype=torch.float64)
    assert angular_cka(x, z) <= angular_cka(x, y) + angular_cka(y, z) + 1e-9
    assert 0 <= angular_cka(x, y) <= torch.pi / 2 + 1e-12
    assert angular_cka(x, x) < 1e-7


# ---- numeric pitfalls ----


@pytest.mark.parametrize("offset", [0.0, 1.0, 10.0, 100.0, 1000.0])
@pytest.mark.parametrize("estimator", ["biased", "debiased"])
@pytest.mark.parametrize("shape", [(64, 512, 512), (512, 64, 32)], ids=str)
def test_a_common_offset_of_float32_features(
    offset: float, estimator: str, shape: tuple[int, int, int]
) -> None:
    x, y = (side.float() for side in draw(*shape))
    x, y = x + offset, y + offset
    exact = cka_of(
        *(side.double() @ side.double().mT for side in (x - offset, y - offset)), estimator
    )
    assert torch.isclose(cka(x, y, estimator=estimator), exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-12, 1e-8, 1e-4, 1.0, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cka_of_a_side_with_itself_is_one_at_every_scale(scale: float, dtype: torch.dtype) -> None:
    for shape in ((32, 64), (200, 8)):
        x = (torch.randn(shape) * scale).to(dtype)
        for kernel in KERNELS.values():
            for estimator in ("biased", "debiased"):
                assert cka(x, x, kernel=kernel, estimator=estimator).item() == pytest.approx(
                    1.0, abs=1e-6
                )


def test_the_gradient_grows_as_one_over_the_scale() -> None:
    x, y = draw(32, 16, 16)
    norms = []
    for scale in (1.0, 1e-2, 1e-8):
        leaf = (y * scale).requires_grad_()
        norms.append(torch.autograd.grad(cka(x, leaf), leaf)[0].norm().item() * scale)
    assert norms == pytest.approx([norms[0]] * 3)


def test_no_negative_self_hsic_near_a_large_offset() -> None:
    for seed in range(50):
        generator = torch.Generator().manual_seed(seed)
        x = 10 + 0.01 * torch.randn(32, 64, generator=generator)
        assert cka(x, x).item() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_under_autocast(dtype: torch.dtype) -> None:
    x, y = ((side.relu() + 1).to(dtype) for side in draw(64, 512, 256))
    exact = cka(x.double(), y.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = cka(x, y)
    assert torch.isclose(found, exact, rtol=0, atol=1e-9)
    assert cka(torch.ones(8, 65536, dtype=dtype).mul(torch.arange(8)[:, None]), y[:8]).isfinite()


def test_a_negative_value_keeps_its_sign_and_gradient() -> None:
    x, y = draw(12, 40, 40)
    y = torch.randn_like(y).requires_grad_()
    steps = 0
    while cka(x, y).item() > -0.05:
        grad = torch.autograd.grad(cka(x, y), y)[0]
        y = (y - 5 * grad).detach().requires_grad_()
        steps += 1
        assert steps < 200
    assert torch.autograd.grad(cka(x, y), y)[0].norm() > 1e-4


def test_unrelated_features_score_zero_on_average() -> None:
    values = torch.stack([cka(*torch.randn(2, 8, 64).double()) for _ in range(400)])
    assert abs(values.mean().item()) < 4 * values.std().item() / 20
    assert values.std().item() == pytest.approx(2**0.5 / 8, rel=0.3)


def test_a_far_row_that_cancels_in_feature_space_is_computed_from_grams() -> None:
    torch.manual_seed(3)
    x, y = draw(200, 4, 5)
    x[0] += 1e6
    y[0] += 1e6
    expected = cka(
        torch.cat([x, torch.zeros(200, 400)], 1), torch.cat([y, torch.zeros(200, 400)], 1)
    )  # Gram space
    assert torch.isclose(cka(x, y), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("estimator", ["biased", "debiased"])
@pytest.mark.parametrize("value", [0.0, 0.1, 1000.1])
def test_constant_features_give_nan_and_the_side(estimator: str, value: float) -> None:
    for shape in ((64, 8), (8, 64)):
        live, dead = torch.randn(shape), torch.full(shape, value)
        for left, right, side in ((dead, live, "x"), (live, dead, "y"), (dead, dead, "x, y")):
            with pytest.warns(SimilarityWarning, match=rf"CKA is undefined \(NaN\): .* in {side}$"):
                assert cka(left, right, estimator=estimator).isnan()


@pytest.mark.parametrize("shape", [(64, 8), (8, 64), (64, 3000)], ids=str)
def test_what_float32_has_rounded_is_no_variation(shape: tuple[int, int]) -> None:
    noise = 1000.1 + 3e-5 * torch.randn(shape)  # neighbors in float32
    assert noise.unique().numel() > 1
    with pytest.warns(SimilarityWarning, match="in x$"):
        assert cka(noise, torch.randn(shape)).isnan()
    matrix = CKAMatrix(["noise"])
    matrix.update([noise])
    with pytest.warns(SimilarityWarning, match="left: noise"):
        assert matrix.compute().value.isnan()


def test_items_that_are_all_equally_alike_are_degenerate_when_debiased() -> None:
    one_hot = torch.eye(8)
    with pytest.warns(SimilarityWarning, match="in x$"):
        assert cka(one_hot, torch.randn(8, 3)).isnan()
    assert cka(one_hot, torch.randn(8, 3), estimator="biased").isfinite()


def test_constant_features_have_no_chance_level_and_no_dimensions() -> None:
    live, dead = torch.randn(8, 3), torch.ones(8, 3)
    with pytest.warns(SimilarityWarning, match="the chance level is undefined .* in y"):
        assert expected_cka_by_chance(live, dead).isnan()
    with pytest.warns(SimilarityWarning, match="the participation ratio is undefined"):
        assert participation_ratio(dead).isnan()
    with pytest.warns(SimilarityWarning, match="CKA is undefined"):
        assert angular_cka(live, dead).isnan()


# ---- chance ----


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_the_chance_level_is_the_mean_over_all_pairings(kernel: object) -> None:
    x, y = draw(5, 3, 4)
    orders = [torch.tensor(order) for order in itertools.permutations(range(5))]
    values = torch.stack([cka(x, y[order], kernel=kernel, estimator="biased") for order in orders])
    assert torch.isclose(
        expected_cka_by_chance(x, y, kernel=kernel), values.mean(), rtol=0, atol=1e-12
    )
    if isinstance(kernel, LinearKernel):
        debiased = torch.stack([cka(x, y[order]) for order in orders])
        assert abs(debiased.mean().item()) < 1e-12


def test_gaussian_chance_is_what_independent_features_score() -> None:
    for n, p, q in ((128, 16, 16), (64, 512, 100), (32, 4096, 4096)):
        found = cka(torch.randn(n, p), torch.randn(n, q), estimator="biased").item()
        assert expected_cka_of_gaussians(n, p, q) == pytest.approx(found, abs=0.03)
    assert expected_cka_of_gaussians(128, 4096, 4096) == pytest.approx(0.97, abs=0.005)


def test_participation_ratio_counts_dimensions() -> None:
    x = torch.linalg.qr(torch.randn(50, 11, dtype=torch.float64) - 3).Q
    x = torch.linalg.qr(x - x.mean(0)).Q
    assert participation_ratio(x[:, :7]).item() == pytest.approx(7)
    assert participation_ratio(
        torch.cat([x[:, :7], torch.zeros(50, 90)], 1)
    ).item() == pytest.approx(7)
    y = torch.randn(50, 11, dtype=torch.float64) * torch.arange(1, 12)
    values = torch.linalg.eigvalsh(torch.cov(y.mT))
    assert participation_ratio(y).item() == pytest.approx(
        (values.sum() ** 2 / values.square().sum()).item()
    )


def test_outliers_by_kernel() -> None:
    x, y = torch.randn(2, 256, 32)
    x[0] += 30
    y[0] += 30
    assert cka(x, y, estimator="biased") > 0.9
    assert abs(cka(x, y).item()) < 0.2
    assert cka(x, y, kernel=CosineKernel(), estimator="biased") < 0.2
    assert cka(x, y, kernel=RBFKernel(), estimator="biased") < 0.3


def test_a_wide_rbf_is_linear_and_a_narrow_one_needs_debiasing() -> None:
    x, y = draw(40, 16, 16)
    for estimator in ("biased", "debiased"):
        linear = cka(x, y, estimator=estimator)
        assert torch.isclose(
            cka(x, y, kernel=RBFKernel(1e6), estimator=estimator), linear, rtol=0, atol=1e-9
        )
    narrow = RBFKernel(0.2)
    noise = torch.randn_like(x)
    assert cka(x, noise, kernel=narrow, estimator="biased") > 0.9
    assert cka(x, noise, kernel=narrow).abs() < 0.3


# ---- bad input ----


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (
            torch.randn(64, 5),
            torch.randn(60, 5),
            {},
            "^x has 64 rows, y 60; both sides must be the same items",
        ),
        (torch.randn(3, 5), torch.randn(3, 5), {}, "^x has 3 rows, but at least 4 are needed"),
        (torch.randn(8, 5), torch.randn(3, 5), {}, "^y has 3 rows, but at least 4"),
        (torch.randn(1, 5), torch.randn(1, 5), {"estimator": "biased"}, "at least 2 are needed"),
        (
            torch.randn(8),
            torch.randn(8),
            {},
            r"^x has shape \(8,\), but features are \(items, ...\)",
        ),
        (torch.randn(8, 0), torch.randn(8, 5), {}, "which holds nothing"),
        (torch.ones(8, 5).long(), torch.randn(8, 5), {}, "^x is of torch.int64"),
        (torch.randn(8, 5), torch.full((8, 5), torch.nan), {}, "^y holds NaN or infinity"),
        (torch.randn(8, 5), torch.full((8, 5), torch.inf), {}, "^y holds NaN or infinity"),
        (
            torch.randn(8, 5),
            torch.randn(8, 5),
            {"estimator": "unbiased"},
            "the estimator of cka is one of",
        ),
        (
            torch.ones(8, 5),
            torch.randn(8, 5),
            {"kernel": RBFKernel()},
            "all rows of x are equal: the median bandwidth",
        ),
    ],
)
def test_bad_input_is_one_sentence(x: Tensor, y: Tensor, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        cka(x, y, **options)
    assert "\n" not in str(error.value)


def test_no_warning_in_ordinary_use() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cka(torch.randn(8, 3, requires_grad=True), torch.randn(8, 4, 2, 2)).backward()
    with pytest.raises(UserError, match="positive numbers of items"):
        expected_cka_of_gaussians(0, 3, 3)
