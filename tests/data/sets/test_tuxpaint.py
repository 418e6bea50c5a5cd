"""Cut-outs of the installed package tuxpaint-stamps-default; skipped where it is not installed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tutelage import UserError
from tutelage.data import TuxPaint
from tutelage.data.sets import tuxpaint

needs_stamps = pytest.mark.skipif(
    not tuxpaint.STAMPS.is_dir() or not tuxpaint.PHOTOS.is_dir(), reason=f"needs {tuxpaint.ADVICE}"
)


@needs_stamps
def test_composites_hold_objects_and_are_the_same_for_a_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuxpaint, "NUM_IMAGES", {"train": 24, "val": 4, "test": 6})
    data = TuxPaint(str(tmp_path / "one"), size=48, augment=True)
    splits = data.splits()
    assert [len(part) for part in splits.values()] == [24, 4, 6]
    keys = [(0, i) for i in range(6)]
    batch = splits["test"].batch(keys)
    images, masks = batch.inputs, batch.labels
    assert (images.shape, masks.unique().tolist()) == ((6, 3, 48, 48), [0, 1])
    assert 0.05 < (masks == 1).float().mean() < 0.6
    again = TuxPaint(str(tmp_path / "two"), size=48).splits()["test"].batch(keys)
    assert (again.inputs == images).all()
    assert (again.labels == masks).all()


@needs_stamps
def test_nothing_alike_is_in_two_parts() -> None:
    groups = tuxpaint._scenes()
    parts = tuxpaint._split_groups(groups, random.Random(0))
    where = {path: name for name, paths in parts.items() for path in paths}
    assert len(where) == sum(map(len, parts.values())) == sum(map(len, groups))
    assert all(len({where[path] for path in group}) == 1 for group in groups)
    assert min(map(len, parts.values())) >= 2


def test_a_missing_package_is_told_with_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuxpaint, "PHOTOS", tmp_path / "nowhere")
    monkeypatch.setattr(tuxpaint.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"no photographs; apt-get install tuxpaint-stamps-default opencv-doc"
    ):
        tuxpaint.prepare_tuxpaint(tmp_path / "out")
    monkeypatch.setattr(tuxpaint, "_scenes", lambda: [])
    monkeypatch.setattr(tuxpaint, "STAMPS", tmp_path / "nowhere")
    with pytest.raises(UserError, match="no stamps; apt-get install"):
        tuxpaint.prepare_tuxpaint(tmp_path / "out")
    with pytest.raises(UserError, match="at least 32"):
        tuxpaint.prepare_tuxpaint(tmp_path / "out", size=8)
    assert not (tmp_path / "out").exists()
