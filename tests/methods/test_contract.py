"""What every method promises, checked on all of them.

A method's test module defines what is checked here, each a dict of name → function without
arguments that returns a new method:

    EXAMPLES         methods for the two small CNNs of `harness.distill`, or for the networks of
                     the module's own `SETTING`
    RANK_EXAMPLES    methods for the networks of `harness.linear_distiller`, whose two ranks give
                     the gradient of one process with the joined batch
    SHARE_EXAMPLES   the same, whose two ranks give the mean gradient of the two shares
    RECOMMENDER_EXAMPLES     methods that rank the items of users, checked in
                     test_recommender_contract
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import importlib
import inspect
import pickle
import pkgutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tests.methods
import tutelage.methods
from tests.methods.harness import (
    IMAGES,
    LAYER_PAIRS,
    assert_close,
    distill,
    gradients_on_rank,
    image_batch,
    linear_batch,
    linear_gradient,
    two_ranks,
)
from tutelage.core import CombinedMethod, Distiller, FrozenTeacher, Method, NoTeacher
from tutelage.errors import UserError
from tutelage.methods import KD, RCKA, FitNet
from tutelage.models import small_cnn
from tutelage.tasks import Classification, MultiLabelClassification

MakeMethod = Callable[[], Method]
Loss = Callable[..., Any]

WIRING = {"layer_pairs", "student_layers", "teacher_layers", "stages", "shares"}
"""The constructor's arguments that may be given by position: where a method is attached."""


MODULES = [
    importlib.import_module(info.name)
    for info in pkgutil.walk_packages(tests.methods.__path__, "tests.methods.")
    if info.name.rpartition(".")[2].startswith("test_") and not info.name.endswith("_contract")
]


def collect(attribute: str) -> dict[str, MakeMethod]:
    """Return the examples of all test modules of methods, by name."""
    examples: dict[str, MakeMethod] = {}
    for module in MODULES:
        for name, make in getattr(module, attribute, {}).items():
            assert name not in examples, f"two test modules have an example {name!r}"
            examples[name] = make
    return examples


EXAMPLES = collect("EXAMPLES") | {
    "combined": lambda: CombinedMethod([KD(), RCKA(LAYER_PAIRS), FitNet({"stage1": "stage1"})])
}
SETTINGS = {"combined": IMAGES} | {
    name: getattr(module, "SETTING", IMAGES)
    for module in MODULES
    for name in getattr(module, "EXAMPLES", {})
}
RECOMMENDER_EXAMPLES = collect("RECOMMENDER_EXAMPLES")
RANK_EXAMPLES = collect("RANK_EXAMPLES")
SHARE_EXAMPLES = collect("SHARE_EXAMPLES")

PUBLIC = [getattr(tutelage.methods, name) for name in tutelage.methods.__all__]
METHODS: list[type[Method]] = [thing for thing in PUBLIC if inspect.isclass(thing)]
LOSSES: list[Loss] = [thing for thing in PUBLIC if thing.__name__.endswith("_loss")]

every_example = pytest.mark.parametrize("name", EXAMPLES)
every_method = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)
every_loss = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)


def example(name: str) -> Distiller:
    return distill(EXAMPLES[name](), setting=SETTINGS[name])


def batch_of(name: str) -> tuple[Tensor, Tensor]:
    return SETTINGS[name].batch()


def paper_of(thing: Any) -> str:
    """Return the module or folder below `methods` that a class or function is from."""
    return thing.__module__.split(".")[2]


# ---- a method in training ----


def test_every_method_has_an_example() -> None:
    examples = [*EXAMPLES.values(), *RECOMMENDER_EXAMPLES.values()]
    assert {type(make()) for make in examples} >= set(METHODS)


@every_example
def test_terms_are_finite_named_scalars_that_reach_the_student(name: str) -> None:
    distiller = example(name)
    terms = distiller(batch_of(name), progress=1.0)
    for term, value in terms.items():
        assert value.ndim == 0, term
        assert torch.isfinite(value), term
        gradients = torch.autograd.grad(
            value, list(distiller.student.parameters()), allow_unused=True, retain_graph=True
        )
        assert sum(float(g.abs().sum()) for g in gradients if g is not None) > 0, term
        assert all(torch.isfinite(g).all() for g in gradients if g is not None), term


