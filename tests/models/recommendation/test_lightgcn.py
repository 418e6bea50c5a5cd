"""LightGCN against the official code of UnKD and a dense product."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor

from tests.helpers.vectors import cases, tensor
from tutelage.core import Batch
from tutelage.errors import UserError
from tutelage.models import BPRMF, LightGCN
from tutelage.models.recommendation import Interactions, item_scores
from tutelage.tasks.recommendation import Recommendation, bpr_loss, row_norms

CASES = [name for name in cases("unkd") if name.startswith("lightgcn")]


def csr(name: str, num_items: int, part: str = "train") -> Interactions:
    """Return the lists of a case."""
    return Interactions(
        tensor("unkd", f"{name}_{part}_ptr", torch.int64),
        tensor("unkd", f"{name}_{part}_idx", torch.int64),
        num_items,
    )


def network_of(name: str) -> LightGCN:
    case = cases("unkd")[name]
    network = LightGCN(dim=case["dim"], layers=case["layers"])
    network.set_interactions(csr(name, case["n_items"]))
    with torch.no_grad():
        network.user_table.copy_(tensor("unkd", f"{name}_user_emb"))
        network.item_table.copy_(tensor("unkd", f"{name}_item_emb"))
    return network.double()


def numbers(name: str, key: str) -> Tensor:
    return tensor("unkd", f"{name}_{key}", torch.int64)


@pytest.mark.parametrize("name", CASES)
def test_propagation_is_that_of_the_official_code(name: str) -> None:
    network = network_of(name)
    users, items = network.propagated()
    close = torch.testing.assert_close
    close(users, tensor("unkd", f"{name}_prop_user"), rtol=1e-12, atol=1e-14)
    close(items, tensor("unkd", f"{name}_prop_item"), rtol=1e-12, atol=1e-14)
    users, items = network.float().propagated()
    close(users.double(), tensor("unkd", f"{name}_prop_user_official_f32"), rtol=1e-5, atol=1e-6)
    close(items.double(), tensor("unkd", f"{name}_prop_item_official_f32"), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_bpr_and_its_regularization_are_those_of_the_official_code(name: str) -> None:
    network = network_of(name)
    users, positives, negatives = (numbers(name, key) for key in ("users", "pos", "neg"))
    output = network(users)
    bpr = bpr_loss(item_scores(output, positives[:, None], minus=negatives[:, None]))
    table = output["item_rows"]
    reg = row_norms(output["user_rows"], table[positives], table[negatives])
    assert bpr.item() == pytest.approx(float(tensor("unkd", f"{name}_bpr")), rel=1e-12)
    assert reg.item() == pytest.approx(float(tensor("unkd", f"{name}_reg")), rel=1e-12)
    official = float(tensor("unkd", f"{name}_reg_official_f32"))
    assert reg.item() == pytest.approx(official, rel=1e-5)
    batch = Batch({"inputs": users, "positives": positives, "negatives": negatives})
    total = Recommendation(decay=0.5).loss(output, batch)
    assert total.item() == pytest.approx((bpr + 0.5 * reg).item(), rel=1e-12)


def test_the_gradient_is_that_of_a_dense_product() -> None:
    network = network_of(CASES[1])
    graph = network._graph
    assert graph is not None
    half = graph.to_users.to_dense()
    num_users, num_items = half.shape
    dense = torch.zeros(num_users + num_items, num_users + num_items, dtype=torch.float64)
    dense[:num_users, num_users:] = half
    dense[num_users:, :num_users] = half.T
    tables = torch.cat([network.user_table, network.item_table])
    expected = (tables + dense @ tables + dense @ dense @ tables) / 3
    users, items = network.propagated()
    rows = torch.cat([users, items])
    torch.testing.assert_close(rows, expected)
    weights = torch.randn_like(rows)
    parameters = [network.user_table, network.item_table]
    own = torch.autograd.grad((rows * weights).sum(), parameters)
    dense_gradient = torch.autograd.grad((expected * weights).sum(), parameters)
    for one, other in zip(own, dense_gradient, strict=True):
        torch.testing.assert_close(one, other)


def test_the_graph_is_in_no_state_and_survives_a_copy() -> None:
    network = network_of(CASES[0])
    assert sorted(network.state_dict()) == ["item_table", "user_table"]
    copied = pickle.loads(pickle.dumps(network))
    assert torch.equal(copied.propagated()[0], network.propagated()[0])


def test_a_deep_copy_propagates_alike_and_trains_alone() -> None:
    network = network_of(CASES[0])
    users = torch.tensor([0, 1])
    first = network(users)["items"].detach()
    copied = copy.deepcopy(network)
    assert torch.equal(copied(users)["items"], first)
    with torch.no_grad():
        copied.item_table.zero_()
        copied.user_table.zero_()
    assert torch.equal(network(users)["items"], first)


def test_an_item_that_nobody_has_stays_near_its_table() -> None:
    network = LightGCN(dim=3, layers=2)
    held = Interactions.of_pairs(torch.tensor([0, 1]), torch.tensor([0, 0]), 2, 3)
    network.set_interactions(held)
    torch.testing.assert_close(network(torch.tensor([0]))["items"][2], network.item_table[2] / 3)


def test_the_tables_do_not_depend_on_what_is_drawn_after_the_network_is_made() -> None:
    held = Interactions.of_pairs(torch.tensor([0, 1]), torch.tensor([0, 2]), 2, 3)
    tables = []
    for draws in (0, 5):
        torch.manual_seed(3)
        network = BPRMF(dim=4)
        torch.rand(draws)
        network.set_interactions(held)
        tables.append(network.item_table)
    torch.manual_seed(3)
    tables.append(BPRMF(2, 3, 4).item_table)
    assert torch.equal(tables[0], tables[1])
    assert torch.equal(tables[0], tables[2])


def test_mistakes_are_named() -> None:
    held = Interactions.of_pairs(torch.tensor([0]), torch.tensor([0]), 2, 3)
    with pytest.raises(UserError, match=r"has no graph yet; call set_interactions"):
        LightGCN(2, 3)(torch.tensor([0]))
    with pytest.raises(UserError, match=r"has 5 users and 3 items, but the data has 2 and 3"):
        BPRMF(5, 3).set_interactions(held)
    with pytest.raises(UserError, match=r"does not know how many users"):
        BPRMF()(torch.tensor([0]))
    with pytest.raises(UserError, match=r"takes user numbers \(B,\) int64"):
        BPRMF(2, 3)(torch.zeros(2, 3))
    with pytest.raises(UserError, match=r"dim of BPRMF is a whole number from 1 on, got 0"):
        BPRMF(2, 3, 0)
    with pytest.raises(UserError, match=r"layers of LightGCN .* got -1"):
        LightGCN(layers=-1)
    with pytest.raises(UserError, match=r"both num_users and num_items"):
        LightGCN(num_users=3)
