from __future__ import annotations

import argparse
import subprocess
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn
from torch.optim.swa_utils import AveragedModel

from tutelage import UserError
from tutelage.engine.weights import load_weights


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


@pytest.mark.parametrize("form", ["safetensors", "plain", "state_dict", "module."])
def test_it_reads_the_usual_forms(tmp_path: Path, form: str) -> None:
    source, target = net(), net()
    state = source.state_dict()
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    if form == "safetensors":
        save_file(state, path)
    elif form == "module.":
        torch.save({f"module.{k}": v for k, v in state.items()}, path)
    else:
        torch.save({"state_dict": state, "epoch": 3} if form == "state_dict" else state, path)
    load_weights(target, path)
    assert torch.equal(source[0].weight, target[0].weight)


def test_a_run_folder_means_its_student(tmp_path: Path) -> None:
    source, target = net(), net()
    save_file(source.state_dict(), tmp_path / "student.safetensors")
    load_weights(target, tmp_path)
    assert torch.equal(source[0].weight, target[0].weight)


def test_missing_unexpected_and_misshapen_keys_are_named(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"0.weight": torch.zeros(2, 3), "head": torch.zeros(1)}, path)
    with pytest.raises(
        UserError, match=r"missing \['0.bias', .* 6 in all\], unexpected \['head'\]"
    ):
        load_weights(net(), path)
    save_file({**net().state_dict(), "0.weight": torch.zeros(2, 4)}, path)
    with pytest.raises(
        UserError, match=r"'0.weight' of shape \(2, 4\), but Sequential needs \(2, 3\)"
    ):
        load_weights(net(), path)


def test_missing_truncated_and_pickled_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there are no weights at"):
        load_weights(net(), tmp_path / "absent.safetensors")
    path = tmp_path / "w.safetensors"
    save_file(net().state_dict(), path)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UserError, match="cannot be read as weights"):
        load_weights(net(), path)
    pickled = tmp_path / "w.pth"
    torch.save(net(), pickled)
    with pytest.raises(UserError, match=r"holds more than tensors|cannot be read"):
        load_weights(net(), pickled)
    torch.save([1, 2], pickled)
    with pytest.raises(UserError, match="holds no state dict"):
        load_weights(net(), pickled)


PREFIXES = ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module."]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_prefixes_of_wrappers_are_removed_in_any_order(
    tmp_path: Path, prefix: str, suffix: str
) -> None:
    source, target, path = net(), net(), tmp_path / f"w.{suffix}"
    state = {f"{prefix}{name}": value for name, value in source.state_dict().items()}
    if suffix == "pth":
        torch.save({"model": {"state_dict": state}}, path)
    else:
        save_file(state, path)
    load_weights(target, path)
    torch.testing.assert_close(target.state_dict(), source.state_dict(), rtol=0, atol=0)


def test_the_prefix_of_a_compiled_part_is_removed(tmp_path: Path) -> None:
    source, target = net(), net()
    state = {name.replace("1.", "1._orig_mod."): v for name, v in source.state_dict().items()}
    torch.save({f"module.{name}": value for name, value in state.items()}, tmp_path / "w.pt")
    load_weights(target, tmp_path / "w.pt")
    torch.testing.assert_close(target.state_dict(), source.state_dict(), rtol=0, atol=0)


