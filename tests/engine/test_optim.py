"""Which parameters decay: all of them, unless the recipe spares some."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import timm.models
import torch

from tests.helpers.runs import make_recipe
from tutelage import OFA, Baseline, Classification, Distiller, FrozenTeacher, UserError
from tutelage.engine import TrainConfig, fit
from tutelage.engine.optim import parameter_groups
from tutelage.engine.run_folder import RunFolder
from tutelage.models import small_cnn


def distiller() -> Distiller:
    student = timm.models.VisionTransformer(32, 8, 3, 10, embed_dim=12, depth=1, num_heads=2)
    made = Distiller(
        student,
        FrozenTeacher(small_cnn(10, 3)),
        OFA({"blocks.0": 4}, prefix_tokens=1),
        Classification(10),
    )
    made.setup((torch.rand(2, 3, 32, 32), torch.tensor([0, 1])))
    return made


def test_everything_decays_by_default() -> None:
    made = distiller()
    (group,) = parameter_groups(made, TrainConfig())
    assert group == {"params": list(made.parameters())}


def test_position_embeddings_and_vectors_can_be_spared_as_a_bare_student_would() -> None:
    """The official wrapper of OFA-KD hides the student's list of such parameters."""
    made = distiller()
    decayed, spared = parameter_groups(
        made,
        TrainConfig(weight_decay_norm_and_bias=False, no_weight_decay=["pos_embed", "cls_token"]),
    )
    assert spared["weight_decay"] == 0.0
    names = {id(parameter): name for name, parameter in made.named_parameters()}
    bare = {names[id(parameter)] for parameter in spared["params"]}
    assert {f"student.{name}" for name in made.student.no_weight_decay()} & set(
        names.values()
    ) <= bare
    assert {"student.pos_embed", "student.cls_token"} <= bare
    assert all(parameter.ndim >= 2 for parameter in decayed["params"])
    assert "method.branches.0.classifier.bias" in bare
    assert len(decayed["params"]) + len(spared["params"]) == len(names)


def test_a_pattern_that_fits_nothing_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"no parameter is named like 'pos_embde'; did you mean \['pos_embed'"
    ):
        parameter_groups(distiller(), TrainConfig(no_weight_decay=["pos_embde"]))
    with pytest.raises(
        UserError, match=r"train\.no_weight_decay: no parameter is named like 'relative_position'"
    ):
        fit(make_recipe(Baseline(), None, no_weight_decay=["relative_position"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_spared_parameter_does_not_shrink(tmp_path: Path) -> None:
    norms = {}
    for name, settings in {
        "all": {},
        "spared": {"weight_decay_norm_and_bias": False, "no_weight_decay": ["7.weight"]},
    }.items():
        recipe = make_recipe(Baseline(), None, epochs=1, **settings)
        recipe.train.optimizer = partial(torch.optim.SGD, lr=0.1, weight_decay=5.0)
        fit(recipe, tmp_path / name)
        assert RunFolder(tmp_path / name).records()
        norms[name] = float(recipe.student.model[7].weight.detach().norm())
    assert norms["spared"] > 2 * norms["all"]
