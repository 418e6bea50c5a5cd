"""Top-k recommendation from implicit feedback."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from tutelage.core import Batch, Evaluation, Metrics, Output, Task, Teacher
from tutelage.core.precision import promote
from tutelage.core.prediction import Prediction
from tutelage.core.taps import call
from tutelage.errors import UserError
from tutelage.models.recommendation import (
    Interactions,
    item_scores,
    popularity_groups,
    score_block,
)
from tutelage.models.recommendation._rows import rows_of
from tutelage.models.recommendation.interactions import is_factors
from tutelage.tasks.recommendation.export import read_recommender, write_recommender
from tutelage.tasks.recommendation.losses import bpr_loss, row_norms
from tutelage.tasks.recommendation.metrics import RankingMetrics, random_ndcg

GROUPS = ("popular", "unpopular")


@runtime_checkable
class HasHeldOutItems(Protocol):
    """A part of a data set whose samples are users with items to be found."""

    interactions: Interactions
    held_out: Interactions


class Recommendation(Task):
    """BPR on (user, positive, negative), evaluated by ranking all items.

    The network takes user numbers and returns factors of these users and of all items, see
    `tutelage.models.recommendation.interactions`. In evaluation, a user's training items are left
    out of the ranking and no item is sampled: every other item is ranked.

    Metrics are also given for popular and unpopular items: the two groups of the partition that
    UnKD makes with K = 2, each with half of the training interactions, whatever groups a method
    distills with.

    >>> Recommendation(decay=0.01)
    Recommendation(decay=0.01, topks=(10, 20))

    Args:
        decay: factor of the regularization of the rows that a batch reads.
        topks: lengths of the rankings that are evaluated; 20 is among them.

    Raises:
        UserError: If an argument is out of range.
    """

    monitor = "ndcg@20"
    min_gain_over_chance = 0.002  # NDCG@20 of good recommenders can be a few percent

    def __init__(self, decay: float = 1e-3, topks: Sequence[int] = (10, 20)) -> None:
        is_number = isinstance(decay, (int, float)) and not isinstance(decay, bool)
        if not is_number or not 0 <= decay < float("inf"):
            raise UserError(f"task.decay is a finite number from 0 on, got {decay!r}")
        if 20 not in topks or not all(isinstance(k, int) and k >= 1 for k in topks):
            raise UserError(
                "task.topks are whole numbers from 1 on, with 20 among them, by which the best "
                f"epoch is chosen, got {list(topks)}"
            )
        self.decay = decay
        self.topks = tuple(sorted(set(topks)))

    def inputs(self, batch: Batch) -> tuple[Any, ...]:
        """Return the users of the batch as the only argument."""
        return (batch.inputs,)

    def loss(self, output: Any, batch: Batch) -> Tensor:
        """Return the BPR loss with its regularization.

        Raises:
            UserError: If the output has no factors, or the batch no positives.
        """
        if not is_factors(output):
            raise UserError(
                "the network to train gives no factors; a recommender to train gives a mapping "
                "with 'users' (B, d) and 'items' (I, d), such as tutelage.models.BPRMF"
            )
        if "positives" not in batch:
            raise UserError(
                "the batch has no positives and negatives; train on data of interactions, such as "
                "tutelage.data.InteractionFiles"
            )
        positives, negatives = batch["positives"], batch["negatives"]
        differences = item_scores(output, positives[:, None], minus=negatives[:, None])
        loss = bpr_loss(differences)
        if not self.decay:
            return loss
        table = output.get("item_rows", output["items"])
        rows = rows_of(table, torch.stack([positives, negatives]))
        return loss + self.decay * row_norms(
            output.get("user_rows", output["users"]), rows[0], rows[1]
        )

    def validate(self, output: Any, batch: Batch, data: Any = None) -> None:
        """Raise unless the output has factors for the items of the batch."""
        self.loss(output, batch)

    def metrics(self) -> Metrics:
        """Raise: the metrics need to know how popular the items are, see `evaluate`."""
        raise UserError("metrics of a ranking need the data; call evaluate(model, parts, run)")

    def chance_level(self) -> float:
        """Return the NDCG of a random ranking of many items, which is close to 0."""
        return 0.0

    def chance_level_on(self, part: Any) -> float:
        """Return the NDCG@20 that a random ranking of a part's items is expected to have.

        It is the mean over all users with held-out items, and not small where items are few.
        """
        if not isinstance(part, HasHeldOutItems):
            return self.chance_level()
        return random_ndcg(part.interactions, part.held_out, 20)

    def connect_teacher(self, teacher: Teacher, student: nn.Module) -> Teacher:
        """Return a teacher that does not run in a step: methods rank with it before training."""
        return RankingTeacher(teacher)

    def evaluate(
        self, model: nn.Module, parts: Mapping[str, Any], run: Evaluation
    ) -> dict[str, float]:
        """Return the metrics of full rankings of a part's users, block by block.

        Raises:
            UserError: If the part has no held-out items, or the scores are not finite or of another
                number of items.
        """
        part = parts[run.part]
        if not isinstance(part, HasHeldOutItems):
            raise UserError(
                f"the {run.part} data ({type(part).__name__}) has no held-out items; give data of "
                "interactions, such as tutelage.data.InteractionFiles"
            )
        groups = evaluation_groups(part.interactions)
        metrics = RankingMetrics(self.topks, groups, GROUPS)
        for batch in run.batches(part):
            scores = score_block(call(model, self.inputs(batch)))
            users = batch.inputs.cpu()
            top = self.rank(scores, users, part.interactions)
            metrics.update(top, _with_truth(batch, top, users, part.held_out))
        return metrics.compute()

    def rank(self, scores: Tensor, users: Tensor, interactions: Interactions) -> Tensor:
        """Return the top items of some users without those of their training.

        Args:
            scores: (B, I), of all items.
            users: (B,) int64, on the CPU.
            interactions: of the training part.

        Returns:
            (B, max k) int64 on the CPU, −1 where fewer items are left.

        Raises:
            UserError: If the scores are not finite or of another number of items.
        """
        if scores.shape[1] != interactions.num_items:
            raise UserError(
                f"the network scores {scores.shape[1]} items, but the data has "
                f"{interactions.num_items}; check its num_items"
            )
        if not bool(scores.isfinite().all()):
            raise UserError(
                "the network's scores hold NaN or infinity; check its weights, or lower the "
                "learning rate"
            )
        scores = promote(scores).clone()
        rows, items = interactions.of_users(users)
        scores[rows.to(scores.device), items.to(scores.device)] = -torch.inf
        best = scores.topk(min(self.topks[-1], scores.shape[1]))
        return best.indices.where(best.values > -torch.inf, -1).cpu()

    def export(self, model: nn.Module, parts: Mapping[str, Any], folder: Path) -> None:
        """Write the final tables and the ids, from which `tutelage predict` recommends."""
        known = parts["train"].interactions
        for part in parts.values():
            if isinstance(part, HasHeldOutItems):  # nobody wants what they have
                known = known.union(part.held_out)
        write_recommender(model, known, folder)

    def predictor(self, folder: Path, top: int) -> Callable[[str], Prediction]:
        """Return what gives a user, by the outside id, the best items that the user has not.

        Args:
            folder: of a finished run.
            top: items for each user.

        Raises:
            UserError: If the tables are missing or damaged.
        """
        recommender = read_recommender(folder)

        def answer(user: str) -> Prediction:
            best = recommender.top(user, top)
            return Prediction({"items": [{"id": item, "score": score} for item, score in best]})

        return answer


class RankingTeacher(Teacher):
    """A recommender that answers no batch: its rankings are taken before training.

    It runs only for a method that reads its layers.

    Args:
        teacher: knows the network.
    """

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher

    def with_taps(self, layers: Sequence[str]) -> Teacher:
        """Return itself, or the teacher with taps if there is something to record."""
        return self.teacher.with_taps(layers) if layers else self

    def __call__(
        self, batch: Batch, inputs: tuple[Any, ...], student: Output | None = None
    ) -> Output:
        """Return an empty output."""
        return Output(None)

    def models(self) -> Mapping[str, nn.Module]:
        """Return the networks of the teacher."""
        return self.teacher.models()

    def __repr__(self) -> str:
        return f"RankingTeacher({self.teacher})"


def evaluation_groups(interactions: Interactions) -> Tensor:
    """Return 0 for popular items, 1 for unpopular ones, −1 for those that nobody has, (I,) int64.

    Where one item has more than half of all interactions, the greedy rule does not give two groups;
    the balanced one is taken then.
    """
    if int((interactions.item_counts > 0).sum()) < 2:
        return torch.where(interactions.item_counts > 0, 0, -1)
    groups = popularity_groups(interactions.items, interactions.num_items, 2)
    if len(groups) != 2:
        groups = popularity_groups(
            interactions.items, interactions.num_items, 2, partition="balanced"
        )
    return groups.group_of_item


def _with_truth(batch: Batch, top: Tensor, users: Tensor, held_out: Interactions) -> Batch:
    hits = held_out.contains(users[:, None], top.clamp(min=0)) & (top >= 0)
    return batch.with_fields({"hits": hits, "held_out": held_out.of_users(users)})
