"""Ranking metrics against the official code of UnKD, and by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.helpers.vectors import cases, tensor
from tutelage.core import Batch
from tutelage.models.recommendation import Interactions
from tutelage.tasks.recommendation import RankingMetrics, Recommendation

CASES = [name for name in cases("unkd") if name.startswith("metrics")]


def values_by_group(metrics: dict[str, float], name: str) -> list[float]:
    return [value for key, value in metrics.items() if key.startswith(f"{name}/")]


def integers(key: str) -> Tensor:
    return tensor("unkd", key, torch.int64)


def metrics_of(name: str, block: int) -> dict[str, float]:
    """Return the metrics of a case, ranked in blocks of users."""
    case = cases("unkd")[name]
    scores = tensor("unkd", f"{name}_scores")
    users = integers(f"{name}_users")
    num_items = scores.shape[1]
    train = Interactions(integers(f"{name}_train_ptr"), integers(f"{name}_train_idx"), num_items)
    # Row r of the truth is the r-th evaluated user.
    truth = Interactions(
        integers(f"{name}_truth_ptr"), integers(f"{name}_truth_idx").clone(), num_items
    )
    truth = Interactions.of_pairs(truth.users, truth.items, len(users), num_items)
    names = [str(group) for group in range(case["K_groups"])]
    metrics = RankingMetrics(case["topks"], integers(f"{name}_group_of_item"), names)
    task = Recommendation()
    task.topks = tuple(case["topks"])
    for rows in torch.arange(len(users)).split(block):
        top = task.rank(scores[users[rows]], users[rows], train)
        assert torch.equal(top, integers(f"{name}_topk_items")[rows])
        hits = truth.contains(rows[:, None], top)
        batch = Batch({"inputs": users[rows], "hits": hits, "held_out": truth.of_users(rows)})
        metrics.update(top, batch)
    return metrics.compute()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("block", [1, 4, 100])
def test_the_metrics_are_those_of_the_official_code(name: str, block: int) -> None:
    found = metrics_of(name, block)
    assert found["num_samples"] == cases("unkd")[name]["n_users_eval"]
    for number, k in enumerate(cases("unkd")[name]["topks"]):
        for metric in ("recall", "precision", "ndcg"):
            expected = float(tensor("unkd", f"{name}_{metric}")[number])
            assert found[f"{metric}@{k}"] == pytest.approx(expected, rel=1e-12, abs=1e-15)
        for metric, key in (
            ("recall", "recall_by_group"),
            ("recall_of_owners", "recall_by_group_over_users_with_items"),
            ("share", "group_share_of_topk"),
        ):
            by_group = values_by_group(found, f"{metric}@{k}")
            expected_row = tensor("unkd", f"{name}_{key}")[number].tolist()
            assert by_group == pytest.approx(expected_row, rel=1e-12, abs=1e-15), metric


def test_numbers_by_hand() -> None:
    """Two users, three places; the second has fewer items left than places."""
    metrics = RankingMetrics((1, 3), torch.tensor([0, 1, -1, 1]), ("popular", "unpopular"))
    top = torch.tensor([[0, 1, 2], [3, -1, -1]])
    hits = torch.tensor([[False, True, True], [True, False, False]])
    held_out = torch.tensor([0, 0, 1]), torch.tensor([1, 2, 3])
    metrics.update(top, Batch({"inputs": None, "hits": hits, "held_out": held_out}))
    found = metrics.compute()
    assert found["recall@1"] == 0.5
    assert found["recall@3"] == 1.0
    assert found["precision@3"] == pytest.approx(0.5)
    log3, log4 = torch.tensor([3.0, 4.0], dtype=torch.float64).log2().tolist()
    first = (1 / log3 + 1 / log4) / (1 + 1 / log3)
    assert found["ndcg@3"] == pytest.approx((first + 1) / 2)
    assert found["recall@3/unpopular"] == 1.0
    assert found["recall_of_owners@3/popular"] == 0.0
    assert found["share@3/popular"] == pytest.approx(1 / 3)
