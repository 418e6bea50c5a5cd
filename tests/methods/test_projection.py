"""Trainable maps from a student's feature to a teacher's width, and checks of both features."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tutelage import UserError
from tutelage.methods._projection import adapter, check_layer, connector, pooled, projection


@pytest.mark.parametrize(
    ("shape", "kind"), [((2, 3, 4, 4), nn.Conv2d), ((2, 5, 3), nn.Linear), ((2, 3), nn.Linear)]
)
def test_a_projection_has_no_bias_and_the_teachers_width(
    shape: tuple[int, ...], kind: type[nn.Module]
) -> None:
    channel_dim = 1 if len(shape) == 4 else len(shape) - 1
    wide = tuple(7 if dim == channel_dim else size for dim, size in enumerate(shape))
    student, teacher = torch.rand(shape), torch.rand(wide)
    layer = projection(student, teacher, "a → b")
    assert type(layer) is kind
    assert layer.bias is None
    assert layer(student).shape == teacher.shape
    assert type(projection(student, torch.rand(shape), "a → b")) is nn.Identity


def test_pairs_that_cannot_be_projected_are_named() -> None:
    with pytest.raises(UserError, match=r"the pair a → b gives features \(2, 3, 4, 4\) and \(2, 3"):
        projection(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3), "a → b")
    with pytest.raises(UserError, match=r"the pair a → b gives features \(2,\) and \(2,\); tap"):
        projection(torch.zeros(2), torch.zeros(2), "a → b")
    with pytest.raises(UserError, match="the pair a → b has 16 and 17 tokens; tap layers of equal"):
        projection(torch.zeros(2, 16, 3), torch.zeros(2, 17, 3), "a → b")
    with pytest.raises(UserError, match="one seems to have its channels last"):
        projection(torch.zeros(2, 96, 14, 14), torch.zeros(2, 14, 14, 192), "a → b")


def test_the_connector_starts_as_the_official_one() -> None:
    parts = connector(torch.rand(2, 512, 4, 4), torch.rand(2, 256, 8, 8))
    assert parts[0].weight.std().item() == pytest.approx((2 / 256) ** 0.5, rel=0.02)
    assert parts[0].bias is None
    assert [type(part) for part in parts] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]


def test_the_connector_ends_in_a_relu_if_the_teachers_feature_is_nowhere_negative() -> None:
    student, positive = torch.rand(2, 3, 4, 4), torch.rand(2, 5, 4, 4)
    assert isinstance(connector(student, positive)[-1], nn.ReLU)
    assert isinstance(connector(student, -positive)[-1], nn.BatchNorm2d)
    assert not isinstance(connector(student, positive, relu=False)[-1], nn.ReLU)
    vectors = connector(torch.rand(2, 3), -torch.rand(2, 5), relu=True)
    assert [type(part) for part in vectors] == [nn.Linear, nn.BatchNorm1d, nn.ReLU]


@pytest.mark.parametrize(
    ("dtype", "expected"), [(torch.bfloat16, torch.float32), (torch.float64, torch.float64)]
)
def test_the_connector_has_the_students_precision_at_least_single(
    dtype: torch.dtype, expected: torch.dtype
) -> None:
    parts = connector(torch.rand(2, 3, 4, 4, dtype=dtype), torch.rand(2, 5, 4, 4))
    assert parts[0].weight.dtype == expected


def test_an_adapter_starts_as_the_identity_or_at_kaimings_scale() -> None:
    student = torch.randn(2, 64, 4, 4)
    same = adapter(student, torch.randn(2, 64, 4, 4), "always")
    assert torch.equal(same(student), student)
    wider = adapter(student, torch.randn(2, 256, 4, 4), "auto")
    assert wider.weight.std().item() == pytest.approx((1 / 64) ** 0.5, rel=0.05)
    assert torch.equal(wider.bias, torch.zeros(256))


def test_an_adapter_is_there_where_it_is_wanted() -> None:
    student, same, wider = (torch.zeros(2, width, 4, 4) for width in (3, 3, 5))
    assert type(adapter(student, same, "auto")) is nn.Identity
    assert type(adapter(student, same, "always")) is nn.Conv2d
    assert type(adapter(student, wider, "auto")) is nn.Conv2d
    assert type(adapter(student, wider, "never")) is nn.Identity
    with pytest.raises(UserError, match="one seems to have its channels last"):
        adapter(torch.zeros(2, 96, 14, 14), torch.zeros(2, 14, 14, 192), "auto")


def test_a_map_is_pooled_over_its_positions_and_a_vector_stays() -> None:
    maps = torch.rand(2, 3, 5, 4)
    assert torch.equal(pooled(maps), maps.mean((2, 3)))
    vectors = torch.rand(2, 3)
    assert pooled(vectors) is vectors


def test_layers_that_are_neither_map_nor_vector_are_refused() -> None:
    check_layer(torch.zeros(2, 64, 8, 8), "student", "stage3")
    check_layer(torch.zeros(2, 64), "student", "flatten")
    check_layer(torch.zeros(2, 4, 4, 512), "student", "of square images, 4 channels", (4, 512))
    with pytest.raises(UserError, match=r"the student's layer 'blocks.1' gives \(4, 17, 12\); tap"):
        check_layer(torch.zeros(4, 17, 12), "student", "blocks.1")
    with pytest.raises(UserError, match=r"the student's layer 'layers' gives \(4, 8, 8, 16\); tap"):
        check_layer(torch.zeros(4, 8, 8, 16), "student", "layers")
    with pytest.raises(UserError, match=r"the teacher's layer 'norm' gives \(2, 2, 4, 512\)"):
        check_layer(torch.zeros(2, 2, 4, 512), "teacher", "norm", (64, 128))
