"""What the tests of methods for recommenders share: vectors, a small data set, a distiller."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import torch
from torch import Tensor

from tests.helpers.vectors import cases, tensor
from tests.methods.harness import flat_gradient
from tutelage.core import Batch, Distiller, FrozenTeacher, Method, NoTeacher
from tutelage.data import InteractionSamples
from tutelage.models import BPRMF
from tutelage.models.recommendation import Interactions, item_scores
from tutelage.tasks import Recommendation

NUM_USERS, NUM_ITEMS = 24, 150


def names_of(prefix: str) -> list[str]:
    """Return the names of the cases of UnKD's vectors that begin so."""
    return [name for name in cases("unkd") if name.startswith(prefix)]


def baseline_scores(name: str) -> tuple[Tensor, Tensor]:
    """Return the scores (N, k) of student and teacher for the ranked items of a batch."""
    users = tensor("unkd", f"{name}_batch_users", torch.int64)
    items = tensor("unkd", f"{name}_ranked_items", torch.int64)[users]
    scores = []
    for role in ("student", "teacher"):
        factors = {
            "users": tensor("unkd", f"{name}_{role}_user")[users],
            "items": tensor("unkd", f"{name}_{role}_item"),
        }
        scores.append(item_scores(factors, items))
    return scores[0], scores[1]


def interactions() -> Interactions:
    """Return the same random interactions in every call; popular items have the low numbers."""
    generator = torch.Generator().manual_seed(2)
    popularity = 1 / torch.arange(1, NUM_ITEMS + 1)
    items = torch.multinomial(popularity.expand(NUM_USERS, -1), 9, generator=generator)
    users = torch.arange(NUM_USERS).repeat_interleave(9)
    return Interactions.of_pairs(users, items.flatten(), NUM_USERS, NUM_ITEMS)


def recommenders() -> tuple[BPRMF, BPRMF]:
    """Return a student and a teacher, the same in every call."""
    torch.manual_seed(0)
    student, teacher = BPRMF(NUM_USERS, NUM_ITEMS, 4), BPRMF(NUM_USERS, NUM_ITEMS, 8)
    with torch.no_grad():
        for network in (student, teacher):
            network.user_table.mul_(4.0)
            network.item_table.mul_(4.0)
    return student, teacher


def distill_recommender(
    method: Method, *, dtype: torch.dtype = torch.float32, accumulate: int = 1
) -> tuple[Distiller, Callable[[int], Batch]]:
    """Return a distiller that is set up, and what gives the batch of an epoch."""
    student, network = recommenders()
    teacher = FrozenTeacher(network) if method.uses_teacher else NoTeacher()
    data = method.build_data(InteractionSamples(interactions(), seed=1), teacher)
    task = Recommendation(decay=0.01)
    distiller = Distiller(student.to(dtype), teacher, method, task, accumulate=accumulate)

    def batch(epoch: int) -> Batch:
        return data.batch([(epoch, position) for position in range(0, len(data), 4)[:52]])

    distiller.setup(batch(0))
    return distiller, batch


def gradients_on_rank(rank: int, *modules: str) -> dict[str, Tensor]:
    """Return the gradients of one rank's half of a batch, averaged over ranks by DDP.

    Args:
        rank: takes every second item.
        modules: test modules, of whose RECOMMENDER_EXAMPLES all methods are taken.
    """
    from torch.nn.parallel import DistributedDataParallel

    gradients = {}
    for module in modules:
        for name, make in import_module(module).RECOMMENDER_EXAMPLES.items():
            distiller, batch = distill_recommender(make(), dtype=torch.float64)
            world = torch.distributed.get_world_size()
            half = {field: value[rank::world] for field, value in batch(0).items()}
            parallel = DistributedDataParallel(distiller)
            sum(parallel(half).values()).backward()
            gradients[name] = flat_gradient(distiller.student)
    return gradients
