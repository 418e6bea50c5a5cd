"""Saved accumulators: complete, readable by other tools, never pickle, never half written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tutelage import UserError
from tutelage.similarity import CKAMatrix
from tutelage.similarity._cka_file import KEY, describe


def matrix(right: bool = True) -> CKAMatrix:
    made = CKAMatrix(["a", "b"], ["c"] if right else None, permutations=2, seed=7)
    for index in range(3):
        x = torch.randn(3, 10 if index < 2 else 3, 4)
        made.update(
            list(x[:2]),
            [x[2] + x[0]] if right else None,
            ids=range(index * 10, index * 10 + x.shape[1]),
        )
    return made


@pytest.mark.parametrize("right", [True, False])
def test_what_is_loaded_is_what_was_saved_and_goes_on(tmp_path: Path, right: bool) -> None:
    before = matrix(right)
    before.save(tmp_path / "map.safetensors")
    after = CKAMatrix.load(tmp_path / "map.safetensors")
    one, two = before.compute(), after.compute()
    assert torch.equal(one.value, two.value)
    assert torch.equal(one.p_value, two.p_value)
    assert (
        (two.left, two.right)
        == (one.left, one.right)
        == (("a", "b"), ("c",) if right else ("a", "b"))
    )
    assert (two.samples, two.batches, two.skipped, two.skipped_samples) == (20, 2, 1, 3)
    assert two.ids == one.ids is not None
    batch = torch.randn(2, 9, 4)
    for each in (before, after):
        each.update(list(batch), [batch[0]] if right else None)
    assert torch.equal(before.state.null, after.state.null)
    after.merge(before)
    assert after.compute().batches == 6
    assert [path.name for path in tmp_path.iterdir()] == ["map.safetensors"]


def test_the_header_explains_the_file(tmp_path: Path) -> None:
    path = tmp_path / "map.safetensors"
    matrix().save(str(path))
    with safe_open(path, framework="np") as file:
        about = json.loads(file.metadata()[KEY])
    assert about == describe(path)
    assert about["left"] == ["a", "b"]
    assert about["counts"]["skipped"] == 1
    assert set(about["versions"]) == {"tutelage", "torch"}
    assert about["ids"] == matrix().compute().ids
    assert about["measure"] == "linear CKA, centered, debiased"


def test_saving_follows_no_link_and_gives_the_mode_of_any_new_file(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path = tmp_path / "map.safetensors"
    path.symlink_to(victim)
    path.with_name("map.safetensors.tmp").symlink_to(victim)
    matrix().save(path)
    assert victim.read_text() == "precious"
    assert not path.is_symlink()
    assert path.stat().st_mode == victim.stat().st_mode


def test_files_that_are_something_else(tmp_path: Path) -> None:
    path = tmp_path / "map.safetensors"
    with pytest.raises(UserError, match="there is no saved CKA at"):
        CKAMatrix.load(path)
    matrix().save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="is the file complete"):
        CKAMatrix.load(path)
    save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(UserError, match="holds no CKA accumulator"):
        CKAMatrix.load(path)
    save_file({"weight": torch.ones(2)}, path, {KEY: json.dumps({"format": 99})})
    with pytest.raises(UserError, match="has format 99, this version reads 1"):
        CKAMatrix.load(path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda about: "{" + json.dumps(about),
        lambda about: "[1]",
        lambda about: json.dumps({"format": 1}),
        lambda about: json.dumps({**about, "left": ["a"]}),
        lambda about: json.dumps({**about, "left": 5}),
        lambda about: json.dumps({**about, "permutations": 10**12}),
        lambda about: json.dumps({**about, "seed": "x"}),
        lambda about: json.dumps({**about, "counts": {"batches": "3"}}),
        lambda about: json.dumps({**about, "counts": {"batch": 3}}),
    ],
)
def test_a_damaged_description_is_one_sentence(
    damage: Callable[[dict[str, object]], str], tmp_path: Path
) -> None:
    path = tmp_path / "map.safetensors"
    matrix().save(path)
    save_file(load_file(path), path, {KEY: damage(describe(path))})
    with pytest.raises(UserError, match=r"map.safetensors is damaged: .* or accumulate again"):
        CKAMatrix.load(path)
