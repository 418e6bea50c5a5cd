"""UnKD against the numbers of the official code, and the laws that its pairs follow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.vectors import cases, tensor
from tutelage.core import FrozenTeacher, Method
from tutelage.data import InteractionSamples
from tutelage.errors import UserError
from tutelage.methods import UnKD, unkd_loss
from tutelage.methods._rankings import Rankings, rank_candidates, teacher_scores
from tutelage.methods.unkd import allocate_pairs, pair_law
from tutelage.methods.unkd.pairs import PairSampler, draw_pairs, group_ratios
from tutelage.models import BPRMF, LightGCN
from tutelage.models.recommendation import Interactions, ScoreFunction, item_scores

RECOMMENDER_EXAMPLES: dict[str, Callable[[], Method]] = {
    "unkd": lambda: UnKD(num_groups=2),
    "unkd of the paper": lambda: UnKD(reduction="paper", partition="balanced", gamma=1.0),
}
EPSILON = 1e-10  # inside the logarithm of the official code


def named(prefix: str) -> list[str]:
    return [name for name in cases("unkd") if name.startswith(prefix)]


def integers(key: str) -> Tensor:
    return tensor("unkd", key, torch.int64)


def number(key: str) -> float:
    return float(tensor("unkd", key))


# ---- allocation ----


@pytest.mark.parametrize("name", named("partition"))
def test_pairs_are_allocated_as_in_the_official_code(name: str) -> None:
    means = tensor("unkd", f"{name}_group_mean_popularity")
    ratios = group_ratios(means)
    torch.testing.assert_close(ratios, tensor("unkd", f"{name}_group_ratio"), rtol=1e-12, atol=0)
    for key, case in cases("unkd")[name].items():
        if key.startswith("alloc"):
            found = allocate_pairs(means, case["sample_num"], gamma=case["lamda"])
            assert torch.equal(found, integers(f"{name}_{key}_pairs_per_group")), key
            weights = ratios ** case["lamda"]
            expected = tensor("unkd", f"{name}_{key}_ratio")
            torch.testing.assert_close(weights / weights.sum(), expected, rtol=1e-12, atol=0)


# ---- candidates ----


@pytest.mark.parametrize("name", named("rank"))
@pytest.mark.parametrize("block", [1, 3, 100])
def test_candidates_are_those_of_the_official_code(name: str, block: int) -> None:
    users, items = (tensor("unkd", f"{name}_teacher_{side}") for side in ("user", "item"))
    train = Interactions(integers(f"{name}_train_ptr"), integers(f"{name}_train_idx"), len(items))
    scores = users @ items.T
    numbers = torch.arange(len(users)).split(block)
    blocks = iter([(part, scores[part]) for part in numbers])
    found = rank_candidates(blocks, train, integers(f"{name}_group_of_item"), 1000)
    expected = integers(f"{name}_ranked_candidates")
    width = expected.shape[2]
    assert torch.equal(found.items[:, :, :width].long(), expected)
    assert bool((found.items[:, :, width:] == -1).all())
    assert torch.equal(found.lengths, (expected >= 0).sum(2))


# ---- the law of pairs ----


@pytest.mark.parametrize("name", named("pairs"))
def test_the_law_is_the_intended_one(name: str) -> None:
    case = cases("unkd")[name]
    law = pair_law(case["N_candidates"], mu=case["mu"])
    torch.testing.assert_close(law, tensor("unkd", f"{name}_prob_intended"), rtol=0, atol=2e-16)


@pytest.mark.parametrize("name", named("pairs"))
def test_drawn_pairs_follow_the_law(name: str) -> None:
    """The chi-square statistic against its 99.99 % quantile."""
    from scipy.stats import chi2

    case = cases("unkd")[name]
    length, draws = case["N_candidates"], 40_000
    ranks = draw_pairs(torch.full((draws,), length), case["mu"], torch.Generator().manual_seed(1))
    assert bool((ranks[0] < ranks[1]).all())
    observed = torch.bincount(ranks[0] * length + ranks[1], minlength=length**2).double()
    expected = draws * pair_law(length, mu=case["mu"]).flatten()
    cells = expected > 0
    statistic = ((observed - expected)[cells].square() / expected[cells]).sum()
    assert float(statistic) <= float(chi2.ppf(0.9999, max(int(cells.sum()) - 1, 1)))


@pytest.mark.parametrize("name", named("pairs"))
def test_the_official_sampler_gives_a_pair_of_one_item_half_of_the_time(name: str) -> None:
    """It swaps through a view: a pair drawn in the wrong order becomes (better, better)."""
    case = cases("unkd")[name]
    p = tensor("unkd", f"{name}_p")
    repeated = torch.diag(p * (p.flip(0).cumsum(0).flip(0) - p)) / (1 - p.square().sum())
    shipped = pair_law(case["N_candidates"], mu=case["mu"]) / 2 + repeated
    torch.testing.assert_close(shipped, tensor("unkd", f"{name}_prob_official"), rtol=0, atol=2e-16)
    assert float(shipped.diagonal().sum()) == pytest.approx(0.5)


def sampler_of(seed: int = 0, num_users: int = 6) -> PairSampler:
    """Return a sampler of users with 0, 1, 2, 3, … candidates in each of two groups."""
    lengths = torch.stack([torch.arange(num_users), torch.full((num_users,), 5)], 1)
    items = torch.arange(num_users * 2 * 5, dtype=torch.int32).view(num_users, 2, 5)
    items = items.where(torch.arange(5) < lengths[:, :, None], -1)
    rankings = Rankings(items, torch.zeros(items.shape), lengths)
    return PairSampler(rankings, torch.tensor([3, 4]), mu=2.0, seed=seed)


def test_pairs_are_a_pure_function_of_seed_and_epoch() -> None:
    first, again, other = sampler_of(), sampler_of(), sampler_of(seed=1)
    tables = [first.table(epoch) for epoch in (0, 1, 0)]
    assert torch.equal(tables[0][0], tables[2][0])
    assert torch.equal(tables[0][1], again.table(0)[1])
    assert not torch.equal(tables[0][0], tables[1][0])
    assert not torch.equal(tables[0][0], other.table(0)[0])


def test_users_without_two_candidates_in_a_group_have_no_pair_there() -> None:
    sampler = sampler_of()
    fields = sampler(3, torch.arange(6))
    mask = fields["unkd_mask"]
    assert mask[:, :3].any(1).tolist() == [False, False, True, True, True, True]
    assert bool(mask[:, 3:].all())
    assert sampler.num_pairs == int(mask.sum())
    positives, negatives = fields["unkd_positives"], fields["unkd_negatives"]
    # Items are numbered by their rank here, so the better one has the smaller number.
    assert bool((positives < negatives)[mask].all())
    groups = positives // 5 % 2
    assert torch.equal(groups[mask], (negatives // 5 % 2)[mask])


# ---- the loss ----


def embeddings(name: str) -> tuple[Tensor, Tensor]:
    users, items = (tensor("unkd", f"{name}_{side}_emb") for side in ("user", "item"))
    return users.requires_grad_(), items.requires_grad_()


def differences_of(name: str, users: Tensor, items: Tensor, rows: Tensor) -> Tensor:
    output = {"users": users[rows], "items": items}
    positives, negatives = (integers(f"{name}_{side}_items") for side in ("pos", "neg"))
    return item_scores(output, positives[rows], minus=negatives[rows])


@pytest.mark.parametrize("name", named("loss"))
def test_the_loss_is_that_of_the_official_code(name: str) -> None:
    users, items = embeddings(name)
    differences = differences_of(name, users, items, integers(f"{name}_batch_users"))
    official = -(torch.sigmoid(differences) + EPSILON).log()
    assert official.mean().item() == pytest.approx(number(f"{name}_loss"), rel=1e-12)
    gradients = torch.autograd.grad(official.mean(), [users, items], retain_graph=True)
    for gradient, side in zip(gradients, ("user", "item"), strict=True):
        expected = tensor("unkd", f"{name}_grad_{side}")
        torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-13)
    own = unkd_loss(differences)
    if "large" in cases("unkd")[name]["note"]:
        # Where the official loss is bounded and its gradient is gone.
        assert own.item() == pytest.approx(30.55, abs=0.01)
        return
    assert own.item() == pytest.approx(number(f"{name}_loss"), rel=1e-8)
    for gradient, expected in zip(torch.autograd.grad(own, [users, items]), gradients, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", named("loss"))
def test_the_paper_s_reduction_is_a_sum_over_pairs_and_a_mean_over_users(name: str) -> None:
    users, items = embeddings(name)
    differences = differences_of(name, users, items, torch.arange(len(users)))
    found = unkd_loss(differences, reduction="paper")
    assert found.item() == pytest.approx(number(f"{name}_paper_LG_all_users"), rel=1e-12)
    pairs = differences.shape[1]
    assert found.item() == pytest.approx(pairs * unkd_loss(differences).item(), rel=1e-12)


@pytest.mark.parametrize("name", named("lightgcn"))
def test_the_loss_on_propagated_vectors(name: str) -> None:
    users, items = (tensor("unkd", f"{name}_prop_{side}") for side in ("user", "item"))
    rows = integers(f"{name}_users")
    positives, negatives = (integers(f"{name}_kd_{side}") for side in ("pos", "neg"))
    output = {"users": users[rows], "items": items}
    differences = item_scores(output, positives[rows], minus=negatives[rows])
    assert unkd_loss(differences).item() == pytest.approx(number(f"{name}_unkd"), rel=1e-8)


def test_masked_pairs_count_in_no_mean() -> None:
    differences = torch.tensor([[0.0, 50.0, -3.0], [1.0, 2.0, 3.0], [9.0, 9.0, 9.0]])
    mask = torch.tensor([[True, False, False], [True, True, True], [False, False, False]])
    rows = [unkd_loss(differences[:1, :1]), unkd_loss(differences[1:2]), torch.tensor(0.0)]
    expected = torch.stack(rows).mean()
    torch.testing.assert_close(unkd_loss(differences, mask), expected)
    weighted: Any = unkd_loss(differences, mask, torch.tensor([2.0, 0.0, 1.0]))
    torch.testing.assert_close(weighted, 2 * rows[0] / 3)


# ---- mistakes ----


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"mu": 0.0}, r"mu of UnKD is a number from 0\.25 to 1e9, got 0\.0"),
        ({"mu": 0.05}, r"mu of UnKD is a number from 0\.25 to 1e9, got 0\.05"),
        ({"mu": 1e50}, r"mu of UnKD is a number from 0\.25 to 1e9, got 1e\+50"),
        ({"weight": -1.0}, "the weights of UnKD"),
        ({"num_groups": 0}, "num_groups of UnKD is a whole number from 1 on, got 0"),
        ({"num_pairs": 0}, "num_pairs of UnKD is a whole number from 1 on, got 0"),
        ({"num_candidates": 1}, "num_candidates of UnKD is a whole number from 2 on, got 1"),
        ({"gamma": float("nan")}, "gamma of UnKD is a number from -100 to 100, got nan"),
        ({"gamma": 1e9}, "gamma of UnKD is a number from -100 to 100"),
        ({"gamma": None}, "gamma of UnKD is a number from -100 to 100, got None"),
        ({"partition": "equal"}, "partition is 'greedy' or 'balanced', got 'equal'"),
        ({"reduction": "sum"}, "reduction is 'code' or 'paper', got 'sum'"),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        UnKD(**options)


def test_another_number_of_groups_than_asked_for_is_said() -> None:
    users = torch.arange(40)
    items = torch.cat([torch.zeros(30, dtype=torch.int64), torch.arange(10) % 4])
    held = Interactions.of_pairs(users, items, 40, 5)
    teacher = FrozenTeacher(BPRMF(40, 5, 2))
    with pytest.warns(UserWarning, match=r"greedy partition gives 2 groups of items instead of 3"):
        UnKD(num_groups=3).build_data(InteractionSamples(held), teacher)


def test_data_without_any_pair_is_refused() -> None:
    held = Interactions.of_pairs(torch.arange(3), torch.arange(3), 3, 3)
    teacher = FrozenTeacher(BPRMF(3, 3, 2))
    with pytest.raises(UserError, match=r"no user has two candidates in a group"):
        UnKD(num_groups=3).build_data(InteractionSamples(held), teacher)
    with pytest.raises(UserError, match=r"with an interaction, 3, got 4"):
        UnKD(num_groups=4).build_data(InteractionSamples(held), teacher)
    with pytest.raises(UserError, match=r"floating-point differences of scores \(N, P\)"):
        unkd_loss(torch.zeros(3))
    with pytest.raises(UserError, match=r"no pairs in a batch \(3, 0\)"):
        unkd_loss(torch.zeros(3, 0))


def test_options_at_their_limits_give_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    held = Interactions.of_pairs(
        torch.arange(40), torch.randint(9, (40,), generator=generator), 40, 20
    )
    teacher = FrozenTeacher(BPRMF(40, 20, 2))
    for options in ({"mu": 0.25}, {"mu": 1e9}, {"gamma": 100.0}, {"gamma": -100.0}):
        method = UnKD(num_groups=2, **options)  # type: ignore[arg-type]
        batch = method.build_data(InteractionSamples(held), teacher).batch([(0, 3), (0, 5)])
        mask = batch["unkd_mask"]
        assert mask.any()
        assert (batch["unkd_positives"] != batch["unkd_negatives"])[mask].all()


def test_scores_in_double_precision_are_ranked_as_they_are() -> None:
    """In float32 they would be tied: 1e-3 apart at 1e6."""
    held = Interactions.of_pairs(torch.arange(3), torch.arange(3), 3, 40)
    scores = 1e6 + 1e-3 * torch.arange(40, dtype=torch.float64).flip(0).expand(3, -1)
    teacher = FrozenTeacher(ScoreFunction(lambda users: scores[users]))
    blocks = teacher_scores("UnKD", teacher, held)
    ranked = rank_candidates(blocks, held, torch.zeros(40, dtype=torch.int64), 40)
    assert ranked.items[0, 0, :39].tolist() == list(range(1, 40))


def test_a_cache_of_a_teacher_without_weights_is_compared_by_its_scores(tmp_path: Path) -> None:
    held = Interactions.of_pairs(torch.arange(12), torch.arange(12) % 6, 12, 9)
    scores = torch.randn(12, 9, generator=torch.Generator().manual_seed(0))
    cache = str(tmp_path / "ranks.safetensors")

    def positives(factor: float) -> Tensor:
        method = UnKD(num_groups=2, cache=cache)
        teacher = FrozenTeacher(ScoreFunction(lambda users: factor * scores[users]))
        data = method.build_data(InteractionSamples(held), teacher)
        method.on_step_start(0.0)
        assert torch.is_grad_enabled()
        drawn: Tensor = data.batch([(0, 0), (0, 4)])["unkd_positives"]
        return drawn

    first = positives(1.0)
    assert torch.equal(positives(1.0), first)
    with pytest.raises(
        UserError, match=r"ranks\.safetensors does not fit this run: it was made wi"
    ):
        positives(-1.0)


def test_a_cache_of_a_lightgcn_with_other_layers_is_refused(tmp_path: Path) -> None:
    held = Interactions.of_pairs(torch.arange(12), torch.arange(12) % 6, 12, 9)
    networks = [LightGCN(12, 9, 3, layers=layers) for layers in (1, 3)]
    networks[1].load_state_dict(networks[0].state_dict())
    for network in networks:
        network.set_interactions(held)
    method = UnKD(num_groups=2, cache=str(tmp_path / "ranks.safetensors"))
    method.build_data(InteractionSamples(held), FrozenTeacher(networks[0]))
    method.on_step_start(0.0)
    with pytest.raises(UserError, match=r"made with another teacher, or with other weights"):
        method.build_data(InteractionSamples(held), FrozenTeacher(networks[1]))
