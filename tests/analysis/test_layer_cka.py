"""Comparing networks layer by layer, and the silent wrong answers of other tools."""

from __future__ import annotations

import copy
from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

from tutelage import UserError
from tutelage.analysis import (
    compare_layers,
    layer_map,
    layers_of,
    reliability_matrix,
    split_inputs,
    suggest_pairs,
)
from tutelage.core import Batch
from tutelage.models import resnet8, small_cnn
from tutelage.similarity import cka


def images(count: int = 96, channels: int = 1) -> Tensor:
    return torch.rand(count, channels, 16, 16, generator=torch.Generator().manual_seed(7))


def batches(x: Tensor, size: int = 32) -> list[tuple[Tensor]]:
    return [(batch,) for batch in x.split(size)]


class Residual(nn.Module):
    """A batch norm whose output a ReLU overwrites, as in torchvision's ResNets."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3)
        self.bn = nn.BatchNorm2d(6)
        self.relu = nn.ReLU(inplace=inplace)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(self.conv(x))).mean((2, 3))


def test_an_operation_in_place_does_not_reach_the_layer_before_it() -> None:
    torch.manual_seed(1)
    inplace, plain = Residual(inplace=True), Residual(inplace=False)
    plain.load_state_dict(inplace.state_dict())
    names = [["bn", "relu"]] * 2
    found, expected = (
        compare_layers([net, net], names, batches(images())).compute().value
        for net in (inplace, plain)
    )
    assert torch.equal(found, expected)
    assert found[0, 1] < 0.999


class HeadFirst(nn.Module):
    """Defined in another order than it runs in."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 3)
        self.body = nn.Linear(256, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x.flatten(1)).relu())


def test_layers_come_in_the_order_that_was_asked_for() -> None:
    net, x = HeadFirst(), images()
    other = small_cnn(width=4)
    one = compare_layers([net, other], [["head", "body"], ["stage1"]], batches(x)).compute()
    two = compare_layers([net, other], [["body", "head"], ["stage1"]], batches(x)).compute()
    assert torch.allclose(one.value, two.value.flip(0))
    assert one.left == ("head", "body")
    assert layers_of(net, (x[:4],)) == ["body", "head"]


def test_a_shuffled_loader_is_gone_through_once_for_both() -> None:
    net, x = small_cnn(width=4), images()
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(x), batch_size=32, shuffle=True
    )
    names = [["stage1", "stage3"]] * 2
    value = compare_layers([net, copy.deepcopy(net)], names, loader).compute().value
    assert torch.allclose(value.diagonal(), torch.ones(2, dtype=torch.float64))


def test_an_unknown_layer_is_refused_before_the_first_batch_with_near_names() -> None:
    def never() -> object:
        raise AssertionError("no batch is needed to see this")
        yield

    with pytest.raises(UserError, match=r"no module 'stage9' in \w+; did you mean \['stage"):
        compare_layers([small_cnn(), small_cnn()], [["stage1"], ["stage9"]], never())


