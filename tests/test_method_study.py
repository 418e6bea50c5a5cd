"""The study of all methods for a GPU runs on a CPU too: a few steps on a few images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.method_study import FULL_STUDIES, METHODS, RCKA, STUDIES, main
from benchmarks.recipe_study import parse_variant

from tests.helpers.commands import network, part, write_cifar10, write_recipe

SMALL = [
    "train.epochs=1",
    "train.milestones=[]",
    "train.eval_every=1",
    "train.batch_size=10",
    "num_labels=20",
]


@pytest.mark.slow
def test_the_full_profile_runs_every_method_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = write_cifar10(tmp_path / "data", 2)
    train = {"epochs": 1, "batch_size": 50, "num_threads": 1}
    teacher = write_recipe(
        tmp_path / "teacher.yaml",
        data=part("data.CIFAR10", root=str(data)),
        student=network("models.resnet32", num_classes=10),
        train=train,
        num_labels=None,
    )
    small = [
        *SMALL,
        f"data.root={data}",
        f"teacher.recipe={teacher}",
        "train.num_workers=0",
        "train.num_threads=1",
    ]
    command = ["--profile", "full", "--seeds", "1", "--set", *small]
    main(command)
    main([*command, "--collect", "--out", "result.json"])
    result = json.loads(Path("result.json").read_text())
    assert list(result["summary"]) == list(FULL_STUDIES["resnet"].variants)
    assert all(row["test"]["num_samples"]["mean"] == 20 for row in result["summary"].values())
    assert result["runs"]["rcka"]["0"]["parameters"]["student"] > 1e6
    assert "difference" in result["summary"]["kd"]
    (teacher_metrics,) = result["teachers"].values()
    assert teacher_metrics["test"]["num_samples"] == 20
    assert (
        result["summary"]["kd"]["validation"]["top1"]["mean"]
        == result["runs"]["kd"]["0"]["validation"]["top1"]
    )


def test_an_unknown_study_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fashion-9"])
    assert "no study ['fashion-9'] of the profile quick" in capsys.readouterr().err


def test_all_studies_compare_recipes_that_exist() -> None:
    different = {}
    for study in [*STUDIES.values(), *FULL_STUDIES.values()]:
        assert next(iter(study.variants)) == "baseline"
        assert study.recipe("baseline", seed=3).config.seed == 3
        for name, (recipe, overrides) in study.variants.items():
            different[(study.folder, recipe, *overrides)] = study, name
    for study, name in different.values():
        assert study.recipe(name, seed=3).config.seed == 3


def test_the_lists_of_methods_come_from_the_folders_of_recipes() -> None:
    logits_or_any_feature = {"baseline", "kd", "dkd", "dist", "ckd", "rcka", "fitnet", "ofa", "srd"}
    maps_in_both = {"afd_kd", "rtk", "residual"}
    assert set(METHODS) >= logits_or_any_feature | maps_in_both
    assert set(FULL_STUDIES["resnet"].variants) >= logits_or_any_feature | maps_in_both
    assert set(STUDIES["vit-student-1000"].variants) >= logits_or_any_feature
    assert not {"teacher", "afd"} & set(METHODS)
    assert "rcka_kd" in METHODS
    assert set(RCKA) == {"baseline", "kd", "fitnet", "rcka", "lcka", "fcka", "rcka_kd"}


def test_a_variant_is_a_recipe_with_overrides() -> None:
    text = "rcka, weak=rcka,--method.intra_weight=1,--method.inter_weight=null"
    overrides = ["--method.intra_weight=1", "--method.inter_weight=null"]
    assert parse_variant(text) == {"rcka, weak": ("rcka", overrides)}
