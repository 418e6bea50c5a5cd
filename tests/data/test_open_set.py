"""Open-set data: known classes, pools of unlabeled images beside them, outliers to be judged by."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch import Tensor

from tests.helpers.commands import write_image_folder
from tutelage import KD, SRD, Baseline, CombinedMethod, UserError
from tutelage.data import (
    ArraySet,
    Digits,
    FashionMNIST,
    ImageFolder,
    OpenSet,
    Samples,
    Stream,
)
from tutelage.data.concat import concat
from tutelage.engine import fit
from tutelage.engine.loader import EpochSampler, evaluation_loader, training_loader
from tutelage.engine.run_folder import RunFolder
from tutelage.methods import UnlabeledData
from tutelage.models import small_cnn
from tutelage.recipes import Recipe, StudentConfig, TeacherConfig, TrainConfig
from tutelage.tasks import OpenSetClassification

KNOWN = ["0", "1", "2", "3", "4", "5"]
CLOTHES = ["t-shirt", "trouser", "pullover", "dress", "coat", "shirt"]
FASHION = Path("/usr/share/datasets/fashion-mnist")
installed = pytest.mark.skipif(
    not FASHION.is_dir(), reason="Debian's dataset-fashion-mnist is not installed"
)


def pixels(images: Samples) -> set[bytes]:
    return {images[i].inputs[0].numpy().tobytes() for i in range(len(images))}


def test_known_classes_are_labeled_and_the_others_are_pools() -> None:
    data = OpenSet(Digits(), KNOWN)
    whole, parts = Digits().splits(), data.splits(num_labels=60, seed=3)
    assert data.classes == KNOWN
    assert data.mean == Digits().mean
    assert parts["train"].labels.bincount().tolist() == [10] * 6
    pools = parts["train"].pools
    assert set(pools) == {"near", "same"}
    assert len(pools["same"]) + 60 == int((whole["train"].labels < 6).sum())
    assert len(pools["near"]) == int((whole["train"].labels >= 6).sum())
    assert set(pools["near"].labels.tolist()) == {6, 7, 8, 9}
    assert not pixels(parts["train"]) & pixels(pools["same"])
    test = parts["test"]
    assert len(test) == len(whole["test"])
    assert int((test.labels == -101).sum()) == int((whole["test"].labels >= 6).sum())
    assert int((test.labels >= 0).sum()) == int((whole["test"].labels < 6).sum())


def test_what_is_tested_on_is_never_trained_on() -> None:
    parts = OpenSet(Digits(), KNOWN).splits(num_labels=60)
    train = parts["train"]
    joined = train.with_streams({"same": 0.5, "near": 1.0})
    seen = pixels(joined)
    assert len(joined) == 60 + len(train.pools["same"]) + len(train.pools["near"])
    for part in (parts["validation"], parts["test"]):
        assert not seen & pixels(part)


def test_unlabeled_images_join_with_their_own_share_and_passes() -> None:
    train = OpenSet(Digits(), KNOWN).splits(num_labels=96)["train"]
    joined = train.with_streams({"near": 0.25, "same": 0.5})
    near, same = (len(train.pools[name]) for name in ("near", "same"))
    assert joined.streams == (Stream("near", 96, near, 0.25), Stream("same", 96 + near, same, 0.5))
    sampler = EpochSampler.over(joined, batch_size=32, seed=1)
    assert len(sampler) == 3
    loader = training_loader(joined, sampler, num_workers=0)
    seen: list[int] = []
    ids: list[int] = []
    for sampler.epoch in range(2):
        labeled: list[int] = []
        for batch in loader:
            assert len(batch.inputs) == 32 + 8 + 16
            assert (batch.labels[:32] >= 0).all()
            assert (batch.labels[32:] == -100).all()
            labeled += batch.ids[:32].tolist()
            seen += batch.ids[32:40].tolist()
            ids += batch.ids.tolist()
        assert sorted(labeled) == sorted(train.ids.tolist())
    assert len(set(seen)) == len(seen) == 48  # no image comes again before all came
    assert set(seen) <= set(joined.ids[96 : 96 + near].tolist())


def test_a_joined_set_keeps_images_labels_and_ids_together() -> None:
    train = OpenSet(Digits(), KNOWN).splits(num_labels=60)["train"]
    joined = train.with_streams({"near": 1.0})
    assert len(set(joined.ids.tolist())) == len(joined)
    assert torch.equal(joined.ids[:60], train.ids)
    positions = [70, 3, 69, 0, len(joined) - 1]
    batch = joined.batch([(2, p) for p in positions])
    images = batch.inputs
    for i, position in enumerate(positions):
        single = joined[2, position]
        assert torch.equal(single.inputs[0], images[i])
        assert (single.labels[0], single.ids[0]) == (batch.labels[i], batch.ids[i])
    assert torch.equal(images[1], train[3].inputs[0])
    assert torch.equal(images[0], train.pools["near"][10].inputs[0])
    assert torch.equal(joined.image(70), train.pools["near"].image(10))
    for cut in (joined.subset_with(torch.tensor([70, 3]), None, 0), joined.subset([70, 3])):
        assert torch.equal(torch.cat([cut[0].inputs, cut[1].inputs]), images[:2])
        assert torch.equal(cut.ids, batch.ids[:2])


def test_a_streams_order_depends_on_seed_and_batch_alone() -> None:
    streams = (Stream("near", 100, 30, 0.5),)

    def keys(
        epoch: int, start: int = 0, rank: int = 0, world: int = 1
    ) -> list[list[tuple[int, int]]]:
        sampler = EpochSampler(100, 16, seed=5, rank=rank, world=world, streams=streams)
        sampler.epoch, sampler.start = epoch, start
        return list(sampler)

    assert keys(3) == keys(3)
    assert keys(3, start=2) == keys(3)[2:]
    plain = EpochSampler(100, 16, seed=5)
    plain.epoch = 3
    assert [batch[:16] for batch in keys(3)] == list(
        plain
    )  # labeled images come as without streams
    halves = [keys(3, rank=rank, world=2) for rank in range(2)]
    assert [sorted(a + b) for a, b in zip(*halves, strict=True)] == [
        sorted(batch) for batch in keys(3)
    ]
    assert all(sum(i >= 100 for _, i in batch) == 4 for batch in halves[0])
    drawn = [key for epoch in range(5) for batch in keys(epoch) for key in batch if key[1] >= 100]
    for number in range(8):  # 240 of 30: eight passes, each over every image
        assert sorted(drawn[30 * number : 30 * (number + 1)]) == [
            (number, 100 + i) for i in range(30)
        ]


def test_unlabeled_images_are_augmented_by_seed_and_pass() -> None:
    train = OpenSet(Digits(augment=True), KNOWN).splits(num_labels=60, seed=2)["train"]
    joined = train.with_streams({"near": 1.0})
    assert torch.equal(joined[1, 75].inputs, joined[1, 75].inputs)
    assert any(not torch.equal(joined[1, i].inputs, joined[2, i].inputs) for i in range(60, 70))
    subset = joined.subset([75, 3])
    assert torch.equal(subset[1, 0].inputs, joined[1, 75].inputs)
    assert torch.equal(subset[1, 1].inputs, joined[1, 3].inputs)


def test_every_set_gives_the_views_of_its_own_images() -> None:
    plain = Digits().splits()["train"]
    augmented = Digits(augment=True).splits(seed=2)["train"]
    joined = concat([plain, augmented], [None, None])
    last = len(plain)
    views = joined.batch([(1, last), (1, 0), (3, last + 1)]).views
    assert views[1] == 0
    assert torch.equal(views[[0, 2]], augmented.batch([(1, 0), (3, 1)]).views)
    unlabeled = OpenSet(Digits(augment=True), KNOWN).splits(num_labels=60, seed=2)["train"]
    streams = unlabeled.with_streams({"near": 1.0})
    keys = [(5, 0), (0, 60), (1, 61), (0, 62)]  # the epoch of a stream is its pass
    assert len(set(streams.batch(keys).views.tolist())) == 3


def test_joined_sets_load_bytes_and_augment_on_the_device() -> None:
    augmented = Digits(augment=True).splits(seed=2)["train"]
    joined = concat([augmented, Digits().splits()["test"]], [None, -100])
    keys = [(1, len(augmented) + 2), (1, 0), (3, 1), (1, len(augmented))]
    loaded = joined.load(keys)
    assert [part["inputs"].dtype for part in loaded.inputs] == [torch.uint8] * 2
    assert joined.finish(loaded, "meta").inputs.device.type == "meta"
    batch, finished = joined.batch(keys), joined.finish(loaded, "cpu")
    assert sorted(batch) == ["ids", "inputs", "labels", "views"]
    assert all(torch.equal(batch[name], finished[name]) for name in batch)
    assert batch.labels.tolist() == [-100, *augmented.labels[:2].tolist(), -100]
    assert torch.equal(batch.inputs[[1, 2]], augmented.batch([(1, 0), (3, 1)]).inputs)


def test_far_images_take_size_and_channels_of_the_labeled_ones(tmp_path: Path) -> None:
    folder = ImageFolder(str(write_image_folder(tmp_path)), size=12)
    data = OpenSet(Digits(), KNOWN, far=folder)
    parts = data.splits(num_labels=60)
    train, test = parts["train"], parts["test"]
    assert train.pools["far"][0].inputs.shape == (1, 1, 8, 8)
    assert len(train.pools["far"]) == 30
    assert int((test.labels == -102).sum()) == 30
    everything = test.batch([(0, i) for i in range(len(test))])
    assert everything.inputs.shape == (len(test), 1, 8, 8)
    assert train.with_streams({"far": 0.2})[65].inputs.dtype == torch.float32


def test_all_classes_may_be_known() -> None:
    parts = OpenSet(Digits()).splits()
    assert not parts["train"].pools
    assert not (parts["test"].labels < 0).any()
    assert set(OpenSet(Digits()).splits(num_labels=60)["train"].pools) == {"same"}


def test_a_part_may_have_no_known_class(tmp_path: Path) -> None:
    for part, names in (("train", "abc"), ("val", "bc"), ("test", "c")):
        for name in names:
            for number in range(4):
                color = 40 * number, 60 * ord(name) % 250, len(part)
                path = tmp_path / part / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (9, 9), color).save(path)
    data = ImageFolder(str(tmp_path), size=8, augment=False)
    parts = OpenSet(data, ["a", "b"], far=Digits()).splits()
    labels = parts["test"].labels
    assert labels[:4].tolist() == [-101] * 4
    assert labels[4:].unique().tolist() == [-102]
    assert parts["test"].ids.unique().numel() == len(labels)
    assert parts["test"].batch([(0, 0), (0, 9)]).inputs.shape == (2, 3, 8, 8)


def test_what_does_not_fit_is_named() -> None:
    train = OpenSet(Digits(), KNOWN).splits()["train"]
    with pytest.raises(
        UserError,
        match="no unlabeled images 'same'; all images have labels, set num_labels to fewer",
    ):
        train.with_streams({"same": 1.0})
    with pytest.raises(UserError, match=r"no unlabeled images 'nearer'; did you mean \['near'\]"):
        train.with_streams({"nearer": 1.0})
    with pytest.raises(
        UserError, match=r"the share of unlabeled images 'near' must be positive, got 0\.0"
    ):
        train.with_streams({"near": 0.0})
    with pytest.raises(
        UserError, match=r"the share of unlabeled images 'near' must be positive, got inf"
    ):
        train.with_streams({"near": float("inf")})
    with pytest.raises(
        UserError, match=r"knows no unlabeled samples \['near'\]; let it be a tutelage.data.OpenSet"
    ):
        Digits().splits()["train"].with_streams({"near": 1.0})
    with pytest.raises(UserError, match=r"data\.known: there is no class '10'"):
        OpenSet(Digits(), ["1", "10"]).splits()
    with pytest.raises(UserError, match="names 1 classes, at least 2 are needed"):
        OpenSet(Digits(), ["1", "1"]).splits()
    few = ArraySet(
        torch.zeros(100, 1, 2, 2, dtype=torch.uint8), torch.zeros(100, dtype=torch.int64)
    )
    joined = concat([few, few.subset_with(torch.arange(40), None, 0)], [None, -100])
    joined.streams = (Stream("near", 100, 40, 1.0),)
    with pytest.raises(
        UserError, match="a batch of 64 takes 64 unlabeled samples from 'near', which has 40"
    ):
        EpochSampler.over(joined, 64, seed=0)
    with pytest.raises(UserError, match=r"a batch of 10 takes 5 .* for 2 process"):
        EpochSampler(100, 10, 0, world=2, streams=(Stream("near", 100, 40, 0.5),))


def recipe(
    method: object, teacher: Path | None, width: int = 6, epochs: int = 3, seed: int = 0
) -> Recipe:
    torch.manual_seed(seed)
    return Recipe(
        data=OpenSet(Digits(), KNOWN),
        task=OpenSetClassification(num_classes=6),
        student=StudentConfig(small_cnn(6, width=width)),
        method=method,
        teacher=None
        if teacher is None
        else TeacherConfig(small_cnn(6, width=12), weights=str(teacher)),
        train=TrainConfig(
            optimizer=partial(torch.optim.AdamW, lr=1e-2),
            epochs=epochs,
            batch_size=20,
            num_threads=1,
            eval_every=3,
        ),
        num_labels=None if teacher is None else 60,
        seed=seed,
    )


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("open") / "teacher"
    metrics = fit(recipe(Baseline(), None, width=12, epochs=6), out)
    assert metrics is not None
    assert metrics["test"]["top1"] > 0.9
    assert metrics["test"]["auroc_near"] > 0.6
    return out


SHARES = {"near": 0.5, "same": 0.5}


@pytest.mark.parametrize(
    ("method", "terms"),
    [
        (lambda: SRD(unlabeled=SHARES), {"task", "srd", "srd/feature"}),
        (lambda: CombinedMethod([KD(), UnlabeledData(SHARES)]), {"task", "kd"}),
        (lambda: UnlabeledData({"near": 0.5}), {"task"}),
        (SRD, {"task", "srd", "srd/feature"}),
    ],
    ids=["srd", "kd", "baseline", "srd without unlabeled images"],
)
def test_a_run_with_unlabeled_images_reports_both_scores(
    method: object, terms: set[str], teacher: Path, tmp_path: Path
) -> None:
    metrics = fit(recipe(method(), teacher), tmp_path / "run")
    assert metrics is not None
    test = metrics["test"]
    assert {"top1", "auroc_near", "fpr95_near", "teacher_auroc_near", "teacher_fpr95_near"} <= set(
        test
    )
    assert not any("far" in name for name in test)
    assert all(0 <= test[name] <= 1 for name in test if "auroc" in name or "fpr95" in name)
    assert test["num_samples"] == int((OpenSet(Digits(), KNOWN).splits()["test"].labels >= 0).sum())
    assert metrics["steps"] == 9
    assert set(RunFolder(tmp_path / "run").records()[-1]["terms"]) == terms


def test_a_cached_teacher_has_outputs_for_unlabeled_images_too(
    teacher: Path, tmp_path: Path
) -> None:
    live, cached = (recipe(SRD(unlabeled=SHARES), teacher) for _ in range(2))
    cached.teacher.cache = "memory"
    figures = [fit(each, tmp_path / str(i)) for i, each in enumerate((live, cached))]
    assert figures[0]["test"]["top1"] == pytest.approx(figures[1]["test"]["top1"], abs=0.01)


@installed
def test_fashion_mnist_is_split_by_classes() -> None:
    data = OpenSet(FashionMNIST(), CLOTHES, far=Digits())
    parts = data.splits(num_labels=600, seed=0)
    assert data.classes == CLOTHES
    assert parts["train"].labels.bincount().tolist() == [100] * 6
    pools = {name: len(pool) for name, pool in parts["train"].pools.items()}
    assert pools == {
        "near": 4 * 5400,
        "same": 6 * 5400 - 600,
        "far": len(Digits().splits()["train"]),
    }
    assert int((parts["test"].labels == -101).sum()) == 4000
    assert int((parts["test"].labels >= 0).sum()) == 6000
    assert int((parts["test"].labels == -102).sum()) == len(Digits().splits()["test"])
    joined = parts["train"].with_streams({"near": 0.5, "far": 0.5})
    sampler = EpochSampler.over(joined, 64, seed=0)
    batch = next(iter(training_loader(joined, sampler, num_workers=0)))
    assert batch.inputs.shape == (128, 1, 28, 28)
    assert int((batch.labels == -100).sum()) == 64
    loader = evaluation_loader(parts["test"], 256, 0)
    shapes = {batch.inputs.shape[1:] for batch in loader}
    assert shapes == {(1, 28, 28)}


@installed
def test_the_figures_on_fashion_mnist_are_those_of_the_right_images() -> None:
    """Against scikit-learn, on scores that are computed from the raw files without `OpenSet`."""
    known, near = [0, 1, 2, 3, 4, 6], [5, 7, 8, 9]
    torch.manual_seed(0)
    network, task = small_cnn(6, width=4).eval(), OpenSetClassification(num_classes=6)
    metrics = task.metrics()
    with torch.no_grad():
        test = OpenSet(FashionMNIST(), CLOTHES).splits()["test"]
        for batch in evaluation_loader(test, 500, 0):
            out: Tensor = network(batch.inputs)
            metrics.update(out, batch, -out)
        figures = metrics.compute()
        raw = FashionMNIST().splits()["test"]
        probabilities = (
            torch.cat([network(batch.inputs) for batch in evaluation_loader(raw, 500, 0)])
            .double()
            .softmax(1)
        )
    assert sorted({*known, *near}) == list(range(10))
    outlier = torch.isin(raw.labels, torch.tensor(near)).numpy()
    expected = roc_auc_score(outlier, 1 - probabilities.amax(1).numpy())
    assert figures["auroc_near"] == pytest.approx(expected, abs=1e-5)  # float32 here, float64 there
    assert figures["teacher_auroc_near"] != figures["auroc_near"]
    right = probabilities.argmax(1) == torch.tensor(
        [known.index(n) if n in known else -1 for n in raw.labels.tolist()]
    )
    assert figures["top1"] == pytest.approx(right.sum().item() / 6000, abs=1e-6)
    assert figures["num_samples"] == 6000
