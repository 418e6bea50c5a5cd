"""Slices of the brain in the installed package nilearn; skipped where it is not installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from tutelage import UserError
from tutelage.cli import main
from tutelage.data import MNI152
from tutelage.data.sets import _prepare, mni152

missing = [name for name in ("nilearn", "nibabel") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(
    bool(missing), reason=f"{missing} are not installed: {mni152.ADVICE}"
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mni152")
    MNI152(str(root)).raw_splits()
    return root


def test_three_blocks_of_slices_with_gaps_between_them(made: Path) -> None:
    train, val, test = MNI152(str(made)).raw_splits()
    assert val is not None
    assert test is not None
    levels = [
        sorted(int(pair[0].stem.split("_")[1]) for pair in part.pairs)
        for part in (train, val, test)
    ]
    assert [len(part) for part in levels] == [70, 17, 34]
    assert levels[1][0] - levels[0][-1] == levels[2][0] - levels[1][-1] == 7


def test_images_are_noisy_and_white_matter_is_brighter_than_gray(made: Path) -> None:
    splits = MNI152(str(made)).splits()
    batch = splits["train"].batch([(0, i) for i in range(0, 70, 7)])
    images, masks = batch.inputs, batch.labels
    assert (images.shape[1:], masks.unique().tolist()) == ((3, 96, 112), [0, 1, 2])
    gray, white = (images[:, 0][masks == label] for label in (1, 2))
    assert white.mean() - gray.mean() > 0.08
    assert 0.06 < white.std() < 0.2
    mean, std = images.mean(), images.std()
    assert abs(mean - MNI152.mean[0]) < 0.03
    assert abs(std - MNI152.std[0]) < 0.03


def test_another_seed_draws_other_noise_in_another_folder(made: Path) -> None:
    assert MNI152(str(made), noise_seed=1).folder != MNI152(str(made)).folder
    assert MNI152(str(made), augment=True).splits()["train"][0, 0].labels.shape == (1, 96, 112)


def test_it_is_made_once_by_a_command(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = next(made.iterdir())
    before = there.stat().st_mtime_ns
    MNI152(str(made)).raw_splits()
    assert there.stat().st_mtime_ns == before
    assert main(["prepare", "mni152", "--out", str(there)]) != 0
    assert "is there already" in capsys.readouterr().err


def test_a_missing_package_is_told_with_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_prepare.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"nilearn is not installed.*pip install --no-deps nilearn"):
        mni152.prepare_mni152(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_broken_volume_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.nii.gz"
    path.write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"x\.nii\.gz cannot be read"):
        mni152._volume(path)


def test_small_slices_keep_their_mean() -> None:
    plane = torch.rand(233, 189)
    assert abs(float(mni152._small(plane).mean() - plane.mean())) < 0.01
