"""What every method for recommenders promises, checked on all of them; see `test_contract`.

A method's test module defines RECOMMENDER_EXAMPLES, name → a function that returns a new method for
the small recommenders of `tests.methods.recommenders`.
"""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.methods import recommenders
from tests.methods.harness import assert_close, flat_gradient, image_batch, two_ranks
from tests.methods.recommenders import distill_recommender, gradients_on_rank, interactions
from tests.methods.test_contract import MODULES, RECOMMENDER_EXAMPLES
from tutelage.core import CombinedMethod, FrozenTeacher, NoTeacher
from tutelage.data import InteractionSamples
from tutelage.errors import UserError
from tutelage.models import ScoreFunction

every_example = pytest.mark.parametrize("name", RECOMMENDER_EXAMPLES)


@every_example
def test_terms_are_finite_named_scalars_that_reach_the_student(name: str) -> None:
    distiller, batch = distill_recommender(RECOMMENDER_EXAMPLES[name]())
    terms = distiller(batch(0))
    assert len(terms) == 2
    for term, value in terms.items():
        assert value.ndim == 0
        assert value.isfinite(), term
        parameters = list(distiller.student.parameters())
        gradients = torch.autograd.grad(value, parameters, retain_graph=True)
        assert all(float(gradient.abs().sum()) > 0 for gradient in gradients), term


@every_example
def test_a_student_in_double_precision_trains(name: str) -> None:
    distiller, batch = distill_recommender(RECOMMENDER_EXAMPLES[name](), dtype=torch.float64)
    terms = distiller(batch(0))
    assert all(value.dtype == torch.float64 for value in terms.values())
    sum(terms.values()).backward()


def weights_after_training(name: str, accumulate: int) -> Tensor:
    make = RECOMMENDER_EXAMPLES[name]
    distiller, batch = distill_recommender(make(), dtype=torch.float64, accumulate=accumulate)
    optimizer = torch.optim.SGD(distiller.parameters(), lr=0.1, momentum=0.9)
    for epoch in range(20):
        torch.stack(list(distiller(batch(epoch)).values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return torch.cat([parameter.detach().flatten() for parameter in distiller.parameters()])


@every_example
def test_a_batch_in_pieces_trains_as_the_whole(name: str) -> None:
    assert_close(weights_after_training(name, 4), weights_after_training(name, 1), 1e-9)


@every_example
def test_autocast_changes_nothing_in_the_terms(name: str) -> None:
    distiller, batch = distill_recommender(RECOMMENDER_EXAMPLES[name]())
    exact = distiller(batch(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = distiller(batch(0))
    for term, value in exact.items():
        torch.testing.assert_close(rounded[term], value)


@every_example
def test_what_is_drawn_depends_on_seed_and_epoch_alone(name: str) -> None:
    """Not on what was drawn before, so that a resumed run trains on the same."""
    first, again = (distill_recommender(RECOMMENDER_EXAMPLES[name]())[1] for _ in range(2))
    again(5)
    torch.manual_seed(99)
    for field, value in first(1).items():
        assert torch.equal(again(1)[field], value), field
    assert not torch.equal(first(0)["negatives"], first(1)["negatives"])


@every_example
def test_two_batches_of_two_epochs_are_joined_in_order(name: str) -> None:
    method = RECOMMENDER_EXAMPLES[name]()
    _, network = recommenders.recommenders()
    data = method.build_data(InteractionSamples(interactions()), FrozenTeacher(network))
    mixed = data.batch([(1, 5), (0, 3), (1, 2)])
    for row, key in enumerate([(1, 5), (0, 3), (1, 2)]):
        single = data.batch([key])
        for field, value in mixed.items():
            assert torch.equal(value[row : row + 1], single[field]), field


@every_example
def test_any_recommender_can_be_the_teacher(name: str) -> None:
    """A function of user numbers gives the same pairs as the network it calls."""
    _, network = recommenders.recommenders()

    def score(users: Tensor) -> Tensor:
        output = network(users)
        return output["users"] @ output["items"].T

    batches = []
    for teacher in (network, ScoreFunction(score)):
        method = RECOMMENDER_EXAMPLES[name]()
        data = method.build_data(InteractionSamples(interactions()), FrozenTeacher(teacher))
        batches.append(data.batch([(0, position) for position in range(20)]))
    for field, value in batches[0].items():
        assert torch.equal(batches[1][field], value), field


@every_example
def test_methods_can_be_combined_and_copied(name: str) -> None:
    method = RECOMMENDER_EXAMPLES[name]()
    assert repr(copy.deepcopy(method)) == repr(method)
    assert repr(pickle.loads(pickle.dumps(method))) == repr(method)
    alone, batch = distill_recommender(RECOMMENDER_EXAMPLES[name]())
    both, joint_batch = distill_recommender(CombinedMethod([method]))
    for term, value in alone(batch(0)).items():
        torch.testing.assert_close(both(joint_batch(0))[term], value)


@every_example
def test_mistakes_in_the_parts_are_named(name: str) -> None:
    method = RECOMMENDER_EXAMPLES[name]()
    train = InteractionSamples(interactions())
    _, network = recommenders.recommenders()
    with pytest.raises(UserError, match=r"takes the rankings of one teacher, but there are 0"):
        method.build_data(train, NoTeacher())
    with pytest.raises(UserError, match=r"ranks the items of users, but the data is list"):
        method.build_data([], FrozenTeacher(network))
    few = ScoreFunction(lambda users: torch.zeros(len(users), 7))
    with pytest.raises(UserError, match=r"scores \(\d+, 7\) .* 24 users and 150 items"):
        method.build_data(train, FrozenTeacher(few))
    broken = ScoreFunction(lambda users: torch.full((len(users), 150), torch.nan))
    with pytest.raises(UserError, match=r"NaN or infinity, first for the user '0'"):
        method.build_data(train, FrozenTeacher(broken))
    distiller, _ = distill_recommender(RECOMMENDER_EXAMPLES[name]())
    plain = train.batch([(0, 0), (0, 1)])
    with pytest.raises(UserError, match=r"build_data\(train, teacher\) returns"):
        distiller(plain)
    with pytest.raises(UserError, match=r"takes user numbers"):
        distiller(image_batch())


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_ranks_give_the_gradient_of_one_with_the_joined_batch(
    tmp_path: Path, processes: int
) -> None:
    modules = [m.__name__ for m in MODULES if hasattr(m, "RECOMMENDER_EXAMPLES")]
    ranks = two_ranks(gradients_on_rank, tmp_path, *modules, processes=processes)
    for name, make in RECOMMENDER_EXAMPLES.items():
        distiller, batch = distill_recommender(make(), dtype=torch.float64)
        assert len(batch(0).ids) % processes == 0
        sum(distiller(batch(0)).values()).backward()
        whole = flat_gradient(distiller.student)
        for gradients in ranks:
            assert_close(gradients[name], whole, 1e-9)  # CD has float32 targets
