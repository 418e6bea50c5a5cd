"""A batch in pieces: the gradients of the whole batch, with memory for a piece."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.methods.harness import flat_gradient
from tutelage import (
    KD,
    RCKA,
    Batch,
    Classification,
    CombinedMethod,
    Distiller,
    FrozenTeacher,
    GradientCap,
    NoTeacher,
    Task,
    UserError,
)
from tutelage.methods import Baseline


def batch_of(count: int = 12) -> Batch:
    generator = torch.Generator().manual_seed(1)
    return Batch(
        {
            "inputs": torch.randn(count, 6, generator=generator),
            "labels": torch.arange(count) % 3,
            "ids": torch.arange(count),
        }
    )


def distiller_of(student: nn.Module, accumulate: int, **layers: Any) -> Distiller:
    torch.manual_seed(0)
    teacher = FrozenTeacher(nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 3)))
    method = CombinedMethod([KD(), RCKA({"0": "0"}, ramp=None)])
    distiller = Distiller(student, teacher, method, Classification(3), accumulate=accumulate)
    distiller.setup(batch_of())
    return distiller


def network(*middle: nn.Module) -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 8), *middle, nn.Linear(8, 3))


@pytest.mark.parametrize("accumulate", [2, 3, 5])  # of 12 items: also pieces of unequal size
def test_the_terms_and_gradients_are_those_of_the_whole_batch(accumulate: int) -> None:
    whole = distiller_of(network(), 1)
    pieces = distiller_of(network(), accumulate)
    terms = whole(batch_of())
    in_pieces = pieces(batch_of())
    assert list(terms) == list(in_pieces)
    for name, term in terms.items():
        torch.testing.assert_close(in_pieces[name], term)
    torch.stack(list(terms.values())).sum().backward()
    torch.stack(list(in_pieces.values())).sum().backward()
    torch.testing.assert_close(flat_gradient(pieces), flat_gradient(whole))


def test_a_gradient_cap_measures_the_whole_batch() -> None:
    caps = []
    for accumulate in (1, 4):
        distiller = distiller_of(network(), accumulate)
        cap = GradientCap(distiller)
        for _ in range(2):
            cap(distiller(batch_of())).backward()
        caps.append((cap, flat_gradient(distiller)))
    (whole, expected), (pieces, gradient) = caps
    for name in ("weight", "ratio", "cosine"):
        torch.testing.assert_close(getattr(pieces, name), getattr(whole, name))
    torch.testing.assert_close(gradient, expected)


class Watched(nn.Module):
    """Counts the items whose activations are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = 0
        self.most = 0

    def forward(self, x: Tensor) -> Tensor:
        return Watch.apply(x, self)


class Watch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, owner: Watched) -> Tensor:
        ctx.save_for_backward(Activation.of(x, owner))
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        assert len(ctx.saved_tensors[0]) == len(grad)
        return grad, None


class Activation:
    @staticmethod
    def of(x: Tensor, owner: Watched) -> Tensor:
        """Return a copy of a tensor that its owner counts as long as anything holds it."""
        saved = x.detach().clone()
        owner.alive += len(x)
        owner.most = max(owner.most, owner.alive)

        def forget(count: int = len(x)) -> None:
            owner.alive -= count

        weakref.finalize(saved.untyped_storage(), forget)
        return saved


def test_the_activations_of_one_piece_are_alive_at_a_time() -> None:
    most = []
    for accumulate in (1, 4):
        watched = Watched()
        distiller = distiller_of(network(watched), accumulate)
        watched.most = 0
        sum(distiller(batch_of()).values()).backward()
        most.append(watched.most)
    assert most == [12, 3]


def test_dropout_draws_the_same_numbers_in_both_passes() -> None:
    """The gradient is that of the loss whose value was computed."""
    student = network(nn.Dropout(0.5))
    distiller = distiller_of(student, 3)
    distiller(batch_of())  # finds out how outputs are joined
    torch.manual_seed(5)
    sum(distiller(batch_of()).values()).backward()
    after = torch.rand(1)
    found = flat_gradient(student)
    student.zero_grad()
    torch.manual_seed(5)
    outputs = []
    features = []
    for piece in batch_of().split(3):
        features.append(student[0](piece.inputs))
        outputs.append(student[2](student[1](features[-1])))
    assert torch.equal(torch.rand(1), after)
    step = distiller.step(batch_of())
    joined = {"0": torch.cat(features)}
    own = type(step.student)(torch.cat(outputs), joined, "student")
    by_hand = type(step)(own, step.teacher, step.batch, step.task_loss)
    loss = sum(distiller.method(by_hand).values())
    loss = loss + distiller.method.task_weight * step.task_loss(own.output)
    loss.backward()
    torch.testing.assert_close(found, flat_gradient(student))


