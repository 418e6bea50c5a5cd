from __future__ import annotations

import torch
from torch.utils.data import DataLoader

from tutelage.data import ArraySet, Digits, ImageSet, collate
from tutelage.data.transforms import PaddedCrop


def augmented(seed: int = 0) -> ArraySet:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (40, 1, 8, 8), dtype=torch.uint8, generator=generator)
    return ArraySet(images, torch.arange(40) % 4, augment=PaddedCrop(8, 2, flip=True), seed=seed)


def test_a_batch_has_pixels_labels_ids_and_views() -> None:
    part = Digits().splits()["test"]
    single = part[3]
    assert sorted(single) == ["ids", "inputs", "labels", "views"]
    image = single.inputs[0]
    assert (image.dtype, image.shape) == (torch.float32, (1, 8, 8))
    assert 0 <= image.min() <= image.max() <= 1
    assert (single.labels.dtype, single.ids.dtype, single.views.dtype) == (torch.int64,) * 3
    batch = part.batch([(0, 3), (7, 4)])
    assert torch.equal(batch.inputs[0], image)
    assert (batch.labels[0], batch.ids[0]) == (single.labels[0], single.ids[0])
    assert batch.views.tolist() == [0, 0]


def test_augmentation_depends_on_seed_epoch_and_sample_alone() -> None:
    data = augmented()
    first = data[3, 5].inputs
    torch.rand(7)
    data[1, 2]
    assert torch.equal(data[3, 5].inputs, first)
    assert any(not torch.equal(data[epoch, 5].inputs, first) for epoch in (4, 5, 6))
    assert any(not torch.equal(augmented(seed=s)[3, 5].inputs, first) for s in (1, 2, 3))
    subset = data.subset_with(torch.tensor([5]), data.augment, 0)
    assert torch.equal(subset[3, 0].inputs, first)


def test_augmentation_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    augmented()[1, 1]
    assert torch.equal(torch.get_rng_state(), before)


def test_a_view_names_seed_and_epoch() -> None:
    keys = [(epoch, position) for epoch in range(3) for position in (5, 6)]
    views = augmented(seed=4).batch(keys).views
    assert views.dtype == torch.int64
    assert (views != 0).all()
    assert torch.equal(views, augmented(seed=4).batch(keys).views)
    assert torch.equal(views[0::2], views[1::2])  # of an epoch, whatever the sample
    everything = [
        augmented(seed).batch([(e, 0)]).views.item() for seed in range(5) for e in range(9)
    ]
    assert len(set(everything)) == 45


def test_a_subset_keeps_augmentation_and_seed() -> None:
    data = augmented(seed=2)
    for positions in ([7, 3], torch.tensor([7, 3])):
        subset = data.subset(positions)
        assert isinstance(subset, ImageSet)
        assert subset.seed == 2
        expected = data.batch([(4, 7), (4, 3)])
        batch = subset.batch([(4, 0), (4, 1)])
        assert all(torch.equal(batch[name], expected[name]) for name in expected)


def test_the_number_of_workers_changes_nothing() -> None:
    batches = [[(2, i) for i in range(start, start + 8)] for start in range(0, 40, 8)]
    runs = [
        torch.cat(
            [
                batch.inputs
                for batch in DataLoader(
                    augmented(), batch_sampler=batches, collate_fn=collate, num_workers=n
                )
            ]
        )
        for n in (0, 2)
    ]
    assert torch.equal(*runs)


def test_the_fast_path_equals_item_by_item() -> None:
    data = Digits().splits()["train"]
    fast = data.batch([(0, 1), (0, 5), (0, 9)])
    first, *others = (data[i] for i in (1, 5, 9))
    slow = first.cat(others)
    slower = ImageSet.batch(data, [(0, 1), (0, 5), (0, 9)])
    assert all(torch.equal(fast[name], slow[name]) for name in fast)
    assert all(torch.equal(fast[name], slower[name]) for name in fast)