class Twice(nn.Module):
    """Calls one ReLU twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(256, 8)
        self.relu = nn.ReLU()
        self.second = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.second(self.relu(self.first(x.flatten(1)))))


def test_a_module_that_is_called_twice_is_two_layers() -> None:
    net, x = Twice(), images()
    value = compare_layers([net, net], [["relu:0", "relu:1"]] * 2, [(x,)]).compute().value
    first = net.first(x.flatten(1)).relu().detach()
    assert value[0, 1].item() == pytest.approx(
        cka(first, net.second(first).relu().detach()).item(), abs=1e-6
    )
    assert value[0, 1] < 0.999


def test_every_batch_counts_and_a_short_last_one_is_told() -> None:
    net, x = small_cnn(width=4), images(66)
    other = small_cnn(width=6)
    names = [["stage1"], ["stage3"]]
    found = compare_layers([net, other], names, batches(x, 32)).compute()
    assert (found.samples, found.batches, found.skipped) == (64, 2, 1)
    spoilt = x.clone()
    spoilt[:32] = torch.rand(32, 1, 16, 16)
    assert not torch.equal(
        compare_layers([net, other], names, batches(spoilt, 32)).compute().value, found.value
    )


def test_modes_and_hooks_are_as_before_also_after_an_error() -> None:
    net = resnet8(num_classes=3, channels=1)
    net.stage2.eval()
    modes = [module.training for module in net.modules()]
    state = copy.deepcopy(net.state_dict())
    compare_layers([net, net], [["stage1"]] * 2, batches(images(32)))
    with pytest.raises(RuntimeError):
        compare_layers([net, net], [["stage1"]] * 2, [(torch.zeros(8, 5, 4, 4),)])
    assert [module.training for module in net.modules()] == modes
    assert not any(module._forward_hooks for module in net.modules())
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())


def test_a_constant_layer_is_nan_and_named() -> None:
    net = nn.Sequential(
        OrderedDict(flat=nn.Flatten(), live=nn.Linear(256, 4), dead=nn.Linear(4, 4))
    )
    nn.init.zeros_(net.dead.weight)
    matrix = compare_layers([net, net], [["live", "dead"]] * 2, batches(images()))
    with pytest.warns(UserWarning, match="dead"):
        found = matrix.compute()
    assert found.value[0, 0] == pytest.approx(1.0)
    assert found.value[1].isnan().all()


def test_vision_transformers_of_timm_and_hugging_face_are_compared() -> None:
    timm = pytest.importorskip("timm")
    transformers = pytest.importorskip("transformers")
    vit = timm.models.VisionTransformer(
        img_size=16, patch_size=8, in_chans=1, embed_dim=16, depth=2, num_heads=2, num_classes=3
    )
    config = transformers.ViTConfig(
        image_size=16,
        patch_size=8,
        num_channels=1,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=3,
    )
    hugging = transformers.ViTForImageClassification(config)
    x = images(32)
    names = [layers_of(net, (x[:4],)) for net in (vit, hugging)]
    assert any("blocks" in name for name in names[0])
    assert len(names[1]) >= 4
    value = compare_layers([vit, hugging], names, batches(x, 16)).compute().value
    assert value.shape == (len(names[0]), len(names[1]))
    same = compare_layers([hugging, hugging], [names[1]] * 2, batches(x, 16)).compute().value
    assert torch.allclose(same.diagonal(), torch.ones(len(names[1]), dtype=torch.float64))


def test_layers_are_looked_for_deeper_where_there_are_few() -> None:
    deep = nn.Sequential(
        OrderedDict(body=nn.Sequential(nn.Flatten(), nn.Linear(256, 5), nn.ReLU(), nn.Linear(5, 2)))
    )
    assert layers_of(deep, (images(4),)) == ["body.0", "body.1", "body.2", "body.3"]
    assert layers_of(small_cnn(width=4), (images(4),))[:3] == ["stage1", "stage2", "stage3"]


def test_a_verdict_says_why_a_number_means_nothing() -> None:
    net, x = small_cnn(width=4), images(256)
    assert reliability_matrix([net, net], [["stage3"]] * 2, (x,))[0][0].verdict == "trust"
    x[:4] += 40  # a few far images make any two networks agree
    far = reliability_matrix([net, small_cnn(width=6)], [["stage3"]] * 2, (x,))[0][0]
    assert far.verdict == "do not trust"
    assert "rows sway it" in far.reasons[0]


def test_pairs_follow_both_networks_and_leave_the_output_out() -> None:
    torch.manual_seed(0)
    teacher, student = small_cnn(width=12), small_cnn(width=4)
    pairs = suggest_pairs(teacher, student, batches(images()), num_pairs=2)
    assert len(pairs) == 2
    names = layers_of(student, (images(4),))
    assert names.index(pairs[0][0]) < names.index(pairs[1][0])
    assert "classifier" not in [name for pair in pairs for name in pair[:2]]
    assert all(-1 <= value <= 1 for _, _, value in pairs)
    with pytest.raises(UserError, match="at least one batch"):
        suggest_pairs(teacher, student, [])


def test_a_map_is_that_of_the_batches_that_the_inputs_are_cut_into() -> None:
    net, x = small_cnn(width=4), images(300)
    names = [["stage1", "stage3"]] * 2
    value = compare_layers([net, net], names, batches(x, 128)).compute().value
    assert layer_map([net, net], names, (x,)) == value.tolist()


class TwoTowers(nn.Module):
    """Takes tokens of two texts by name; no images, no labels."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.embedding = nn.EmbeddingBag(11, width)
        self.query = nn.Linear(width, 5)
        self.document = nn.Linear(width, 5)
        self.score = nn.Bilinear(5, 5, 3)

    def forward(self, query: Tensor, document: Tensor) -> Tensor:
        query_features = self.query(self.embedding(query)).relu()
        return self.score(query_features, self.document(self.embedding(document)).relu())


def texts(count: int = 64) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randint(0, 11, (2, count, 7), generator=generator)
    return {"query": tokens[0], "document": tokens[1]}


