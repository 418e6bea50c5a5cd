"""Checkpoints: the last two, with checksums, and what a damaged one leads to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.helpers.runs import make_recipe
from tutelage import Baseline, NonFiniteError, UserError
from tutelage.engine import fit
from tutelage.engine.checkpoint import (
    checkpoints,
    load_checkpoint,
    newest_checkpoint,
    non_finite,
    save_checkpoint,
)


def save(folder: Path, *steps: int) -> None:
    for step in steps:
        save_checkpoint(folder, step, {"x": torch.full((3,), float(step))}, {"step": step})


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) == (None, [])
    save(tmp_path, 3, 20, 100)
    assert [path.name for path in checkpoints(tmp_path)] == ["000000100", "000000020"]
    tensors, state = load_checkpoint(tmp_path / "000000100")
    assert tensors["x"].tolist() == [100.0] * 3
    assert state == {"step": 100}


def test_a_step_is_saved_again_in_place_of_the_first(tmp_path: Path) -> None:
    save(tmp_path, 3)
    save_checkpoint(tmp_path, 3, {"x": torch.ones(1)}, {"step": 3, "seconds": 2.0})
    assert [path.name for path in tmp_path.iterdir()] == ["000000003"]
    assert load_checkpoint(tmp_path / "000000003")[1]["seconds"] == 2.0


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "checksums.json"])
@pytest.mark.parametrize("damage", ["bit", "cut", "gone", "empty", "another"])
def test_a_damaged_one_is_passed_over(name: str, damage: str, tmp_path: Path) -> None:
    save(tmp_path, 10, 20)
    file = tmp_path / "000000020" / name
    content = bytearray(file.read_bytes())
    content[-4] ^= 4
    damaged = {"bit": content, "cut": content[:-5], "empty": b"", "another": b"[]"}
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(damaged[damage])
    path, problems = newest_checkpoint(tmp_path)
    assert path == tmp_path / "000000010"
    assert len(problems) == 1
    assert "000000020" in problems[0]
    (tmp_path / "000000010" / "state.json").write_text("{")
    with pytest.raises(UserError, match=r"cannot be read \(.*20.*10.*remove it to start again"):
        newest_checkpoint(tmp_path)


def test_the_names_of_what_is_not_finite() -> None:
    values = {"a": torch.tensor([1.0, float("nan")]), "b": torch.arange(3), "c": torch.ones(2)}
    values["d"] = torch.tensor(float("-inf"), dtype=torch.bfloat16)
    assert non_finite(values) == ["a", "d"]


class Blow(torch.optim.SGD):
    """SGD whose step number `at` overflows, as a bad batch under mixed precision may."""

    at = 0
    done = 0

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        super().step()
        type(self).done += 1
        if self.done == self.at:
            self.param_groups[0]["params"][0].data.fill_(float("nan"))


@pytest.mark.parametrize("at", [7, 8])  # four steps an epoch: within the second, and its last
def test_bad_weights_are_not_saved_over_good_ones(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Blow, "at", at)
    monkeypatch.setattr(Blow, "done", 0)

    def run() -> object:
        recipe = make_recipe(Baseline(), None, epochs=3)
        recipe.train.optimizer = lambda parameters: Blow(parameters, lr=0.1)
        return fit(recipe, tmp_path / "run", resume=True, text="blow\n")

    with pytest.raises(NonFiniteError, match=r"became nan in epoch 2|is not finite after step 8"):
        run()
    (kept,) = checkpoints(tmp_path / "run/checkpoints")
    assert kept.name == "000000004"
    assert not non_finite(load_checkpoint(kept)[0])
    records = (tmp_path / "run/log.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in records] == [1]
    monkeypatch.setattr(Blow, "at", 0)
    assert run() is not None