@every_example
def test_every_trainable_part_of_the_method_is_trained(name: str) -> None:
    distiller = example(name)
    sum(distiller(batch_of(name), progress=1.0).values()).backward()
    for part, parameter in distiller.method.named_parameters():
        assert parameter.grad is not None, part
        assert parameter.grad.abs().sum() > 0, part


SEVERAL_LABELS = dataclasses.replace(
    IMAGES,
    batch=lambda: (image_batch()[0], (torch.arange(120).reshape(12, 10) % 3 == 0).float()),
    task=lambda: MultiLabelClassification(num_classes=10),
)
ONE_CLASS = {"CKD", "DIST", "DKD", "KD", "OFA", "SRD", "CombinedMethod"}


@pytest.mark.parametrize(
    "make",
    [make for name, make in EXAMPLES.items() if SETTINGS[name] is IMAGES]
    + [lambda: RCKA(soften="intra")],
    ids=[name for name in EXAMPLES if SETTINGS[name] is IMAGES] + ["rcka softened"],
)
def test_a_method_trains_with_several_labels_an_item_or_refuses_them(make: MakeMethod) -> None:
    method = make()
    if type(method).__name__ in ONE_CLASS or getattr(method, "soften", None):
        with pytest.raises(UserError, match="reads logits as those of one class an item, but"):
            distill(method, setting=SEVERAL_LABELS)
        return
    distiller = distill(method, setting=SEVERAL_LABELS)
    parameters = list(distiller.parameters())
    before = [parameter.detach().clone() for parameter in parameters]
    optimizer = torch.optim.SGD(parameters, lr=0.01)
    terms = distiller(SEVERAL_LABELS.batch(), progress=1.0)
    assert all(bool(term.isfinite()) for term in terms.values())
    sum(terms.values()).backward()
    optimizer.step()
    assert any(not torch.equal(a, b) for a, b in zip(before, parameters, strict=True))


@every_example
def test_a_student_in_double_precision_trains(name: str) -> None:
    images, labels = batch_of(name)
    batch = images.double(), labels
    setting = SETTINGS[name]
    distiller = distill(
        EXAMPLES[name](),
        student=setting.student().double(),
        teacher=setting.teacher().double(),
        batch=batch,
        setting=setting,
    )
    terms = distiller(batch, progress=1.0)
    torch.stack(list(terms.values())).sum().backward()
    # The supervised loss has the task's precision, and so has what consists of it.
    for term, value in terms.items():
        if "task" not in term and term != "residual_kd":
            assert value.dtype == torch.float64, term


@every_example
def test_the_teacher_stays_as_it_was(name: str) -> None:
    distiller = example(name)
    if not distiller.method.uses_teacher:
        assert isinstance(distiller.teacher, NoTeacher)
        return
    assert isinstance(distiller.teacher, FrozenTeacher)
    teacher = distiller.teacher.model
    before = copy.deepcopy(teacher.state_dict())
    optimizer = torch.optim.SGD(distiller.parameters(), lr=0.1)
    for _ in range(2):
        sum(distiller.train()(batch_of(name), progress=1.0).values()).backward()
        optimizer.step()
    assert all(torch.equal(tensor, before[key]) for key, tensor in teacher.state_dict().items())
    assert not any(module.training for module in teacher.modules())
    assert all(parameter.grad is None for parameter in teacher.parameters())


@every_example
def test_the_teacher_is_not_in_the_state(name: str) -> None:
    teacher = FrozenTeacher(SETTINGS[name].teacher())
    distiller = distill(EXAMPLES[name](), teacher=teacher, setting=SETTINGS[name])
    teacher_tensors = {tensor.data_ptr() for tensor in teacher.model.state_dict().values()}
    for key, tensor in distiller.state_dict().items():
        assert tensor.data_ptr() not in teacher_tensors, key
    for key, parameter in distiller.named_parameters():
        assert parameter.data_ptr() not in teacher_tensors, key


@every_example
def test_one_batch_gives_one_value(name: str) -> None:
    distiller = example(name).eval()
    first, second = (distiller(batch_of(name), progress=0.6) for _ in range(2))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[term], second[term]) for term in first)