def test_inputs_may_be_a_mapping() -> None:
    torch.manual_seed(0)
    left, right, inputs = TwoTowers(), TwoTowers(8), texts()
    names = layers_of(left, (inputs,))
    assert names == ["query", "embedding", "document", "score"]
    layers = [names, names]
    whole = compare_layers([left, right], layers, [{"inputs": inputs}]).compute().value
    parts = split_inputs({**inputs, "labels": torch.zeros(64)}, 32)  # as of Hugging Face
    assert [len(part["query"]) for part in parts] == [32, 32]
    result = compare_layers([left, right], layers, parts).compute()
    assert (result.samples, result.batches) == (64, 2)
    assert torch.allclose(result.value, whole, atol=0.2)
    assert torch.allclose(torch.tensor(layer_map([left, right], layers, (inputs,))), whole.float())
    assert len(reliability_matrix([left, right], layers, (inputs,))) == 4
    assert len(suggest_pairs(left, right, parts, num_pairs=2)) == 2


def test_inputs_are_what_the_caller_says() -> None:
    torch.manual_seed(0)
    net, tokens = TwoTowers(), texts()
    batch = {"inputs": tokens["query"], "labels": torch.zeros(64), "clicked": tokens["document"]}
    layers = [["query", "document"]] * 2

    def both(batch: Batch) -> tuple[Tensor, Tensor]:
        return batch.inputs, batch["clicked"]

    value = compare_layers([net, net], layers, [batch], inputs=both).compute().value
    same = compare_layers([net, net], layers, [tokens]).compute().value
    assert torch.equal(value, same)
    pairs = suggest_pairs(net, net, [batch], num_pairs=1, inputs=both)
    assert pairs[0][2] == pytest.approx(1.0)


class TimeFirst(nn.Module):
    """An encoder whose inner layer has the moments in front."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.LSTM(4, 5)
        self.norm = nn.LayerNorm(5)
        self.head = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.inner(x.transpose(0, 1))[0]).mean(0))


def test_layers_whose_first_axis_is_not_the_items_are_refused() -> None:
    nets = [TimeFirst(), TimeFirst()]
    batches = [torch.randn(16, 12, 4)]
    with pytest.raises(UserError, match=r"left network, batch 0: the layer 'norm' has 12 rows for"):
        compare_layers(nets, [["norm"], ["head"]], batches)
    with pytest.raises(UserError, match=r"right network.*'inner\[0\]' has 12 rows for 16 items"):
        reliability_matrix(nets, [["head"], ["inner[0]"]], (batches[0],))
    assert layers_of(nets[0], (batches[0],)) == ["head"]
    assert layers_of(nets[0], (torch.randn(12, 12, 4),)) == ["head"]


def test_a_layer_that_is_nan_is_named_with_its_network_and_batch() -> None:
    class Log(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.log()

    nets = [nn.Sequential(nn.Linear(4, 8), odd) for odd in (nn.ReLU(), Log())]
    message = "right network, batch 0: the layer '1': the output holds NaN"
    with pytest.raises(UserError, match=message):
        compare_layers(nets, [["0", "1"], ["0", "1"]], [torch.randn(32, 4)])


def test_a_batch_that_is_too_short_does_not_run() -> None:
    class Squeeze(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.squeeze()

    nets = [nn.Sequential(nn.Linear(4, 8), Squeeze()) for _ in range(2)]
    batches = [torch.randn(32, 4), torch.randn(1, 4)]
    assert compare_layers(nets, [["1"], ["1"]], batches).compute().skipped == 1


def test_a_network_that_changes_the_inputs_is_refused() -> None:
    nets = [nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 8)) for _ in range(2)]
    with pytest.raises(UserError, match="left network, batch 0: the network changes its inputs"):
        compare_layers(nets, [["1"], ["1"]], [torch.randn(32, 4)])


def test_inputs_of_the_wrong_kind_are_named() -> None:
    half = nn.Sequential(nn.Linear(4, 3)).half()
    whole = nn.Sequential(nn.Linear(4, 3))
    with pytest.raises(UserError, match=r"the right network, batch 0's inputs are torch.float32"):
        compare_layers([whole, half], [["0"], ["0"]], [torch.ones(8, 4)])
    with pytest.raises(UserError, match=r"cannot take a batch of the fields \['x', 'label'\]"):
        compare_layers(
            [whole, whole], [["0"], ["0"]], [{"x": torch.ones(8, 4), "label": torch.ones(8)}]
        )
