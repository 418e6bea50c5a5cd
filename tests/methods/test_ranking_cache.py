"""A file with a teacher's rankings that was damaged after it was written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.methods.recommenders import interactions, recommenders
from tutelage.core import FrozenTeacher
from tutelage.data import InteractionSamples
from tutelage.errors import UserError
from tutelage.methods import UnKD


@pytest.mark.parametrize("damaged", ["items", "scores", "lengths"])
def test_rankings_of_items_that_do_not_exist_are_refused(damaged: str, tmp_path: Path) -> None:
    path = tmp_path / "ranks.safetensors"
    _, teacher = recommenders()
    method = UnKD(num_groups=2, cache=str(path))

    def prepare() -> None:
        method.build_data(InteractionSamples(interactions()), FrozenTeacher(teacher))
        method.on_step_start(0.0)

    prepare()
    with safe_open(path, framework="pt") as stream:
        facts = stream.metadata()
    tensors = load_file(path)
    wrong: dict[str, Tensor] = {
        "items": tensors["items"].masked_fill(tensors["items"] >= 0, 5000),
        "scores": tensors["scores"] * torch.nan,
        "lengths": tensors["lengths"] + 1,
    }
    save_file({**tensors, damaged: wrong[damaged]}, path, metadata=facts)
    with pytest.raises(UserError, match=r"ranks\.safetensors is damaged, .*; remove the file"):
        prepare()


def test_a_folder_is_no_cache(tmp_path: Path) -> None:
    _, teacher = recommenders()
    method = UnKD(num_groups=2, cache=str(tmp_path))
    with pytest.raises(UserError, match=r"is a folder; the method's cache is a file"):
        method.build_data(InteractionSamples(interactions()), FrozenTeacher(teacher))


def test_a_teacher_that_ranks_nothing_is_refused() -> None:
    _, teacher = recommenders()
    with torch.no_grad():
        teacher.user_table.zero_()
    with pytest.raises(UserError, match=r"gives all items the same score, .* first for the user"):
        UnKD().build_data(InteractionSamples(interactions()), FrozenTeacher(teacher))
