"""`tutelage cache --ray`: the files of the local command, from workers that may be killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.helpers.commands import TRAIN, network, part, write_recipe
from tutelage.cache import disk
from tutelage.cluster import ray_labeling
from tutelage.cluster.ray_labeling import Labelers

METHOD = part("methods.RCKA", layer_pairs={"stage2": "stage2"})


def files_of(folder: str) -> dict[str, bytes]:
    found = sorted(Path(folder).rglob("*.safetensors")) + sorted(Path(folder).rglob("*.json"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.mark.slow
def test_it_writes_the_files_of_this_machine_though_a_worker_is_killed(
    two_workers: Any, run: Run, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "SHARD_BYTES", 2**14)
    monkeypatch.setattr(ray_labeling, "BATCHES_PER_TASK", 1)
    spec = {**network(width=8), "weights": str(teacher)}
    train = {**TRAIN, "eval_batch_size": 7}
    data = part("data.Digits", augment=True)
    recipe = write_recipe(
        "mine.yaml", method=METHOD, teacher=spec, train=train, data=data, num_labels=None
    )
    options = ["--views", 2, "--dtype", "float16", "--top-k", 5]
    assert run("cache", recipe, "--out", "local", *options).code == 0

    killed: list[str] = []
    result = Labelers._result

    def kill_after_the_first(self: Labelers, number: int, task: Any) -> Any:
        answers = result(self, number, task)
        if not killed:
            killed.append(self._processes[number])
            os.kill(int(killed[0].split()[1]), signal.SIGKILL)
        return answers

    monkeypatch.setattr(Labelers, "_result", kill_after_the_first)
    answer = run("cache", recipe, "--out", "far", *options, "--ray")
    assert answer.code == 0, answer.err
    assert f"{killed[0]} is gone; its work goes on in process " in answer.err
    assert files_of("far") == files_of("local")
    assert len(files_of("local")) > 20

    # What is there is kept; what is missing comes out as the same bytes.
    lost = sorted(Path("far").rglob("layer-*.safetensors"))[1::3]
    for path in lost:
        path.unlink()
    kept = {path: path.stat().st_mtime_ns for path in Path("far").rglob("*.safetensors")}
    again = run("cache", recipe, "--out", "far", *options, "--ray", "--workers", 1)
    assert again.code == 0, again.err
    assert files_of("far") == files_of("local")
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())


def test_what_does_not_fit_a_cluster_is_refused(refuse: Run, teacher: Path) -> None:
    spec = {**network(width=8), "weights": str(teacher)}
    recipe = write_recipe("mine.yaml", method=METHOD, teacher=spec)
    refuse("cache", recipe, "--workers", 2, says=("--workers is for a cluster; add --ray",))
    refuse("cache", recipe, "--ray", "--workers", 0, says=("--workers must be at least 1",))
