"""Samples of interactions for training, and users with held-out items for evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from tutelage.core.batch import Batch
from tutelage.data.samples import Key, Samples
from tutelage.errors import UserError
from tutelage.models.recommendation import Interactions

Fields = Callable[[int, Tensor], Mapping[str, Tensor]]

PRIME = 1_000_003  # keeps (seed, epoch) apart
MAX_ROUNDS = 20  # of redrawing negatives, each cheaper than the draw that never repeats


class InteractionSamples(Samples):
    """Training samples of a recommender: a user, an item of the user, and one that is not.

    A batch has the fields `inputs`, the users (N,) int64, `positives` and `negatives` (N,) int64,
    and `ids` (N,) int64, the number of the interaction. Negatives are drawn uniformly from the
    items that the user does not have in training, anew in every epoch, as a pure function of seed
    and epoch. They may be items that are held out: in training nothing is known of those.

    Args:
        interactions: of the training part.
        seed: of the negatives.
        positions: numbers of the interactions in this set; None takes all.
        fields: give further fields of a batch for its epoch and users.

    Raises:
        UserError: If a user has all items, so that there is no negative.
    """

    def __init__(
        self,
        interactions: Interactions,
        seed: int = 0,
        positions: Tensor | None = None,
        fields: Sequence[Fields] = (),
    ) -> None:
        full = (interactions.user_counts == interactions.num_items).nonzero().flatten()
        if len(full):
            raise UserError(
                f"the user {interactions.user_ids[int(full[0])]!r} has all "
                f"{interactions.num_items} items in training, so that there is no negative to "
                "learn from; leave the user out"
            )
        self.interactions = interactions
        self.seed = seed
        self.positions = torch.arange(len(interactions)) if positions is None else positions
        self.fields = tuple(fields)
        self._epoch: int | None = None
        self._negatives = interactions.items

    def __len__(self) -> int:
        return len(self.positions)

    def batch(self, keys: Sequence[Key]) -> Batch:
        """Return the samples with these keys as one batch."""
        epochs = {epoch for epoch, _ in keys}
        parts = []
        places = []
        for epoch in sorted(epochs):
            chosen = [place for place, key in enumerate(keys) if key[0] == epoch]
            parts.append(self._of_epoch(epoch, [keys[place][1] for place in chosen]))
            places += chosen
        if len(parts) == 1:
            return parts[0]
        joined = parts[0].cat(parts[1:])
        order = torch.argsort(torch.tensor(places))
        return Batch({name: values[order] for name, values in joined.items()})

    def subset(self, positions: Sequence[int] | Tensor) -> InteractionSamples:
        """Return the samples at these positions; their users have the same items as here."""
        chosen = self.positions[torch.as_tensor(positions, dtype=torch.int64)]
        return InteractionSamples(self.interactions, self.seed, chosen, self.fields)

    def with_fields(self, fields: Fields) -> InteractionSamples:
        """Return the samples with further fields in their batches, see `HasInteractions`."""
        return InteractionSamples(
            self.interactions, self.seed, self.positions, (*self.fields, fields)
        )

    def negatives(self, epoch: int) -> Tensor:
        """Return the negative of every interaction in an epoch, (N,) int64."""
        if self._epoch != epoch:
            self._negatives = draw_negatives(self.interactions, self.seed, epoch)
            self._epoch = epoch
        return self._negatives

    def _of_epoch(self, epoch: int, positions: Sequence[int]) -> Batch:
        ids = self.positions[torch.tensor(positions, dtype=torch.int64)]
        users = self.interactions.users[ids]
        fields = {
            "inputs": users,
            "positives": self.interactions.items[ids],
            "negatives": self.negatives(epoch)[ids],
            "ids": ids,
        }
        for more in self.fields:
            fields.update(more(epoch, users))
        return Batch(fields)


def draw_negatives(interactions: Interactions, seed: int, epoch: int) -> Tensor:
    """Draw an item that the user does not have for every interaction, uniformly.

    Args:
        interactions: of the training part; no user has all items.
        seed: of the run.
        epoch: of the training data.

    Returns:
        (N,) int64.
    """
    generator = torch.Generator().manual_seed((seed * PRIME + epoch) % 2**63)
    users = interactions.users
    items = torch.randint(interactions.num_items, (len(users),), generator=generator)
    wrong = interactions.contains(users, items).nonzero().flatten()
    for _ in range(MAX_ROUNDS):
        if not len(wrong):
            return items
        drawn = torch.randint(interactions.num_items, (len(wrong),), generator=generator)
        items[wrong] = drawn
        wrong = wrong[interactions.contains(users[wrong], drawn)]
    items[wrong] = interactions.draw_others(users[wrong], generator)
    return items


class HeldOutUsers(Samples):
    """Users whose held-out items are to be found among all items that they do not have in training.

    A batch has the fields `inputs`, the users (N,) int64, and `ids`, the same.

    Args:
        users: (N,) int64.
        interactions: of the training part, which no ranking contains.
        held_out: the items of all users that are to be found.
    """

    def __init__(self, users: Tensor, interactions: Interactions, held_out: Interactions) -> None:
        self.users = users
        self.interactions = interactions
        self.held_out = held_out

    def __len__(self) -> int:
        return len(self.users)

    def batch(self, keys: Sequence[Key]) -> Batch:
        """Return the users with these keys as one batch."""
        users = self.users[torch.tensor([position for _, position in keys], dtype=torch.int64)]
        return Batch({"inputs": users, "ids": users})

    def subset(self, positions: Sequence[int] | Tensor) -> HeldOutUsers:
        """Return the users at these positions."""
        chosen = self.users[torch.as_tensor(positions, dtype=torch.int64)]
        return HeldOutUsers(chosen, self.interactions, self.held_out)
