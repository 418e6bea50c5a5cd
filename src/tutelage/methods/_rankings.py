"""A teacher's rankings of the items that a user does not have, taken once before training.

Scores come in blocks of users, so that no users × items matrix ever exists; what stays are the
first candidates of every user and group.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tutelage.core.modes import device_of, eval_mode
from tutelage.core.precision import promote
from tutelage.core.taps import call
from tutelage.core.teacher import Teacher
from tutelage.errors import UserError
from tutelage.models.recommendation import HasInteractions, Interactions, score_block

BLOCK_SCORES = 2**23  # scores of one block of users, 32 MiB in float32

Blocks = Generator[tuple[Tensor, Tensor], None, None]


@dataclass(frozen=True)
class Rankings:
    """The best items of every user and group, by descending score of the teacher.

    Attributes:
        items: (U, K, C) int32, padded with −1.
        scores: (U, K, C) float32, the teacher's scores of these items.
        lengths: (U, K) int64, how many items there are.
    """

    items: Tensor
    scores: Tensor
    lengths: Tensor


def interactions_of(method: str, train: Any) -> HasInteractions:
    """Return training samples that know which user has which items.

    Args:
        method: name of the method, for the message.
        train: what the engine gives to `build_data`.

    Raises:
        UserError: If they do not.
    """
    if not isinstance(train, HasInteractions):
        raise UserError(
            f"{method} ranks the items of users, but the data is {type(train).__name__}; give data "
            "of interactions, such as tutelage.data.InteractionFiles"
        )
    return train


def teacher_scores(method: str, teacher: Teacher, interactions: Interactions) -> Blocks:
    """Give (users (B,), scores (B, I)) of a teacher for all users, block by block, on the CPU.

    Args:
        method: name of the method, for messages.
        teacher: has one network.
        interactions: of the training data.

    Raises:
        UserError: If there is no network, or several, or its scores have another shape or are not
            finite; the message names a user.
    """
    models = teacher.models()
    if len(models) != 1:
        raise UserError(
            f"{method} takes the rankings of one teacher, but there are {len(models)}; give the "
            "recipe one teacher"
        )
    (model,) = models.values()
    num_users, num_items = interactions.num_users, interactions.num_items
    rows = max(1, BLOCK_SCORES // max(num_items, 1))
    device = device_of(model)
    with torch.no_grad(), eval_mode(model):
        for start in range(0, num_users, rows):
            users = torch.arange(start, min(start + rows, num_users))
            output = call(model, (users.to(device),))
            scores = promote(score_block(output, of="the teacher")).cpu()
            if scores.shape != (len(users), num_items):
                raise UserError(
                    f"the teacher gives scores {tuple(scores.shape)} for {len(users)} users, but "
                    f"the data has {num_users} users and {num_items} items; train it on this data"
                )
            if not scores.isfinite().all():
                row = int((~scores.isfinite()).any(1).nonzero()[0])
                raise UserError(
                    "the teacher's scores hold NaN or infinity, first for the user "
                    f"{interactions.user_ids[start + row]!r}; check its weights"
                )
            if bool((scores == scores[:, :1]).all()):
                raise UserError(
                    "the teacher gives all items the same score, so that it has no ranking, first "
                    f"for the user {interactions.user_ids[start]!r}; check its weights"
                )
            yield users, scores


def rank_candidates(
    blocks: Iterable[tuple[Tensor, Tensor]],
    interactions: Interactions,
    group_of_item: Tensor,
    num_candidates: int,
) -> Rankings:
    """Return the best items of each group that a user does not have in training.

    Args:
        blocks: users and their scores, see `teacher_scores`.
        interactions: of the training data.
        group_of_item: (I,) int64; items of group −1 are in no ranking.
        num_candidates: C, how many of each group at most; of a group with fewer items all.
    """
    groups = members_of(group_of_item)
    width = min(num_candidates, max(map(len, groups)))
    shape = (interactions.num_users, len(groups), width)
    items = torch.full(shape, -1, dtype=torch.int32)
    values = torch.zeros(shape, dtype=torch.float32)
    for users, scores in blocks:
        items[users], values[users] = rank_block(users, scores, interactions, groups, width)
    return Rankings(items, values, (items >= 0).sum(2))


def rank_block(
    users: Tensor,
    scores: Tensor,
    interactions: Interactions,
    groups: Sequence[Tensor],
    width: int,
) -> tuple[Tensor, Tensor]:
    """Return the best items of a block of users in each group, and the scores of these items.

    Args:
        users: (B,) int64.
        scores: (B, I) the teacher's, of all items.
        interactions: of the training data, whose items are in no ranking.
        groups: the items of each group, int64.
        width: C, how many of each group at most.

    Returns:
        Items (B, K, C) int32, padded with −1, and scores (B, K, C) float32, padded with 0.
    """
    scores = scores.clone()
    scores[interactions.of_users(users)] = -torch.inf
    shape = (len(users), len(groups), width)
    items = torch.full(shape, -1, dtype=torch.int32)
    values = torch.zeros(shape, dtype=torch.float32)
    for number, members in enumerate(groups):
        count = min(width, len(members))
        best = scores[:, members].topk(count)
        ranked = members[best.indices].int()
        is_left = best.values > -torch.inf
        items[:, number, :count] = ranked.where(is_left, -1)
        values[:, number, :count] = best.values.float().where(is_left, 0.0)
    return items, values


def members_of(group_of_item: Tensor) -> list[Tensor]:
    """Return the items of each group, int64.

    >>> members_of(torch.tensor([0, 1, 0, -1]))
    [tensor([0, 2]), tensor([1])]
    """
    numbers = range(int(group_of_item.max()) + 1)
    return [(group_of_item == number).nonzero().flatten() for number in numbers]


def one_group(interactions: Interactions) -> Tensor:
    """Return the groups of a ranking over all items: group 0 for each of them."""
    return torch.zeros(interactions.num_items, dtype=torch.int64)


def generator_of(seed: int, epoch: int, stream: int) -> torch.Generator:
    """Return a generator for an epoch, so that draws depend on nothing else.

    Args:
        seed: of the run.
        epoch: of the training data.
        stream: tells the draws of different methods apart.
    """
    prime = 1_000_003
    return torch.Generator().manual_seed(((seed * prime + epoch) * prime + stream) % 2**63)


def draw_ranks(
    log_weights: Tensor, lengths: Tensor, count: int, generator: torch.Generator
) -> Tensor:
    """Draw different ranks of every user without replacement, in ascending order.

    The largest of log-weights plus Gumbel noise are a draw without replacement, one after the
    other, with probabilities in proportion to the weights that are left.

    >>> ranks = draw_ranks(torch.zeros(3), torch.tensor([3, 1]), 2, torch.Generator())
    >>> ranks[1].tolist()
    [0, -1]

    Args:
        log_weights: (L,) of the ranks.
        lengths: (U,), how many ranks a user has.
        count: how many to draw.
        generator: of the noise.

    Returns:
        (U, min(count, L)) int64, padded with −1 where a user has fewer ranks.
    """
    width = len(log_weights)
    uniform = torch.rand(len(lengths), width, generator=generator)
    noise = -(-(uniform.clamp(1e-20, 1 - 1e-7)).log()).log()
    keys = (log_weights + noise).masked_fill(torch.arange(width) >= lengths[:, None], -torch.inf)
    best = keys.topk(min(count, width))
    ranks = best.indices.where(best.values > -torch.inf, width)
    ranks = ranks.sort(1).values
    return ranks.where(ranks < width, -1)


def draw_items(
    ranked: Tensor,
    log_weights: Tensor,
    lengths: Tensor,
    count: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Draw different items of every user from a ranking, see `draw_ranks`.

    Args:
        ranked: (U, L) int items, the best first.
        log_weights: (L,) of the ranks.
        lengths: (U,), how many ranks a user has.
        count: how many to draw.
        generator: of the noise.

    Returns:
        Items (U, min(count, L)) in the order of the ranking, padded with −1, and their ranks int64,
        padded with 0.
    """
    ranks = draw_ranks(log_weights, lengths, count, generator)
    is_drawn = ranks >= 0
    ranks = ranks.clamp(min=0)
    return ranked.gather(1, ranks).where(is_drawn, -1), ranks
