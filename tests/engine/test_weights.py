from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

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
