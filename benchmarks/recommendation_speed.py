"""What sampling pairs and propagating over the graph cost, beside loops and a dense adjacency.

The other side has the structure of UnKD's official code, written plainly: a Python loop over users,
groups and pairs, and a dense matrix of (users + items)². The loop draws for some of the users, and
its time is scaled to all of them; a step of LightGCN is its forward and backward pass, on the graph
of the first 1300 users: on that of all, the dense matrix has 3.7 GB, and the ratio is larger.
CiteULike with a tenth held out; one thread, CPU time.

python -m benchmarks.recommendation_speed --root data/citeulike-t [--rounds 5] [--out FILE]
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.timing import argument_parser, interleaved, median_ms, ratio, write_result
from tutelage.core import Batch, FrozenTeacher
from tutelage.data import InteractionFiles
from tutelage.data.interaction_samples import InteractionSamples, draw_negatives
from tutelage.methods._rankings import Rankings, rank_candidates, teacher_scores
from tutelage.methods.unkd.pairs import PairSampler, allocate_pairs
from tutelage.models import BPRMF, LightGCN
from tutelage.models.recommendation import Interactions, popularity_groups
from tutelage.models.recommendation.lightgcn import Graph
from tutelage.tasks import Recommendation

BATCH = 2048
GROUPS, PAIRS, MU = 4, 30, 20.0
LOOP_USERS = 200
GRAPH_USERS = 1300


def loop_over_pairs(rankings: Rankings, pairs_per_group: Tensor, users: int) -> Callable[[], None]:
    """Return the draws of some users in Python, as a user would write them down."""
    lists = [
        [[item for item in group if item >= 0] for group in user]
        for user in rankings.items[:users].tolist()
    ]
    sums = list(itertools.accumulate(math.exp(-(rank + 1) / MU) for rank in range(160)))

    def draw() -> None:
        for groups in lists:
            for candidates, count in zip(groups, pairs_per_group.tolist(), strict=True):
                ranks = range(len(candidates))
                for _ in range(count):
                    first = second = 0
                    while first == second:
                        weights = sums[: len(candidates)]
                        first, second = random.choices(ranks, cum_weights=weights, k=2)
                    if first > second:
                        first, second = second, first
                    candidates[first], candidates[second]

    return draw


def dense_mean(interactions: Interactions, layers: int) -> Callable[[Tensor], Tensor]:
    """Return LightGCN's propagation by a dense normalized adjacency."""
    users, items = interactions.users, interactions.items + interactions.num_users
    size = interactions.num_users + interactions.num_items
    degrees = torch.cat([interactions.user_counts, interactions.item_counts]).clamp(min=1)
    values = (degrees[users] * degrees[items]).float().rsqrt()
    adjacency = torch.zeros(size, size)
    adjacency[users, items] = values
    adjacency[items, users] = values

    def mean(rows: Tensor) -> Tensor:
        total = rows
        for _ in range(layers):
            rows = adjacency @ rows
            total = total + rows
        return total / (layers + 1)

    return mean


def first_users(interactions: Interactions) -> Interactions:
    """Return the interactions of the first users, and the items that they have."""
    is_first = interactions.users < GRAPH_USERS
    numbers, items = torch.unique(interactions.items[is_first], return_inverse=True)
    return Interactions.of_pairs(interactions.users[is_first], items, GRAPH_USERS, len(numbers))


def sparse_megabytes(interactions: Interactions) -> float:
    """Return what the two sparse halves of the graph take, in float32."""
    graph = Graph.of(interactions).to(torch.zeros(1))
    parts = [
        part
        for matrix in (graph.to_users, graph.to_items)
        for part in (matrix.crow_indices(), matrix.col_indices(), matrix.values())
    ]
    return sum(part.numel() * part.element_size() for part in parts) / 1e6


