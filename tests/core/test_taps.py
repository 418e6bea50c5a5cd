from __future__ import annotations

import copy
import pickle
from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

from tutelage import FeatureTaps, FrozenTeacher, UserError
from tutelage.core.taps import Address, find_module, remove_taps


class Twice(nn.Module):
    """Calls one ReLU twice, and another never."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.unused = nn.Identity()
        self.blocks = nn.ModuleList([nn.Identity()])

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.relu(x) - 1)


class Pair(nn.Module):
    """Returns a tuple that holds a dict."""

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, list[Tensor]]]:
        return x + 1, {"maps": [x * 2, x * 3]}


class Holder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = Pair()

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x)[0]


def test_taps_return_what_the_modules_gave() -> None:
    net = nn.Sequential(OrderedDict(a=nn.Linear(4, 3), b=nn.Sequential(nn.Tanh(), nn.Linear(3, 2))))
    x = torch.randn(5, 4)
    output = FeatureTaps(net, ["a", "b.0"])(x)
    assert torch.equal(output.features["a"], net.a(x))
    assert torch.equal(output.features["b.0"], net.a(x).tanh())
    assert torch.equal(output.output, net(x))


def test_gradients_flow_through_taps() -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    FeatureTaps(net, ["0"])(torch.randn(5, 4)).features["0"].sum().backward()
    assert net[0].weight.grad is not None
    assert net[1].weight.grad is None


def test_repeated_calls_are_indexed_and_the_plain_name_is_the_last() -> None:
    x = torch.tensor([[3.0, 0.5]])
    features = FeatureTaps(Twice(), ["relu:0", "relu:1", "relu"])(x).features
    assert features["relu:0"].tolist() == [[3.0, 0.5]]
    assert features["relu:1"].tolist() == [[2.0, 0.0]]
    assert torch.equal(features["relu"], features["relu:1"])


def test_a_second_pass_starts_counting_anew() -> None:
    recorder = FeatureTaps(Twice(), ["relu:0"])
    recorder(torch.tensor([[3.0]]))
    assert recorder(torch.tensor([[4.0]])).features["relu:0"].item() == 4.0


def test_tuple_and_dict_outputs_are_addressable() -> None:
    x = torch.ones(2, 2)
    layers = ["encoder[0]", "encoder[1][maps][1]", "encoder:0[1][maps][-2]"]
    features = FeatureTaps(Holder(), layers)(x).features
    assert [feature[0, 0].item() for feature in features.values()] == [2.0, 3.0, 2.0]


def test_a_non_tensor_output_names_the_choices() -> None:
    with pytest.raises(
        UserError,
        match=r"gives a tuple, not a tensor; choose one of \['encoder\[0\]', 'encoder\[1\]'\]",
    ):
        FeatureTaps(Holder(), ["encoder"])(torch.ones(1, 1))
    with pytest.raises(UserError, match=r"finds no \[5\] in a tuple; there are \['0', '1'\]"):
        FeatureTaps(Holder(), ["encoder[5]"])(torch.ones(1, 1))


def test_an_unknown_name_gives_the_near_misses() -> None:
    net = nn.Sequential(OrderedDict(layer3=nn.ReLU(), layer4=nn.ReLU(), fc=nn.ReLU()))
    with pytest.raises(
        UserError, match=r"no module 'layer5' in Sequential; did you mean \['layer4', 'layer3'\]\?"
    ):
        FeatureTaps(net, ["layer5"])


@pytest.mark.parametrize("name", ["unused", "relu:2", "blocks"])
def test_a_tap_that_never_fires_raises_and_names_itself(name: str) -> None:
    with pytest.raises(UserError, match=f"the tap '{name}' did not fire"):
        FeatureTaps(Twice(), [name])(torch.ones(1, 1))


def test_after_an_error_the_next_pass_is_clean() -> None:
    recorder = FeatureTaps(Holder(), ["encoder[0]"])
    with pytest.raises(TypeError):
        recorder(torch.ones(1), torch.ones(1))
    assert recorder(torch.ones(1)).features["encoder[0]"].item() == 2.0


@pytest.mark.parametrize("text", ["", "a:b", "a[", ":0", "a[]"])
def test_a_malformed_address_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="is not a tap address"):
        Address.parse(text)


def test_a_feature_that_was_not_recorded_gives_the_near_misses() -> None:
    output = FeatureTaps(nn.Sequential(OrderedDict(layer3=nn.ReLU())), ["layer3"])(torch.ones(1))
    assert output.feature("layer3").item() == 1.0
    with pytest.raises(UserError, match="'layer4' of the network was recorded; did you mean"):
        output.feature("layer4")


def test_a_transform_is_applied_in_the_hook() -> None:
    net = nn.Sequential(nn.Identity(), nn.ReLU(inplace=True))
    seen = FeatureTaps(net, ["0"], transform=lambda x: x * 2)(torch.tensor([-1.0])).features["0"]
    assert seen.item() == -2.0


def test_a_copy_of_a_tapped_network_records_for_itself_and_can_be_untapped() -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    taps = FeatureTaps(net, ["0"])
    copied = copy.deepcopy(net)
    x = torch.ones(2, 4)
    output = taps(x)
    copied(torch.zeros(2, 4))
    assert torch.equal(output.features["0"], net[0](x))
    remove_taps(copied)
    assert not copied[0]._forward_hooks
    assert net[0]._forward_hooks


def test_removed_taps_leave_no_hook() -> None:
    net = nn.Sequential(nn.ReLU())
    recorder = FeatureTaps(net, ["0"])
    recorder.remove()
    assert not net[0]._forward_hooks


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_taps_work_under_compile(backend: str) -> None:
    torch._dynamo.reset()
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    recorder = FeatureTaps(net, ["1", "2"])
    plain = recorder(torch.ones(2, 4))
    net.compile(backend=backend)
    for _ in range(2):
        compiled = recorder(torch.ones(2, 4))
        assert torch.allclose(compiled.features["1"], plain.features["1"])
    compiled.features["1"].sum().backward()
    assert net[0].weight.grad is not None


def test_a_dict_input_is_passed_by_name() -> None:
    class Named(nn.Module):
        def forward(self, *, pixels: Tensor) -> Tensor:
            return pixels + 1

    assert FeatureTaps(Named())({"pixels": torch.zeros(1)}).output.item() == 1.0


class Changing(nn.Module):
    """Changes the output of `a` in place, also through a view or behind the version counter."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.drop = nn.Dropout(0.5, inplace=True)
        self.head = nn.Linear(4, 3)
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        if self.how == "relu":
            x = torch.relu_(x)
        elif self.how == "add":
            x += 1
        elif self.how == "view":
            x[:, :1].mul_(3)
        elif self.how == "dropout":
            x = self.drop(x)
        elif self.how == "data":
            x.data.zero_()
        return self.head(x)


