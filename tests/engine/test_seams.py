"""The engine assumes no images, no labels and no single teacher: other tasks run through `fit`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.helpers.runs import make_net, make_recipe
from tutelage import (
    KD,
    RCKA,
    Baseline,
    Batch,
    CombinedMethod,
    Evaluation,
    FitNet,
    Metrics,
    Task,
    UserError,
)
from tutelage.data import Data, Samples
from tutelage.engine import Recipe, StudentConfig, TeacherConfig, TrainConfig, fit, plan

SGD = partial(torch.optim.SGD, lr=0.5)


# Texts: inputs by name, no labels, a teacher whose features are cached


class Texts(Samples):
    """Sequences in which every token follows from the one before it."""

    def __init__(self, starts: Sequence[int], first_id: int) -> None:
        self.starts = list(starts)
        self.first_id = first_id

    def __len__(self) -> int:
        return len(self.starts)

    def batch(self, keys: Sequence[tuple[int, int]]) -> Batch:
        positions = torch.tensor([position for _, position in keys])
        tokens = [torch.tensor([self.starts[position] for position in positions])]
        for _ in range(5):
            tokens.append((3 * tokens[-1] + 1) % 7)
        input_ids = torch.stack(tokens, 1)
        inputs = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}
        return Batch({"inputs": inputs, "ids": positions + self.first_id})

    def subset(self, positions: Any) -> Texts:
        return Texts([self.starts[int(position)] for position in positions], self.first_id)


class TextData(Data):
    """Three parts of texts."""

    def splits(self, num_labels: int | None = None, seed: int = 0) -> Mapping[str, Samples]:
        starts = [start % 7 for start in range(64)]
        return {
            "train": Texts(starts, 0),
            "validation": Texts(starts[:16], 100),
            "test": Texts(starts[:16], 200),
        }


class LanguageModel(nn.Module):
    """Predicts the next token from an embedding."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, width)
        self.head = nn.Linear(width, 7)
        self.calls = 0

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        self.calls += 1
        hidden = self.embedding(input_ids) * attention_mask.unsqueeze(-1)
        return {"logits": self.head(hidden)}


class TokenAccuracy(Metrics):
    def __init__(self) -> None:
        self.right = 0
        self.total = 0

    def update(self, output: Any, batch: Batch, teacher: Any = None) -> None:
        targets = batch.inputs["input_ids"][:, 1:]
        self.right += int((output["logits"][:, :-1].argmax(-1) == targets).sum())
        self.total += targets.numel()

    def compute(self) -> dict[str, float]:
        return {"accuracy": self.right / self.total}


class NextToken(Task):
    monitor = "accuracy"

    def inputs(self, batch: Batch) -> tuple[Any, ...]:
        return (batch.inputs,)

    def loss(self, output: Any, batch: Batch) -> Tensor:
        logits, targets = output["logits"][:, :-1], batch.inputs["input_ids"][:, 1:]
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def metrics(self) -> Metrics:
        return TokenAccuracy()

    def chance_level(self) -> float:
        return 1 / 7


def text_recipe(student: nn.Module, **settings: Any) -> Recipe:
    method = settings.pop("method", Baseline())
    teacher = settings.pop("teacher", None)
    train = TrainConfig(epochs=3, batch_size=8, optimizer=SGD, num_threads=1)
    return Recipe(TextData(), NextToken(), StudentConfig(student), method, teacher, train=train)


def test_texts_with_a_cached_teacher(tmp_path: Path) -> None:
    torch.manual_seed(0)
    teacher = LanguageModel(12)
    trained = fit(text_recipe(teacher), tmp_path / "teacher")
    assert trained is not None
    assert trained["test"]["accuracy"] == 1.0
    method = FitNet({"embedding": "embedding"})
    config = TeacherConfig(teacher, cache="memory", preflight=False)
    teacher.calls = 0
    metrics = fit(text_recipe(LanguageModel(4), method=method, teacher=config), tmp_path / "run")
    assert metrics is not None
    assert metrics["test"]["accuracy"] > 0.5
    # Each training sample once for the cache, each test sample once for the comparison.
    assert teacher.calls == 64 // 8 + 16 // 8
    assert not (tmp_path / "run/pictures").exists()


