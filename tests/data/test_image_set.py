from __future__ import annotations

import torch
from torch.utils.data import DataLoader

from tutelage.data import ArraySet, Digits, collate
from tutelage.data.padded_crop import padded_crop


def augmented(seed: int = 0) -> ArraySet:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (40, 1, 8, 8), dtype=torch.uint8, generator=generator)
    return ArraySet(images, torch.arange(40) % 4, augment=padded_crop(8, 2, flip=True), seed=seed)


def test_items_are_pixels_labels_and_ids() -> None:
    part = Digits().splits().test
    image, label, index = part[3]
    assert (image.dtype, image.shape) == (torch.float32, (1, 8, 8))
    assert 0 <= image.min() <= image.max() <= 1
    assert (label.dtype, index.dtype) == (torch.int64, torch.int64)
    images, labels, indices = part.__getitems__([3, (7, 4)])
    assert torch.equal(images[0], image)
    assert (labels[0], indices[0]) == (label, index)


def test_augmentation_depends_on_seed_epoch_and_sample_alone() -> None:
    data = augmented()
    first = data[(3, 5)][0]
    torch.rand(7)
    data[(1, 2)]
    assert torch.equal(data[(3, 5)][0], first)
    assert any(not torch.equal(data[(e, 5)][0], first) for e in (4, 5, 6))
    assert any(not torch.equal(augmented(seed=s)[(3, 5)][0], first) for s in (1, 2, 3))
    subset = data.part(torch.tensor([5]), data.augment, 0)
    assert torch.equal(subset[(3, 0)][0], first)


def test_augmentation_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    augmented()[(1, 1)]
    assert torch.equal(torch.get_rng_state(), before)


def test_the_number_of_workers_changes_nothing() -> None:
    batches = [[(2, i) for i in range(start, start + 8)] for start in range(0, 40, 8)]
    runs = [
        torch.cat([b[0] for b in DataLoader(augmented(), batch_sampler=batches, collate_fn=collate, num_workers=n)])
        for n in (0, 2)
    ]
    assert torch.equal(*runs)


def test_the_fast_path_equals_item_by_item() -> None:
    data = Digits().splits().train
    fast = data.__getitems__([(0, 1), 5, 9])
    slow = [torch.stack(column) for column in zip(*(data[i] for i in (1, 5, 9)), strict=True)]
    assert all(torch.equal(a, b) for a, b in zip(fast, slow, strict=True))