@pytest.mark.parametrize("how", ["none", "relu", "add", "view", "dropout", "data"])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("grad", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_a_later_operation_in_place_does_not_reach_a_feature(
    how: str, training: bool, grad: type
) -> None:
    net = Changing(how).train(training)
    taps = FeatureTaps(net, ["a"])
    for _ in range(3):
        x = torch.randn(5, 4)
        with grad():
            feature = taps(x).features["a"]
            assert torch.equal(feature, net.a(x))
        if grad is torch.enable_grad:
            net.zero_grad()
            feature.sum().backward()
            assert torch.allclose(net.a.weight.grad, x.sum(0).expand(4, 4), atol=1e-6)


def test_only_what_is_changed_is_copied() -> None:
    seen: list[Tensor] = []
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(inplace=True), nn.Linear(3, 2), nn.Linear(2, 2))
    net[2].register_forward_hook(lambda module, args, output: seen.append(output))
    taps = FeatureTaps(net, ["0", "2"])
    for _ in range(2):
        output = taps(torch.randn(5, 4))
        assert output.features["2"] is seen[-1]
        assert output.features["0"].min() < 0


def test_an_output_that_is_changed_after_passes_without_is_refused_or_recorded_again() -> None:
    net = Changing("none")
    taps = FeatureTaps(net, ["a"])
    taps(torch.ones(2, 4))
    net.how = "relu"
    with pytest.raises(UserError, match="tap 'a' was changed in place by a later layer, which no"):
        taps(torch.ones(2, 4))
    x = torch.randn(2, 4)
    assert torch.equal(taps(x).features["a"], net.a(x))
    net.eval().how = "none"
    with torch.no_grad():
        taps(x)
        net.how = "relu"
        assert torch.equal(taps(x).features["a"], net.a(x))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_operations_in_place_in_a_compiled_network(backend: str) -> None:
    torch._dynamo.reset()
    net = Changing("relu")
    taps = FeatureTaps(net, ["a"])
    x = torch.randn(5, 4)
    expected = net.a(x)
    net.compile(backend=backend)
    for _ in range(2):
        assert torch.allclose(taps(x).features["a"], expected)


