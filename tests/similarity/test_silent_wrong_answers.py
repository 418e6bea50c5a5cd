"""One test for each silently wrong answer that another CKA tool gives; numbers as in the survey.

Each test states what the peer does; its behavior would fail here.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tutelage import UserError
from tutelage.similarity import CKAMatrix, cka, gram_of, hsic


def layers(n: int = 24) -> dict[str, torch.Tensor]:
    x = torch.randn(n, 6)
    return {"a": x, "b": x @ torch.randn(6, 9) + torch.randn(n, 9), "c": torch.randn(n, 4)}


def test_1_an_in_place_relu_does_not_overwrite_the_layer_before_it() -> None:
    # torch-cka, pytorch-cka: the hook keeps the output, which the next module then overwrites
    network = nn.Sequential(
        nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Linear(8, 3)
    )
    images = torch.randn(32, 5)
    seen: dict[str, torch.Tensor] = {}
    network[1].register_forward_hook(lambda module, args, output: seen.update(bn=gram_of(output)))
    network[2].register_forward_hook(lambda module, args, output: seen.update(relu=gram_of(output)))
    with torch.no_grad():
        network(images)
        network[2].inplace = False
        in_place, seen = seen, {}
        network(images)
    assert torch.equal(in_place["bn"], seen["bn"])
    assert not torch.allclose(in_place["bn"], in_place["relu"])


def test_2_rows_come_back_in_the_order_that_was_asked_for() -> None:
    # torch-cka, ckatorch: labels in the order of definition, values in the order of execution
    batch = layers()
    asked = CKAMatrix(["c", "a", "b"], ["b", "c"])
    asked.update(batch, dict(reversed(batch.items())))
    found = asked.compute()
    assert (found.left, found.right) == (("c", "a", "b"), ("b", "c"))
    assert torch.isclose(found.value[2, 0], torch.ones((), dtype=torch.float64))
    assert torch.isclose(found.value[1, 0], cka(batch["a"], batch["b"]), atol=1e-6)


def test_3_sides_that_saw_the_items_in_another_order_are_refused() -> None:
    # torch-cka iterates a shuffled loader twice: equal weights score .0064
    batch, order = layers(), torch.randperm(24)
    matrix = CKAMatrix(["a"], ["a"])
    with pytest.raises(UserError, match="or in another order"):
        matrix.update(batch, {"a": batch["a"][order]}, range(24), order)
    matrix.update(batch, batch, range(24), range(24))
    assert matrix.compute().value.item() == pytest.approx(1.0, abs=1e-6)


def test_4_an_unknown_layer_is_an_error_at_once_with_near_names() -> None:
    # torch-cka: "HSIC computation resulted in NANs" after the whole run
    with pytest.raises(
        UserError, match=r"left layer 'layer5' is missing.*did you mean \['layer4'\]"
    ):
        CKAMatrix(["layer5"]).update({"layer4": torch.randn(8, 3), "fc": torch.randn(8, 3)})


def test_5_every_batch_counts() -> None:
    # ckatorch overwrites its matrix: noise in three of four batches leaves the result as it was
    batches = [layers() for _ in range(4)]

    def value(changed: int | None) -> float:
        matrix = CKAMatrix(["a"], ["b"])
        for index, batch in enumerate(batches):
            matrix.update(batch, layers() if index == changed else batch)
        return matrix.compute().value.item()

    assert len({round(value(changed), 6) for changed in (None, 0, 1, 2, 3)}) == 5


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 0.01, 0.1, 1.0, 1e6])
def test_6_no_scale_is_too_small(scale: float) -> None:
    # cka-pytorch adds 1e-4 inside the root: CKA(X, X) = .3085 at scale .1; others add 1e-12: .866
    # at 1e-6
    x = torch.randn(32, 16) * scale
    matrix = CKAMatrix(["x"], ["x"])
    matrix.update([x], [x])
    for found in (cka(x, x), cka(x, x, estimator="biased"), matrix.compute().value):
        assert found.item() == pytest.approx(1.0, abs=1e-6)


def test_6_two_calls_agree_and_names_are_whole() -> None:
    # cka-pytorch: sums survive into the next call; "conv1" hooks nine layers by their short name
    matrix = CKAMatrix(["a", "b"])
    matrix.update(layers())
    assert torch.equal(matrix.compute().value, matrix.compute().value)
    with pytest.raises(UserError, match="left layer 'conv1' is missing"):
        CKAMatrix(["conv1"]).update({"layer1.0.conv1": torch.randn(8, 3)})


def test_7_similarity_of_a_side_with_itself_is_computed() -> None:
    # repsim divides HSIC₁ by √(HSIC₀ HSIC₀): X against X = .799 under a diagonal that is set to 1
    x = torch.randn(20, 50)
    copy = x.clone()
    assert cka(x, copy).item() == pytest.approx(1.0, abs=1e-12)
    ratio = hsic(x, x) / (hsic(x, x, estimator="biased"))
    assert ratio < 0.9
    matrix = CKAMatrix(["x"])
    matrix.update([x])
    matrix.state.xx /= 4  # a diagonal that is set would not notice
    assert matrix.compute().value.item() == pytest.approx(2.0)


def test_8_calls_of_one_module_are_layers_of_their_own() -> None:
    # hooks that write into a dict keep the last call only
    batch = layers()
    calls = {"layer1.0.relu:0": batch["a"], "layer1.0.relu:1": batch["b"]}
    matrix = CKAMatrix(list(calls))
    matrix.update(calls)
    assert torch.isclose(matrix.compute().value[0, 1], cka(batch["a"], batch["b"]), atol=1e-6)


def test_9_negative_estimates_are_not_clamped() -> None:
    # pytorch-cka clamps at 0, with zero gradient: a true mean of .006 becomes .093
    values = []
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        x, y = torch.randn(2, 8, 64, generator=generator)
        matrix = CKAMatrix(["x"], ["y"])
        matrix.update([x], [y])
        values.append(matrix.compute().value.item())
        assert cka(x, y).item() == pytest.approx(values[-1], abs=1e-6)
    found = torch.tensor(values)
    assert (found < 0).float().mean() > 0.3
    assert abs(found.mean().item()) < 0.05
    x, y = torch.randn(2, 8, 64)
    while cka(x, y) > 0:
        y = torch.randn(8, 64)
    y.requires_grad_()
    cka(x, y).backward()
    assert y.grad is not None
    assert y.grad.norm() > 0


@pytest.mark.parametrize("last", [1, 2, 3])
def test_10_a_last_batch_of_few_items_spoils_nothing(last: int) -> None:
    # 65 samples at batch 64: cka-pytorch gives NaN everywhere, torch-cka fails with all work lost
    batch = layers(64 + last)
    matrix = CKAMatrix(["a", "b", "c"])
    for part in (slice(0, 64), slice(64, None)):
        matrix.update({name: x[part] for name, x in batch.items()})
    found = matrix.compute()
    assert found.value.isfinite().all()
    assert (found.skipped, found.skipped_samples, found.samples) == (1, last, 64)


@pytest.mark.parametrize("n", [8, 40])
def test_11_no_value_exceeds_one(n: int) -> None:
    # simtorch, netrep, senselab: a diagonal vector subtracted, the root forgotten, division by
    # layers
    for _ in range(20):
        matrix = CKAMatrix(["a", "b", "c"])
        for _ in range(3):
            matrix.update(layers(n))
        assert matrix.compute().value.abs().max() <= 1 + 1e-12


def test_12_every_estimate_reaches_both_sides_in_a_graph() -> None:
    # CKA_minibatch fails in backward by an in-place operation, ckatorch detaches its Frobenius path
    for estimator in ("biased", "debiased"):
        for shape in ((6, 9, 7), (12, 3, 4)):
            n, p, q = shape
            x, y = (
                torch.randn(n, width, dtype=torch.float64, requires_grad=True) for width in (p, q)
            )
            assert torch.autograd.gradcheck(
                lambda a, b, e=estimator: cka(a, b, estimator=e), (x, y)
            )
            assert torch.autograd.gradcheck(
                lambda a, e=estimator: cka(a, a.square() + a, estimator=e), x
            )