class Outer(nn.Module):
    """Has a child that is called like a wrapper's."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Linear(3, 2)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_a_child_that_is_called_module_is_kept(tmp_path: Path, prefix: str) -> None:
    source, target = Outer(), Outer()
    state = {f"{prefix}{name}": value for name, value in source.state_dict().items()}
    torch.save(state, tmp_path / "w.pth")
    load_weights(target, tmp_path / "w.pth")
    assert torch.equal(target.module.weight, source.module.weight)


def test_weights_of_before_batches_were_counted_are_loaded(tmp_path: Path) -> None:
    source, target = net(), net()
    state = {name: v for name, v in source.state_dict().items() if "num_batches" not in name}
    save_file(state, tmp_path / "w.safetensors")
    load_weights(target, tmp_path / "w.safetensors")
    assert torch.equal(source[0].weight, target[0].weight)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 3)
        self.b = nn.Linear(3, 3)
        self.b.weight = self.a.weight


def test_tied_weights_may_be_stored_once(tmp_path: Path) -> None:
    source, target, path = Tied(), Tied(), tmp_path / "w.safetensors"
    save_model(source, str(path))
    load_weights(target, path)
    torch.testing.assert_close(target.state_dict(), source.state_dict(), rtol=0, atol=0)
    assert target.b.weight is target.a.weight
    untied = nn.Module()
    untied.a = nn.Linear(3, 3)
    untied.b = nn.Linear(3, 3)
    with pytest.raises(UserError, match=r"missing \['[ab].weight'\]"):
        load_weights(untied, path)


def test_the_home_folder_may_be_written_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    source, target = net(), net()
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    load_weights(target, "~/w.safetensors")
    assert torch.equal(source[0].weight, target[0].weight)


def test_weights_that_do_not_fit_change_nothing(tmp_path: Path) -> None:
    state = net().state_dict()
    target = net()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    for wrong in ({**state, "extra": torch.zeros(1)}, {**state, "1.bias": torch.zeros(3)}):
        save_file(wrong, tmp_path / "w.safetensors")
        with pytest.raises(UserError):
            load_weights(target, tmp_path / "w.safetensors")
        torch.testing.assert_close(target.state_dict(), before, rtol=0, atol=0)


def test_lazy_networks_are_filled(tmp_path: Path) -> None:
    source = nn.Linear(3, 2)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    target = nn.LazyLinear(2)
    load_weights(target, tmp_path / "w.safetensors")
    assert torch.equal(target.weight, source.weight)


class Renaming(nn.Module):
    """A network that still loads the names of its former version."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)
        self.register_load_state_dict_pre_hook(self.rename)

    @staticmethod
    def rename(module: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name in [name for name in state if name.startswith(f"{prefix}old.")]:
            state[name.replace("old.", "fc.")] = state.pop(name)


class Counting(nn.Linear):
    """A network whose state dict holds more than tensors, which torch loads all the same."""

    count = 0

    def get_extra_state(self) -> dict[str, int]:
        return {"count": self.count}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.count = state["count"]


def test_names_of_every_wrapper_are_removed(tmp_path: Path) -> None:
    state, target, path = net().state_dict(), net(), tmp_path / "w.pth"
    around_a_part = {
        name.replace("0.", "0._checkpoint_wrapped_module."): state[name] for name in state
    }
    for wrapped in (
        AveragedModel(net()).state_dict(),
        {f"_fsdp_wrapped_module.{name}": value for name, value in around_a_part.items()},
        {
            "model_state_dict": {f"module.{name}": value for name, value in state.items()},
            "epoch": 3,
        },
        {"net": around_a_part, "acc": 1.0},
    ):
        torch.save(wrapped, path)
        load_weights(target, path)
    torch.save(
        {f"module.old.{name}": value for name, value in nn.Linear(2, 2).state_dict().items()}, path
    )
    load_weights(Renaming(), path)


def test_a_state_dict_may_hold_more_than_tensors(tmp_path: Path) -> None:
    source, target = Counting(2, 2), Counting(2, 2)
    source.count = 7
    torch.save(source.state_dict(), tmp_path / "w.pth")
    load_weights(target, tmp_path / "w.pth")
    assert (target.count, torch.equal(target.weight, source.weight)) == (7, True)
    with pytest.raises(UserError, match="unexpected"):
        load_weights(nn.Linear(2, 2), tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["w.SAFETENSORS", "weights", "w.bin"])
def test_safetensors_are_known_by_their_content(name: str, tmp_path: Path) -> None:
    source, target = net(), net()
    save_file(source.state_dict(), tmp_path / name)
    load_weights(target, tmp_path / name)
    assert torch.equal(source[0].weight, target[0].weight)


def test_what_is_no_name_or_no_state_dict_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there are no weights at xxx"):
        load_weights(net(), "x" * 5000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), str(tmp_path / "w.pt"))
        with pytest.raises(UserError, match="holds a TorchScript network"):
            load_weights(nn.Linear(2, 2), tmp_path / "w.pt")