def test_residual_networks_of_torchvision_give_their_batch_norms() -> None:
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    net = torchvision.models.resnet18(num_classes=10)
    layers = ["bn1", "relu", "layer1.0.bn2", "layer1.0"]
    features = FeatureTaps(net, layers)(torch.randn(4, 3, 32, 32)).features
    assert features["bn1"].min() < 0
    assert torch.equal(features["bn1"].relu(), features["relu"])
    assert not torch.equal(features["layer1.0.bn2"], features["layer1.0"])


def hooks(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in network.modules())


def test_taps_go_when_they_are_deleted() -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    taps = FeatureTaps(net, ["0", "1"])
    assert hooks(net) == 2
    del taps
    assert hooks(net) == 0


def test_passes_of_others_leave_nothing_behind() -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    taps = FeatureTaps(net, ["0"])
    taps(torch.ones(2, 4))
    net(torch.ones(2, 4))
    with pytest.raises(RuntimeError):
        taps(torch.ones(2, 5))
    assert not any(recorder.recorded for recorder in taps._recorders)


def test_a_copied_network_has_no_taps_and_a_copy_of_the_taps_has_its_own() -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    taps = FeatureTaps(net, ["0"])
    taps(torch.ones(2, 4))
    assert hooks(copy.deepcopy(net)) == 0
    assert hooks(torch.optim.swa_utils.AveragedModel(net)) == 0
    assert hooks(net) == 1
    for copied in (copy.deepcopy(taps), pickle.loads(pickle.dumps(taps))):
        assert copied.network is not net
        with torch.no_grad():
            copied.network[0].weight.zero_()
            copied.network[0].bias.zero_()
        assert copied(torch.ones(2, 4)).features["0"].abs().max() == 0
        assert taps(torch.ones(2, 4)).features["0"].abs().max() > 0
    taps.remove()
    assert hooks(net) == 0
    assert hooks(copy.deepcopy(taps).network) == 0


def test_layers_are_found_inside_a_compiled_network() -> None:
    torch._dynamo.reset()
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    taps = FeatureTaps(torch.compile(net, backend="eager"), ["0"])
    x = torch.randn(2, 4)
    assert torch.equal(taps(x).features["0"], net[0](x))


def test_every_name_of_a_module_can_be_tapped() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    network.encoder = network[0]
    output = FeatureTaps(network, ["0", "encoder"])(torch.ones(2, 3))
    assert torch.equal(output.features["0"], output.features["encoder"])
    assert find_module(network, "encoder") is network[0]


def test_removed_taps_say_so() -> None:
    taps = FeatureTaps(nn.Sequential(nn.Linear(3, 3)), ["0"])
    taps.remove()
    with pytest.raises(UserError, match=r"the taps on \['0'\] were removed, as Distiller.deploy"):
        taps(torch.ones(2, 3))


@pytest.mark.parametrize("gradients", [True, False])
def test_what_the_caller_does_to_the_output_does_not_reach_a_feature(gradients: bool) -> None:
    network, x = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), torch.randn(5, 4)
    taps = FeatureTaps(network, ["1"])
    with torch.set_grad_enabled(gradients):
        for _ in range(2):
            output = taps(x)
            output.output.zero_()
            assert torch.equal(output.features["1"], network(x))
            assert output.features["1"].requires_grad == gradients


def test_an_exported_network_is_refused() -> None:
    network = nn.Sequential(nn.Linear(4, 3))
    exported = torch.export.export(network, (torch.ones(2, 4),)).module()
    for make in (FeatureTaps, FrozenTeacher):
        with pytest.raises(UserError, match=r"as it was before torch.export"):
            make(exported, ["0"])
