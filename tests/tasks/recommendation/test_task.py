"""The BPR loss against the official code of UnKD, and what the task refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.helpers.vectors import cases, tensor
from tests.methods.recommenders import interactions, recommenders
from tutelage.core import Batch, Evaluation, FrozenTeacher
from tutelage.data import HeldOutUsers, InteractionSamples
from tutelage.errors import UserError
from tutelage.io import read_json, write_json, write_tensors
from tutelage.models import ScoreFunction
from tutelage.models.recommendation import Interactions
from tutelage.tasks import Recommendation
from tutelage.tasks.recommendation import bpr_loss, row_norms
from tutelage.tasks.recommendation.export import read_recommender, write_recommender
from tutelage.tasks.recommendation.task import evaluation_groups

CASES = [name for name in cases("unkd") if name.startswith("bpr")]


def integers(key: str) -> Tensor:
    return tensor("unkd", key, torch.int64)


@pytest.mark.parametrize("name", CASES)
def test_the_loss_is_that_of_the_official_code(name: str) -> None:
    """Its logarithm has 1e-10 in it, which is far below these scores."""
    case = cases("unkd")[name]
    users, items = (
        tensor("unkd", f"{name}_{side}_emb").requires_grad_() for side in ("user", "item")
    )
    rows, positives, negatives = (integers(f"{name}_{key}") for key in ("users", "pos", "neg"))
    differences = (users[rows] * (items[positives] - items[negatives])).sum(1)
    expected = {key: float(tensor("unkd", f"{name}_{key}")) for key in ("bpr", "reg", "total")}
    official = -(torch.sigmoid(differences) + 1e-10).log().mean()
    norms = row_norms(users[rows], items[positives], items[negatives])
    assert official.item() == pytest.approx(expected["bpr"], rel=1e-12)
    assert norms.item() == pytest.approx(expected["reg"], rel=1e-12)
    total = official + case["decay"] * norms
    total_with_kd = total + case["kd_weight"] * tensor("unkd", f"{name}_kd_loss")
    assert total_with_kd.item() == pytest.approx(expected["total"], rel=1e-12)
    for leaf, side in ((users, "user"), (items, "item")):
        gradient = torch.autograd.grad(total, leaf, retain_graph=True)[0]
        expected_gradient = tensor("unkd", f"{name}_grad_{side}")
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-12, atol=1e-14)
    # The task's own form has the logarithm of the sigmoid in one.
    assert bpr_loss(differences).item() == pytest.approx(expected["bpr"], rel=1e-7)
    batch = Batch({"inputs": rows, "positives": positives, "negatives": negatives})
    output = {"users": users[rows], "items": items}
    own = Recommendation(decay=case["decay"]).loss(output, batch)
    assert own.item() == pytest.approx(total.item(), rel=1e-7)


def evaluate(network: torch.nn.Module, block: int, held: Interactions) -> dict[str, float]:
    parts = {"test": held_out_users(held)}

    def batches(samples: HeldOutUsers) -> list[Batch]:
        keys = [(0, position) for position in range(len(samples))]
        return [samples.batch(keys[i : i + block]) for i in range(0, len(keys), block)]

    with torch.no_grad():
        return Recommendation().evaluate(network, parts, Evaluation("test", batches))


def held_out() -> Interactions:
    """Return two items of the first users that they do not have in training."""
    known = interactions()
    pairs = [
        (user, item)
        for user in range(20)
        for item in [item for item in range(150) if not _has(known, user, item)][:2]
    ]
    users, items = torch.tensor(pairs).unbind(1)
    return Interactions.of_pairs(users, items, 24, 150)


def held_out_users(held: Interactions) -> HeldOutUsers:
    return HeldOutUsers((held.user_counts > 0).nonzero().flatten(), interactions(), held)


def _has(known: Interactions, user: int, item: int) -> bool:
    return bool(known.contains(torch.tensor(user), torch.tensor(item)))


def test_evaluation_does_not_depend_on_the_block_and_finds_what_is_scored_highest() -> None:
    student, _ = recommenders()
    held = held_out()
    whole = evaluate(student, 100, held)
    assert evaluate(student, 7, held) == pytest.approx(whole, rel=1e-12)
    assert whole["num_samples"] == 20

    def perfect(users: Tensor) -> Tensor:
        scores = torch.zeros(len(users), 150)
        rows, items = held.of_users(users)
        scores[rows, items] = 1.0
        known = interactions().of_users(users)
        scores[known] = 2.0  # training items are left out, whatever their scores
        return scores

    best = evaluate(ScoreFunction(perfect), 7, held)
    assert best["recall@10"] == best["ndcg@20"] == 1.0


def test_a_popular_item_with_more_than_half_of_all_interactions() -> None:
    users = torch.cat([torch.arange(20), torch.tensor([0, 1, 2])])
    items = torch.cat([torch.zeros(20, dtype=torch.int64), torch.tensor([1, 2, 3])])
    groups = evaluation_groups(Interactions.of_pairs(users, items, 20, 5))
    assert groups.tolist() == [0, 1, 1, 1, -1]


def test_what_is_deployed_ranks_as_the_network(tmp_path: Path) -> None:
    student, _ = recommenders()
    known = interactions()
    write_recommender(student, known, tmp_path)
    found = read_recommender(tmp_path).top("3", 5)
    scores = student(torch.tensor([3]))
    ranked = Recommendation().rank(scores["users"] @ scores["items"].T, torch.tensor([3]), known)
    assert [int(item) for item, _ in found] == ranked[0, :5].tolist()
    every = read_recommender(tmp_path).top("3", 500, with_known=True)
    assert len(every) == 150
    assert len(read_recommender(tmp_path).top("3", 500)) == 150 - 9


def test_what_a_user_has_is_not_recommended_whether_it_was_held_out_or_not(tmp_path: Path) -> None:
    student, _ = recommenders()
    part = held_out_users(held_out())
    task = Recommendation()
    task.export(student, {"train": InteractionSamples(interactions()), "test": part}, tmp_path)
    found = {item["id"] for item in task.predictor(tmp_path, 150)("0").record["items"]}
    known = [*interactions().of_users(torch.tensor([0]))[1], *held_out().items[:2]]
    assert found == set(map(str, range(150))) - {str(int(item)) for item in known}


def test_chance_is_that_of_a_random_ranking_of_these_items() -> None:
    held = held_out()
    generator = torch.Generator().manual_seed(0)
    random = ScoreFunction(lambda users: torch.rand(len(users), 150, generator=generator))
    scores = [evaluate(random, 7, held)["ndcg@20"] for _ in range(200)]
    chance = Recommendation().chance_level_on(held_out_users(held))
    assert chance == pytest.approx(sum(scores) / 200, rel=0.05)
    assert chance > 0.02
    assert Recommendation().chance_level_on([]) == Recommendation().chance_level() == 0


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ({"items": torch.zeros(150, 3)}, r"shapes \(.*\) and \(150, 3\)"),
        ({"users": torch.full((24, 4), torch.nan), "items": torch.zeros(150, 4)}, "NaN"),
        ({"known_items": torch.full((216,), 150, dtype=torch.int32)}, "lists of what users have"),
        ({"known_offsets": torch.zeros(3, dtype=torch.int64)}, "lists of what users have"),
    ],
)
def test_damaged_tables_are_refused(damage: dict[str, Tensor], says: str, tmp_path: Path) -> None:
    student, _ = recommenders()
    write_recommender(student, interactions(), tmp_path)
    path = tmp_path / "recommender.safetensors"
    write_tensors(path, {**load_file(path), **damage})
    with pytest.raises(UserError, match=rf"recommender\.safetensors is damaged, .*{says}"):
        read_recommender(tmp_path)


def test_an_id_twice_is_refused(tmp_path: Path) -> None:
    student, _ = recommenders()
    write_recommender(student, interactions(), tmp_path)
    ids = read_json(tmp_path / "ids.json", "")
    write_json(tmp_path / "ids.json", {**ids, "items": ["7"] * 150})
    with pytest.raises(UserError, match=r"ids\.json names a user or an item twice"):
        read_recommender(tmp_path)


def test_mistakes_are_named() -> None:
    student, _ = recommenders()
    with pytest.raises(UserError, match=r"task\.decay is a finite number from 0 on, got -1"):
        Recommendation(decay=-1)
    with pytest.raises(UserError, match=r"task\.topks are .* with 20 among them, .* got \[5\]"):
        Recommendation(topks=[5])
    task = Recommendation()
    batch = InteractionSamples(interactions()).batch([(0, 0), (0, 1)])
    with pytest.raises(UserError, match=r"gives no factors"):
        task.loss(torch.zeros(2, 150), batch)
    with pytest.raises(UserError, match=r"has no positives and negatives"):
        task.loss(student(batch.inputs), Batch({"inputs": batch.inputs}))
    run = Evaluation("test", lambda samples: [])
    with pytest.raises(UserError, match=r"the test data \(list\) has no held-out items"):
        task.evaluate(student, {"test": []}, run)
    broken = ScoreFunction(lambda users: torch.full((len(users), 150), torch.nan))
    with pytest.raises(UserError, match=r"scores hold NaN or infinity"):
        evaluate(broken, 7, held_out())
    few = ScoreFunction(lambda users: torch.zeros(len(users), 7))
    with pytest.raises(UserError, match=r"scores 7 items, but the data has 150"):
        evaluate(few, 7, held_out())


def test_a_teacher_is_not_run_in_a_step_unless_its_layers_are_read() -> None:
    student, network = recommenders()
    calls: list[int] = []
    network.register_forward_hook(lambda *call: calls.append(1))
    teacher = Recommendation().connect_teacher(FrozenTeacher(network), student)
    batch = InteractionSamples(interactions()).batch([(0, 0), (0, 1)])
    assert teacher.with_taps(())(batch, (batch.inputs,)).output is None
    assert not calls
    assert list(teacher.models()) == ["teacher"]