# Rankings: evaluated over all items, not over batches with labels


class Pairs(Samples):
    """Pairs of a user and the item that they like."""

    def __init__(self, users: Tensor) -> None:
        self.users = users

    def __len__(self) -> int:
        return len(self.users)

    def batch(self, keys: Sequence[tuple[int, int]]) -> Batch:
        users = self.users[[position for _, position in keys]]
        return Batch({"inputs": users, "items": users % 5, "ids": users})

    def subset(self, positions: Any) -> Pairs:
        return Pairs(self.users[positions])


class RankingData(Data):
    def splits(self, num_labels: int | None = None, seed: int = 0) -> Mapping[str, Samples]:
        users = torch.arange(20)
        return {
            "train": Pairs(users),
            "validation": Pairs(users),
            "test": Pairs(users),
            "items": Pairs(torch.arange(5)),
        }


class Factors(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.users = nn.Embedding(20, width)
        self.items = nn.Embedding(5, width)

    def forward(self, users: Tensor) -> Tensor:
        return self.users(users) @ self.items.weight.T


class Ranking(Task):
    monitor = "recall@1"

    def inputs(self, batch: Batch) -> tuple[Any, ...]:
        return (batch.inputs,)

    def loss(self, output: Any, batch: Batch) -> Tensor:
        return F.cross_entropy(output, batch["items"])

    def metrics(self) -> Metrics:
        raise NotImplementedError

    def chance_level(self) -> float:
        return 1 / 5

    def evaluate(
        self, model: nn.Module, parts: Mapping[str, Any], run: Evaluation
    ) -> dict[str, float]:
        items = torch.cat([batch.ids for batch in run.batches(parts["items"])])
        users = torch.cat([batch.inputs for batch in run.batches(parts[run.part])])
        scores = model.users(users) @ model.items(items).T
        best = items[scores.argmax(1)]
        return {"recall@1": float((best == users % 5).float().mean())}


def test_a_ranking_over_all_items(tmp_path: Path) -> None:
    torch.manual_seed(0)
    train = TrainConfig(
        epochs=30, batch_size=20, optimizer=partial(torch.optim.Adam, lr=0.1), num_threads=1
    )
    recipe = Recipe(RankingData(), Ranking(), StudentConfig(Factors(8)), Baseline(), train=train)
    metrics = fit(recipe, tmp_path / "run")
    assert metrics is not None
    assert metrics["test"] == {"recall@1": 1.0}
    assert metrics["validation"] == {"recall@1": 1.0}


# Several teachers


def test_two_teachers_of_different_widths(teacher_run: Path, tmp_path: Path) -> None:
    other = make_recipe(Baseline(), None, width=8, epochs=3)
    other.num_labels = None
    assert fit(other, tmp_path / "other") is not None
    method = CombinedMethod([KD(), RCKA({"3": "wide/3"}, ramp=None), FitNet({"0": "narrow/0"})])
    recipe = replace(
        make_recipe(method, None),
        teachers={
            "wide": TeacherConfig(make_net(16), weights=str(teacher_run)),
            "narrow": TeacherConfig(make_net(8), weights=str(tmp_path / "other")),
        },
    )
    metrics = fit(recipe, tmp_path / "run")
    assert metrics is not None
    validation = metrics["teacher"]["validation"]
    assert validation["wide/top1"] > 0.9
    assert validation["narrow/top1"] > 0.8
    assert metrics["teacher"]["test"].keys() == validation.keys()
    assert 0 < metrics["test"]["agreement"] <= 1
    sizes = [sum(p.numel() for p in make_net(width).parameters()) for width in (16, 8)]
    assert metrics["parameters"]["teacher"] == sum(sizes)


def test_a_layer_that_does_not_say_whose_it_is_is_refused(
    teacher_run: Path, tmp_path: Path
) -> None:
    config = TeacherConfig(make_net(16), weights=str(teacher_run), preflight=False)
    recipe = replace(make_recipe(FitNet({"0": "0"}), None), teachers={"a": config, "b": config})
    with pytest.raises(UserError, match=r"'0' does not say whose it is; write it as 'a/0'"):
        fit(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# A teacher's recipe, resolved by the engine


def test_a_teacher_recipe_is_trained_once_from_python(tmp_path: Path) -> None:
    (tmp_path / "teacher.yaml").write_text(
        "data: {class_path: tutelage.data.Digits}\n"
        "task: {class_path: tutelage.tasks.Classification, init_args: {num_classes: 10}}\n"
        "student: {model: {class_path: tests.helpers.runs.make_net, init_args: {width: 16}}}\n"
        "method: {class_path: tutelage.methods.Baseline}\n"
        "train: {epochs: 3, num_threads: 1, eval_batch_size: 256}\n"
    )
    teachers = tmp_path / "teachers"

    def run(name: str) -> dict[str, Any]:
        config = TeacherConfig(recipe=str(tmp_path / "teacher.yaml"))
        recipe = replace(make_recipe(KD(), None), teacher=config)
        metrics = fit(recipe, tmp_path / name, teacher_dir=teachers)
        assert metrics is not None
        return metrics

    first = run("first")
    (folder,) = teachers.iterdir()
    weights = (folder / "student.safetensors").stat().st_mtime_ns
    assert "agreement" in first["test"]
    second = run("second")
    assert second["test"] == first["test"]
    assert (folder / "student.safetensors").stat().st_mtime_ns == weights


def test_a_mistake_of_the_student_shows_before_its_teacher_is_trained(tmp_path: Path) -> None:
    config = TeacherConfig(recipe="classification/digits/teacher")
    recipe = replace(make_recipe(FitNet({"9": "stage3"}), None), teacher=config)
    with pytest.raises(UserError, match="a layer of the student: no module '9'"):
        fit(recipe, tmp_path / "run", teacher_dir=tmp_path / "teachers")
    assert not list(tmp_path.iterdir())


def test_a_plan_from_python_takes_an_untrained_teacher(tmp_path: Path) -> None:
    config = TeacherConfig(recipe="classification/digits/teacher")
    recipe = replace(make_recipe(KD(), None), teacher=config)
    found = plan(recipe)
    assert set(found.parameters) == {"student", "method", "teacher"}
    assert [scale.term for scale in found.terms] == ["task", "kd"]


class Chooses(Baseline):
    """Ships the one of two networks that is better on validation data."""

    def build_student(self, student: nn.Module, teacher: Any) -> nn.Module:
        return Two(student)

    def choose(self, student: nn.Module, score: Any) -> dict[str, Any]:
        assert isinstance(student, Two)
        scores = [score(student.untrained), score(student.network)]
        student.chosen = scores.index(max(scores))
        return {"network": student.chosen}

    def deploy(self, student: nn.Module) -> nn.Module:
        assert isinstance(student, Two)
        return [student.untrained, student.network][student.chosen]


class Two(nn.Module):
    """Two networks, of which one is trained."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.untrained = make_net(4)
        self.chosen = 0

    def forward(self, images: Tensor) -> Any:
        return self.network(images) + 0 * self.untrained(images)

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.chosen)

    def set_extra_state(self, state: Tensor) -> None:
        self.chosen = int(state)


@pytest.mark.parametrize("checkpoint", ["last", "best"])
@pytest.mark.parametrize("ema", [None, 0.5])
def test_a_method_may_choose_on_validation_what_is_shipped(
    tmp_path: Path, checkpoint: str, ema: float | None
) -> None:
    recipe = make_recipe(Chooses(), None, epochs=3, checkpoint=checkpoint, ema_decay=ema)
    metrics = fit(recipe, tmp_path / "run")
    assert metrics is not None
    assert metrics["chosen"] == {"network": 1}
    assert metrics["parameters"]["student"] == sum(p.numel() for p in make_net(4).parameters())