def weights_after_training(name: str, accumulate: int) -> Tensor:
    """Return the trained weights in float64; the student's batch norms stay as they start."""
    setting = SETTINGS[name]
    torch.manual_seed(0)
    method, teacher = EXAMPLES[name](), FrozenTeacher(setting.teacher().double())
    student = method.build_student(setting.student().double(), teacher)
    images, labels = batch_of(name)
    distiller = Distiller(student, teacher, method, setting.task(), accumulate=accumulate)
    distiller.setup((images.double(), labels))
    optimizer = torch.optim.SGD(distiller.parameters(), lr=0.01, momentum=0.9)
    for step in range(20):
        distiller.train()
        for module in distiller.student.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.eval()
        terms = distiller((images.double(), labels), progress=(step + 1) / 20)
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return torch.cat([parameter.detach().flatten() for parameter in distiller.parameters()])


@every_example
def test_a_batch_in_pieces_trains_as_the_whole(name: str) -> None:
    # Twenty steps magnify rounding: weights that begin 1e-16 of themselves apart end, with DIST,
    # 1e-10 apart, and pieces 1e-9 apart.
    assert_close(weights_after_training(name, 3), weights_after_training(name, 1), 1e-7)


@every_example
def test_autocast_changes_little(name: str) -> None:
    distiller = example(name).eval()
    exact = distiller(batch_of(name), progress=1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = distiller(batch_of(name), progress=1.0)
    for term, value in exact.items():
        assert rounded[term].isfinite()
        expected = pytest.approx(value.item(), rel=0.05, abs=0.05)
        assert rounded[term].item() == expected, term


@every_example
def test_trainable_parts_and_buffers_survive_a_checkpoint(name: str) -> None:
    first, second = example(name).eval(), example(name).eval()
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    second.load_state_dict(first.state_dict())
    for term, value in first(batch_of(name), progress=1.0).items():
        assert torch.equal(second(batch_of(name), progress=1.0)[term], value), term


@every_example
def test_what_is_deployed_has_only_weights_of_its_own(name: str) -> None:
    deployed = example(name).deploy()
    assert isinstance(deployed, nn.Module)
    assert not any(module._forward_hooks for module in deployed.modules())
    # What the method makes of a student without ever seeing a batch has none of its trained parts.
    method, setting = EXAMPLES[name](), SETTINGS[name]
    teacher = FrozenTeacher(setting.teacher())
    untrained = method.deploy(method.build_student(setting.student(), teacher))
    assert set(deployed.state_dict()) == set(untrained.state_dict())


# ---- a method as an object ----


@every_example
def test_the_repr_is_the_configuration_and_copies_are_whole(name: str) -> None:
    method = EXAMPLES[name]()
    assert repr(copy.deepcopy(method)) == repr(method)
    assert repr(pickle.loads(pickle.dumps(method))) == repr(method)


@every_example
def test_a_method_that_is_set_up_can_be_pickled(name: str) -> None:
    distiller = example(name).eval()
    step = distiller.step(batch_of(name), progress=1.0)
    copied = pickle.loads(pickle.dumps(distiller.method))
    for term, value in distiller.method(step).items():
        assert torch.equal(copied(step)[term], value), term


@every_method
def test_defaults_construct_and_every_argument_is_shown(method: type[Method]) -> None:
    arguments = inspect.signature(method).parameters
    needed = [name for name, p in arguments.items() if p.default is inspect.Parameter.empty]
    assert set(needed) <= WIRING
    instances = (make() for make in [*EXAMPLES.values(), *RECOMMENDER_EXAMPLES.values()])
    instance = next(instance for instance in instances if type(instance) is method)
    built = method(**{name: getattr(instance, name) for name in needed})
    for name in arguments:
        assert f"{name}=" in repr(built)


@every_method
def test_hyper_parameters_are_given_by_keyword(method: type[Method]) -> None:
    for name, parameter in inspect.signature(method).parameters.items():
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY or name in WIRING, name


@every_method
def test_a_method_tells_its_paper(method: type[Method]) -> None:
    assert method.info.paper
    assert method.info.tasks
    assert method.info.needs


@every_method
def test_the_search_space_names_arguments_whose_values_the_method_takes(
    method: type[Method],
) -> None:
    parameters = inspect.signature(method).parameters
    examples = (make() for make in [*EXAMPLES.values(), *RECOMMENDER_EXAMPLES.values()])
    instance = next(example for example in examples if type(example) is method)
    given = {name: getattr(instance, name) for name in parameters}
    names = [searched.name for searched in method.search_space]
    assert len(set(names)) == len(names)
    for searched in method.search_space:
        own = parameters[searched.name].default
        low, high = searched.bounds(1.0 if own is None else own)
        assert 0 < low < high
        for value in (low, high):
            method(**{**given, searched.name: value})


@pytest.mark.parametrize("make", [RCKA, FitNet])
def test_a_wrong_layer_is_named_with_its_neighbors(
    make: Callable[[dict[str, str]], Method],
) -> None:
    student, teacher = small_cnn(width=8, channels=1), small_cnn(width=16, channels=1)
    for pairs in ({"stage9": "stage2"}, {"stage2": "stage9"}):
        with pytest.raises(UserError, match=r"no module 'stage9' in \w+; did you mean \['stage"):
            Distiller(student, FrozenTeacher(teacher), make(pairs), Classification(10))


# ---- several processes ----


@pytest.fixture(scope="module")
def rank_gradients(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    attributes = ("RANK_EXAMPLES", "SHARE_EXAMPLES")
    modules = [m.__name__ for m in MODULES if any(hasattr(m, name) for name in attributes)]
    return two_ranks(gradients_on_rank, tmp_path_factory.mktemp("ranks"), *modules)


@pytest.mark.parametrize("name", RANK_EXAMPLES)
def test_two_ranks_give_the_gradient_of_one_with_the_joined_batch(
    name: str, rank_gradients: list[dict[str, Tensor]]
) -> None:
    """Under DataParallel the official relations shrink with the number of devices."""
    whole = linear_gradient(RANK_EXAMPLES[name](), linear_batch())
    assert whole.abs().max() > 0
    for gradients in rank_gradients:
        assert_close(gradients[name], whole, 1e-12)


@pytest.mark.slow
def test_four_ranks_give_the_gradient_of_one_with_the_joined_batch(tmp_path: Path) -> None:
    modules = [m.__name__ for m in MODULES if hasattr(m, "RANK_EXAMPLES")]
    ranks = two_ranks(gradients_on_rank, tmp_path, *modules, processes=4)
    for name, make in RANK_EXAMPLES.items():
        whole = linear_gradient(make(), linear_batch())
        for gradients in ranks:
            assert_close(gradients[name], whole, 1e-12)


@pytest.mark.parametrize("name", SHARE_EXAMPLES)
def test_two_ranks_give_the_mean_gradient_of_their_shares(
    name: str, rank_gradients: list[dict[str, Tensor]]
) -> None:
    make, (images, labels) = SHARE_EXAMPLES[name], linear_batch()
    shares = [linear_gradient(make(), (images[r::2], labels[r::2])) for r in range(2)]
    whole = linear_gradient(make(), (images, labels))
    for gradients in rank_gradients:
        assert_close(gradients[name], sum(shares) / 2, 1e-12)
        assert not torch.allclose(gradients[name], whole, rtol=1e-2)


# ---- pure functions ----


def inputs_of(loss: Loss, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    """Return inputs that a loss accepts, by name: logits, else maps, else lists of maps."""
    for shape in ((6, 5), (2, 3, 32, 32)):
        inputs = _inputs_of(loss, shape, dtype)
        try:
            loss(**inputs)
        except UserError:
            continue
        return inputs
    raise AssertionError(f"{loss.__name__} accepts neither logits (6, 5) nor maps (2, 3, 32, 32)")


def _inputs_of(loss: Loss, shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(7)
    random = functools.partial(torch.randn, generator=generator, dtype=torch.float64)
    inputs: dict[str, Any] = {}
    for name, parameter in inspect.signature(loss).parameters.items():
        if name == "labels":
            inputs[name] = torch.arange(shape[0]) % 3
        elif name == "assistants":
            inputs[name] = [random(shape).to(dtype)]
        elif "Sequence[Tensor]" in str(parameter.annotation):
            inputs[name] = [random(2, 3, size, size).to(dtype) for size in (8, 4)]
        elif name in ("attention", "scores"):
            inputs[name] = random(2, 2, 2).softmax(2).to(dtype)
        elif name in ("student", "teacher", "uninteresting"):
            inputs[name] = random(shape).to(dtype)
    return inputs


def terms_of(value: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what a loss gave as named scalars."""
    terms = value if isinstance(value, Mapping) else {"loss": value}
    return {name: term.sum() for name, term in terms.items()}


@every_loss
def test_at_most_four_arguments_are_positional_and_none_of_them_is_an_option(loss: Loss) -> None:
    parameters = inspect.signature(loss).parameters.values()
    positional = [p for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    assert len(positional) <= 4
    assert all("Tensor" in str(p.annotation) for p in positional)


@every_loss
def test_options_have_the_names_that_the_class_gives_them(loss: Loss) -> None:
    (method,) = [method for method in METHODS if paper_of(method) == paper_of(loss)]
    known = inspect.signature(method).parameters
    for name, parameter in inspect.signature(loss).parameters.items():
        assert "Tensor" in str(parameter.annotation) or name in known, name


@every_loss
def test_gradients_are_those_of_finite_differences(loss: Loss) -> None:
    inputs = inputs_of(loss)
    leaves = []
    for name, value in inputs.items():
        tensors = value if isinstance(value, list) else [value]
        if name not in ("teacher", "labels"):
            leaves += [tensor.requires_grad_() for tensor in tensors]
    unchecked = {id(leaf) for leaf in leaves}
    for term, value in terms_of(loss(**inputs)).items():
        for leaf in leaves:
            # A term that detaches an input has no gradient for it.
            if torch.autograd.grad(value, leaf, allow_unused=True, retain_graph=True)[0] is None:
                continue
            assert _gradcheck(loss, inputs, term, leaf), term
            unchecked.discard(id(leaf))
    assert not unchecked


def _gradcheck(loss: Loss, inputs: Mapping[str, Any], term: str, leaf: Tensor) -> bool:
    def value_at(point: Tensor) -> Tensor:
        changed = {}
        for name, value in inputs.items():
            if isinstance(value, list):
                changed[name] = [point if tensor is leaf else tensor.detach() for tensor in value]
            else:
                changed[name] = point if value is leaf else value.detach()
        return terms_of(loss(**changed))[term]

    point = leaf.detach().clone().requires_grad_()
    return torch.autograd.gradcheck(value_at, point, fast_mode=True)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_gives_a_finite_float32(loss: Loss, dtype: torch.dtype) -> None:
    half = inputs_of(loss, dtype)
    single = {name: _to_float32(value) for name, value in half.items()}
    expected = terms_of(loss(**single))
    for name, term in terms_of(loss(**half)).items():
        assert term.dtype == torch.float32
        assert term.isfinite()
        torch.testing.assert_close(term, expected[name], rtol=1e-5, atol=1e-6)


def _to_float32(value: Any) -> Any:
    if isinstance(value, list):
        return [_to_float32(tensor) for tensor in value]
    return value.float() if value.is_floating_point() else value


@every_loss
def test_compiling_changes_nothing(loss: Loss) -> None:
    inputs = inputs_of(loss)
    expected = terms_of(loss(**inputs))
    torch._dynamo.reset()
    compiled = terms_of(torch.compile(loss, backend="eager")(**inputs))
    assert compiled.keys() == expected.keys()
    for name, term in compiled.items():
        torch.testing.assert_close(term, expected[name], rtol=1e-12, atol=1e-12)


def test_no_method_takes_a_negative_factor_of_the_supervised_loss() -> None:
    for name in tutelage.methods.__all__:
        method = getattr(tutelage.methods, name)
        if not (isinstance(method, type) and issubclass(method, Method)):
            continue
        parameters = inspect.signature(method).parameters
        if "task_weight" not in parameters:
            continue
        required = {
            key: {"stage1": "stage1"}
            for key, value in parameters.items()
            if value.default is inspect.Parameter.empty
        }
        with pytest.raises(UserError, match=r"got -1\.0"):
            method(**required, task_weight=-1.0)
