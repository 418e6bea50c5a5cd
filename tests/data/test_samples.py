"""Samples that are no images: the engine asks for nothing but what `Samples` has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tutelage import UserError
from tutelage.core import Batch
from tutelage.data import Data, Samples, collate
from tutelage.data.samples import Key


class Sentences(Samples):
    """Rows of token numbers, without labels."""

    def __init__(self, tokens: Tensor) -> None:
        self.tokens = tokens

    def __len__(self) -> int:
        return len(self.tokens)

    def batch(self, keys: Sequence[Key]) -> Batch:
        positions = [position for _, position in keys]
        epochs = torch.tensor([epoch for epoch, _ in keys])
        return Batch(
            {
                "inputs": {"tokens": self.tokens[positions]},
                "ids": torch.tensor(positions),
                "epochs": epochs,
            }
        )

    def subset(self, positions: Sequence[int] | Tensor) -> Sentences:
        return Sentences(self.tokens[torch.as_tensor(positions)])


class Corpus(Data):
    """Three parts and a fourth one."""

    def __init__(self, length: int = 4) -> None:
        self.length = length

    def splits(self, num_labels: int | None = None, seed: int = 0) -> Mapping[str, Samples]:
        names = ("train", "validation", "test", "documents")
        return {name: Sentences(torch.arange(12).view(3, self.length)) for name in names}


def test_a_data_loader_gives_batches_of_positions_and_of_keys() -> None:
    train = Corpus().splits()["train"]
    by_position = list(DataLoader(train, batch_size=2, collate_fn=collate))
    assert [type(batch) for batch in by_position] == [Batch, Batch]
    assert torch.equal(by_position[0].inputs["tokens"], torch.arange(8).view(2, 4))
    assert by_position[0]["epochs"].tolist() == [0, 0]
    (by_key,) = DataLoader(train, batch_sampler=[[(5, 2), (6, 0)]], collate_fn=collate)
    assert (by_key.ids.tolist(), by_key["epochs"].tolist()) == ([2, 0], [5, 6])
    assert train[1].ids.tolist() == train[0, 1].ids.tolist() == [1]
    assert train[7, 1]["epochs"].tolist() == [7]


def test_samples_have_no_streams_and_no_pools_by_default() -> None:
    train = Corpus().splits()["train"]
    assert train.streams == ()
    with pytest.raises(UserError, match=r"knows no unlabeled samples \['near'\]; let it be"):
        train.with_streams({"near": 1.0})


def test_data_without_statistics_leaves_the_network_as_it_is() -> None:
    network = nn.Linear(4, 2)
    assert Corpus().normalize(network) is network
    assert not list(network.buffers())
    assert Corpus().input_info(network) == {}
    assert repr(Corpus(3)) == "Corpus(length=3)"
    for mean, std in (([0.5], None), (None, [0.5])):
        with pytest.raises(UserError, match="inputs of Corpus are not normalized; leave mean"):
            Corpus().normalize(network, mean, std)