def test_which_of_several_networks_is_read_is_said(tmp_path: Path) -> None:
    plain, averaged = nn.Linear(3, 2), nn.Linear(3, 2)
    states = {"ema": averaged.state_dict(), "model": plain.state_dict()}
    torch.save({**states, "epoch": 3, "optimizer": {"state": {}}}, tmp_path / "both.pt")
    target = nn.Linear(3, 2)
    with pytest.warns(UserWarning, match=r"'model' is read, and \['ema'\] is not"):
        load_weights(target, tmp_path / "both.pt")
    assert torch.equal(target.weight, plain.weight)


def test_integers_are_no_weights_of_a_float_network(tmp_path: Path) -> None:
    source, target = nn.Linear(3, 2), nn.Linear(3, 2)
    state = {name: (100 * value).to(torch.int8) for name, value in source.state_dict().items()}
    torch.save(state, tmp_path / "int8.pt")
    before = target.weight.clone()
    with pytest.raises(UserError, match=r"'weight' as torch.int8, but .* torch.float32"):
        load_weights(target, tmp_path / "int8.pt")
    assert torch.equal(target.weight, before)


def test_an_average_inside_of_another_module_is_read(tmp_path: Path) -> None:
    holder = nn.Module()
    source = nn.Linear(3, 2)
    holder.ema_model = AveragedModel(source)
    torch.save(holder.state_dict(), tmp_path / "ema.pt")
    target = nn.Linear(3, 2)
    load_weights(target, tmp_path / "ema.pt")
    assert torch.equal(target.weight, source.weight)


def test_options_beside_the_weights_are_passed_over(tmp_path: Path) -> None:
    """timm and the references of torchvision save their parsed options in the checkpoint."""
    source, target = net(), net()
    options = argparse.Namespace(lr=0.1, device=torch.device("cpu"), data_path="/data", amp=None)
    torch.save({"model": source.state_dict(), "epoch": 9, "args": options}, tmp_path / "w.pth")
    load_weights(target, tmp_path / "w.pth")
    assert torch.equal(source[0].weight, target[0].weight)
    options.callback = Path  # code of any kind is refused as before
    options.run = subprocess.Popen
    torch.save({"model": source.state_dict(), "args": options}, tmp_path / "x.pth")
    with pytest.raises(UserError, match="holds more than tensors and is refused"):
        load_weights(net(), tmp_path / "x.pth")


@pytest.mark.parametrize("holder", ["model.", "net.", "module.model."])
def test_the_name_of_the_module_around_a_network_is_removed(tmp_path: Path, holder: str) -> None:
    """Lightning saves the network as an attribute of its module."""
    source, target = net(), net()
    state = {f"{holder}{name}": value for name, value in source.state_dict().items()}
    content = {"state_dict": state, "epoch": 3, "hyper_parameters": {"lr": 0.1}}
    torch.save(content, tmp_path / "last.ckpt")
    load_weights(target, tmp_path / "last.ckpt")
    assert torch.equal(source[0].weight, target[0].weight)
    # A network that has such a child itself keeps it.
    holding = nn.ModuleDict({"model": net()})
    torch.save(holding.state_dict(), tmp_path / "own.pth")
    other = nn.ModuleDict({"model": net()})
    load_weights(other, tmp_path / "own.pth")
    assert torch.equal(other["model"][0].weight, holding["model"][0].weight)