def lightgcn_steps(interactions: Interactions) -> dict[str, Callable[[], None]]:
    """Return a step with the sparse graph and one with the dense adjacency."""
    train = InteractionSamples(interactions)
    network = LightGCN(dim=10, layers=2)
    network.set_interactions(interactions)
    task = Recommendation(decay=0.01)
    batch = train.batch([(0, position) for position in range(BATCH)])
    dense = dense_mean(interactions, 2)

    def sparse_step() -> None:
        task.loss(network(batch.inputs), batch).backward()

    def dense_step() -> None:
        rows = dense(torch.cat([network.user_table, network.item_table]))
        output = {
            "users": rows[batch.inputs],
            "items": rows[interactions.num_users :],
            "user_rows": network.user_table[batch.inputs],
            "item_rows": network.item_table,
        }
        task.loss(output, Batch(dict(batch))).backward()

    return {"LightGCN, sparse": sparse_step, "LightGCN, dense": dense_step}


def bpr_epoch(train: InteractionSamples) -> Callable[[], None]:
    """Return an epoch of BPR on factors of 10 numbers, without sampling pairs."""
    network = BPRMF(dim=10)
    network.set_interactions(train.interactions)
    task = Recommendation(decay=0.01)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3, fused=True)
    epochs = itertools.count()

    def epoch() -> None:
        number = next(epochs)
        order = torch.randperm(len(train)).tolist()
        for start in range(0, len(train) - BATCH + 1, BATCH):
            batch = train.batch([(number, place) for place in order[start : start + BATCH]])
            task.loss(network(batch.inputs), batch).backward()
            optimizer.step()
            optimizer.zero_grad()

    return epoch


def main() -> None:
    """Measure and write the result."""
    parser = argument_parser(__doc__, rounds=5)
    parser.add_argument("--root", default="data/citeulike-t", help="folder of users.dat")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = InteractionFiles(arguments.root, min_user_items=5, holdout=0.1)
    train = data.splits()["train"]
    assert isinstance(train, InteractionSamples)
    interactions = train.interactions
    teacher = data.prepare_network(BPRMF(dim=100))
    groups = popularity_groups(interactions.items, interactions.num_items, GROUPS)
    blocks = teacher_scores("the benchmark", FrozenTeacher(teacher), interactions)
    rankings = rank_candidates(blocks, interactions, groups.group_of_item, 160)
    counts = allocate_pairs(groups.mean_counts, PAIRS)
    sampler = PairSampler(rankings, counts, mu=MU, seed=0)
    numbers = itertools.count()
    cases: dict[str, Callable[[], object]] = {
        "pairs, vectorized": lambda: sampler.table(next(numbers)),
        "negatives, vectorized": lambda: draw_negatives(interactions, 0, next(numbers)),
        "pairs, loop": loop_over_pairs(rankings, counts, LOOP_USERS),
        "BPR epoch": bpr_epoch(train),
    }
    part = first_users(interactions)
    steps = lightgcn_steps(part)
    seconds = interleaved({**cases, **steps}, arguments.rounds)
    scale = interactions.num_users / LOOP_USERS
    seconds["pairs, loop"] = [value * scale for value in seconds["pairs, loop"]]
    size = interactions.num_users + interactions.num_items
    result: dict[str, Any] = {
        "users": interactions.num_users,
        "items": interactions.num_items,
        "interactions": len(interactions),
        "groups": GROUPS,
        "pairs": PAIRS,
        "loop_users": LOOP_USERS,
        "graph_of_the_steps": [part.num_users, part.num_items],
        "median_ms": {name: median_ms(values) for name, values in seconds.items()},
        "speedup": {
            "pairs": ratio(seconds["pairs, loop"], seconds["pairs, vectorized"]),
            "LightGCN": ratio(seconds["LightGCN, dense"], seconds["LightGCN, sparse"]),
        },
        "sampling_of_bpr_epoch": ratio(seconds["pairs, vectorized"], seconds["BPR epoch"]),
        "graph_megabytes": {"sparse": sparse_megabytes(interactions), "dense": 4 * size**2 / 1e6},
    }
    print(result)
    print(write_result("recommendation_speed", result, arguments.out))


if __name__ == "__main__":
    main()