def test_running_statistics_count_each_piece_once() -> None:
    student = network(nn.BatchNorm1d(8))
    expected = network(nn.BatchNorm1d(8))
    distiller = distiller_of(student, 3)
    for _ in range(2):
        terms = distiller(batch_of())
        loss = torch.stack(list(terms.values())).sum()
        torch.autograd.grad(loss, list(student.parameters()), retain_graph=True)
        loss.backward()
        for piece in batch_of().split(3):
            expected(piece.inputs)
    assert int(student[1].num_batches_tracked) == 6
    for name, value in expected.named_buffers():
        torch.testing.assert_close(dict(student.named_buffers())[name], value)


class Tables(nn.Module):
    """Gives rows, a table that does not depend on the batch, a loss of its own, and texts."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3)
        self.table = nn.Parameter(torch.randn(12, 3))

    def forward(self, x: Tensor) -> dict[str, Any]:
        rows = self.linear(x)
        each = [row.sum() for row in rows]
        return {
            "logits": rows,
            "items": self.table,
            "losses": (rows.square().mean(), {"each": each}),
            "name": "tables",
            "counts": torch.tensor([4, 5]),
        }


class Everything(Task):
    """Uses all that `Tables` gives."""

    monitor = "loss"

    def inputs(self, batch: Batch) -> tuple[Any, ...]:
        return (batch.inputs,)

    def loss(self, output: Any, batch: Batch) -> Tensor:
        scores = output["logits"] @ output["items"].mT
        total = nn.functional.cross_entropy(scores, batch.labels)
        assert output["name"] == "tables"
        assert output["counts"].tolist() == [4, 5]
        return total + output["losses"][0] + torch.stack(output["losses"][1]["each"]).std()

    def metrics(self) -> Any:
        raise NotImplementedError

    def chance_level(self) -> float:
        return 0.0


@pytest.mark.parametrize("accumulate", [2, 5])
def test_tables_losses_and_lists_are_joined_as_what_they_are(accumulate: int) -> None:
    gradients = []
    for count in (1, accumulate):
        torch.manual_seed(0)
        student = Tables()
        distiller = Distiller(student, NoTeacher(), Baseline(), Everything(), accumulate=count)
        distiller.setup(batch_of())
        (loss,) = distiller(batch_of()).values()
        loss.backward()
        gradients.append(torch.cat([loss.detach().view(1), flat_gradient(student)]))
    torch.testing.assert_close(*gradients)


class Growing(nn.Module):
    """Pads to the longest of a piece, as detectors and tokenizers do."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad(self.linear(x), (0, int(x[:, 0].sum() > 0)))


def test_outputs_that_cannot_be_joined_are_named() -> None:
    class Any3(Classification):
        def logits(self, output: Any) -> Tensor:
            return output[:, :3]

    distiller = Distiller(Growing(), NoTeacher(), Baseline(), Any3(3), accumulate=2)
    batch = batch_of(4).with_fields({"inputs": torch.tensor([[1.0], [1], [-1], [-1]]).expand(4, 6)})
    message = r"the student's output has other sizes in each piece .*\(2, 4\), \(2, 3\)"
    with pytest.raises(UserError, match=message):
        distiller(batch)


def test_too_many_pieces_are_refused() -> None:
    distiller = distiller_of(network(), 13)
    with pytest.raises(UserError, match="12 items cannot be split into 13 pieces; take fewer"):
        distiller(batch_of())
    with pytest.raises(UserError, match="accumulate is a number of pieces, at least 1, got 0"):
        distiller_of(network(), 0)


@pytest.mark.parametrize("count", [12, 10, 7])
def test_pieces_of_two_or_fewer_have_no_smaller_trial(count: int) -> None:
    # Batch norm fails with one item; six pieces of 7 items are of 2 and of 1.
    norm = [nn.BatchNorm1d(8)] if count == 12 else []
    distiller = distiller_of(network(*norm), 6)
    distiller(batch_of(count))


def test_another_student_is_joined_anew() -> None:
    distiller = distiller_of(network(), 3)
    distiller(batch_of())
    distiller.student = network(nn.Tanh())
    terms = distiller(batch_of())
    whole = distiller_of(network(nn.Tanh()), 1)(batch_of())
    for name, term in whole.items():
        torch.testing.assert_close(terms[name], term)


def test_fields_with_several_rows_an_item_are_cut_at_the_items() -> None:
    batch = Batch(
        {
            "inputs": {"queries": ["a", "b", "c"], "lengths": torch.tensor([1, 2, 3])},
            "ids": torch.arange(3),
            "documents": torch.arange(6),
            "of_two": torch.arange(2),
            "count": 2,
        }
    )
    first, second = batch.split(2)
    assert first.inputs["queries"] == ["a", "b"]
    assert second.inputs["queries"] == ["c"]
    assert (first["documents"].tolist(), second["documents"].tolist()) == ([0, 1, 2, 3], [4, 5])
    assert (first["of_two"].tolist(), second["of_two"].tolist()) == ([0], [1])
    assert first["count"] == second["count"] == 2
