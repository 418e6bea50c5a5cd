"""What every method promises, checked on all of them. A new method adds one line to EXAMPLES."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import tutelage.methods
from tutelage import (
    AFD,
    CKD,
    DIST,
    DKD,
    KD,
    OFA,
    PCKA,
    RCKA,
    RTK,
    SRD,
    SSIM,
    Absent,
    Alone,
    Classification,
    Distiller,
    Method,
    Mimic,
    Network,
    ResidualKD,
    Together,
    UserError,
)
from tutelage.engine.preflight import buffers_hash
from tutelage.methods.budget import Budget
from tutelage.methods.residual_scheme import Scheme
from tutelage.models import small_cnn

PAIRS = {"stage2": "stage2", "stage3": "stage3"}
EXAMPLES: dict[str, Callable[[], Method]] = {
    "alone": Alone,
    "kd": KD,
    "kd hard": lambda: KD(hard=True),
    "dkd": DKD,
    "dist": DIST,
    "ckd": CKD,
    "ckd learnt": lambda: CKD(symmetric=True, mask_same_class=True, learn_temperature=True),
    "rcka": lambda: RCKA(pairs=PAIRS),
    "rcka centred": lambda: RCKA(pairs=PAIRS, center=True),
    "mimic": lambda: Mimic(pairs=PAIRS),
    "ssim": lambda: SSIM(pairs=PAIRS),
    "pcka": lambda: PCKA(pairs=PAIRS, patch=4, inter=10.0),
    "pcka centred": lambda: PCKA(pairs=PAIRS, patch="auto", center=True, inter=10.0),
    "ofa": OFA,
    "ofa branches": lambda: OFA({"stage1": 2, "stage2": 3, "stage3": 4}, gamma=1.3),
    "srd": SRD,
    "srd kl": lambda: SRD(distance="kl", feature_weight=10.0, maps=True),
    "afd": AFD,
    "rtk": RTK,
    "rtk covering": lambda: RTK(distance="mean", top_k=None, coverage=0.5),
    "residual": lambda: ResidualKD(pairs=PAIRS),
    "residual stagewise": lambda: ResidualKD(pairs=PAIRS, scheme=Scheme("stagewise"), task_weight=0.0),
    "residual end to end": lambda: ResidualKD(
        pairs=PAIRS, budget=Budget(assistants=2), scheme=Scheme("end_to_end"), distance="attention", classifier=None
    ),
    "together": lambda: Together([KD(), RCKA(pairs=PAIRS), Mimic(pairs={"stage1": "stage1"})]),
}
ASSISTANTS = {"residual": 1, "residual stagewise": 1, "residual end to end": 2}
METHODS = [
    vars(tutelage.methods)[name]
    for name in tutelage.methods.__all__
    if inspect.isclass(vars(tutelage.methods)[name]) and issubclass(vars(tutelage.methods)[name], Method)
]


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.rand(12, 1, 28, 28, generator=generator), torch.randint(10, (12,), generator=generator)


def distil(name: str) -> Distiller:
    torch.manual_seed(0)
    student, teacher = small_cnn(width=8, channels=1), small_cnn(width=16, channels=1)
    method, told = EXAMPLES[name](), Network(teacher)
    distiller = Distiller(method.grow(student, told), told, method, Classification(num_classes=10))
    distiller.setup(batch())
    return distiller


def test_every_method_has_an_example() -> None:
    assert {type(make()) for make in EXAMPLES.values()} >= set(METHODS)


@pytest.mark.parametrize("name", EXAMPLES)
def test_terms_are_finite_named_scalars_that_reach_the_student(name: str) -> None:
    distiller = distil(name)
    terms = distiller(batch(), progress=1.0)
    for term, value in terms.items():
        assert value.ndim == 0, term
        assert torch.isfinite(value), term
        gradients = torch.autograd.grad(
            value, list(distiller.student.parameters()), allow_unused=True, retain_graph=True
        )
        assert sum(float(g.abs().sum()) for g in gradients if g is not None) > 0, term
        assert all(torch.isfinite(g).all() for g in gradients if g is not None), term


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_trainable_part_of_the_method_is_trained(name: str) -> None:
    distiller = distil(name)
    sum(distiller(batch(), progress=1.0).values()).backward()
    for part, parameter in distiller.method.named_parameters():
        assert parameter.grad is not None, part
        assert parameter.grad.abs().sum() > 0, part


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_teacher_stays_as_it_was(name: str) -> None:
    distiller = distil(name)
    if not distiller.method.listens:
        assert isinstance(distiller.teacher, Absent)
        return
    assert isinstance(distiller.teacher, Network)
    teacher = distiller.teacher.network
    before = buffers_hash(teacher)
    optimizer = torch.optim.SGD(distiller.parameters(), lr=0.1)
    for _ in range(2):
        sum(distiller.train()(batch(), progress=1.0).values()).backward()
        optimizer.step()
    assert buffers_hash(teacher) == before
    assert not any(module.training for module in teacher.modules())
    assert all(parameter.grad is None for parameter in teacher.parameters())


@pytest.mark.parametrize("name", EXAMPLES)
def test_one_batch_gives_one_value(name: str) -> None:
    distiller = distil(name).eval()
    first, second = (torch.stack(list(distiller(batch(), progress=0.6).values())) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("name", EXAMPLES)
def test_autocast_changes_little(name: str) -> None:
    distiller = distil(name).eval()
    exact = distiller(batch(), progress=1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = distiller(batch(), progress=1.0)
    for term, value in exact.items():
        assert rounded[term].isfinite()
        assert float(rounded[term].detach()) == pytest.approx(float(value.detach()), rel=0.05, abs=0.05), term


@pytest.mark.parametrize("name", EXAMPLES)
def test_trainable_parts_and_buffers_survive_a_checkpoint(name: str) -> None:
    first, second = distil(name).eval(), distil(name).eval()
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    second.load_state_dict(first.state_dict())
    for term, value in first(batch(), progress=1.0).items():
        assert torch.equal(second(batch(), progress=1.0)[term], value), term


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_shipped_student_has_only_its_own_weights(name: str) -> None:
    distiller = distil(name)
    shipped = distiller.ship()
    assert isinstance(shipped, nn.Module)
    own, count = small_cnn(width=8, channels=1), ASSISTANTS.get(name)
    expected = set(own.state_dict())
    if count is not None:  # residual distillation deploys the student with its assistants, for the student's price
        members = ["student", *(f"assistants.{k}" for k in range(count))]
        expected = {f"{member}.{key}" for member in members for key in expected}
        assert sum(p.numel() for p in shipped.parameters()) <= sum(p.numel() for p in own.parameters())
    assert set(shipped.state_dict()) == expected
    assert not any(module._forward_hooks for module in shipped.modules())


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_repr_is_the_configuration_and_a_copy_is_whole(name: str) -> None:
    method = EXAMPLES[name]()
    assert repr(copy.deepcopy(method)) == repr(method)


@pytest.mark.parametrize("method", METHODS)
def test_every_default_constructs_and_is_shown(method: type[Method]) -> None:
    parameters = inspect.signature(method).parameters
    needed = {n: PAIRS for n, p in parameters.items() if p.default is inspect.Parameter.empty}
    assert set(needed) <= {"pairs"}
    made = method(**needed)
    for name in parameters:
        assert f"{name}=" in repr(made)


@pytest.mark.parametrize("make", [lambda pairs: RCKA(pairs=pairs), lambda pairs: Mimic(pairs=pairs)])
def test_a_wrong_layer_is_named_with_its_neighbours(make: Callable[[dict[str, str]], Method]) -> None:
    student, teacher, task = small_cnn(width=8, channels=1), small_cnn(width=16, channels=1), Classification(10)
    with pytest.raises(UserError, match=r"no module 'stage9' in \w+; did you mean \['stage"):
        Distiller(student, Network(teacher), make({"stage9": "stage2"}), task)
    with pytest.raises(UserError, match=r"no module 'stage9' in \w+; did you mean \['stage"):
        Distiller(student, Network(teacher), make({"stage2": "stage9"}), task)
