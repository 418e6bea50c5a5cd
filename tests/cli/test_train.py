from __future__ import annotations

import json
import re
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.cli.conftest import Run
from tests.helpers.commands import (
    TEACHER,
    TRAIN,
    network,
    part,
    tree,
    without_seconds,
    write_cifar10,
    write_fashion_mnist,
    write_image_folder,
    write_recipe,
)
from tutelage import UserError
from tutelage.engine.run_folder import RunFolder
from tutelage.recipes.read import parse_recipe

KD = part("methods.KD")
FASHION = Path("/usr/share/datasets/fashion-mnist")
FILES = [
    "environment.json",
    "log.jsonl",
    "loss_scale.json",
    "metrics.json",
    "recipe.yaml",
    "student.json",
]


def classification(count: int) -> dict[str, Any]:
    return part("tasks.Classification", num_classes=count)


def metrics(out: str | Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((Path(out) / "metrics.json").read_text())
    return read


def test_a_teacher_is_trained_once_and_its_student_after_it(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_recipe("recipes/teacher.yaml", **TEACHER)
    for seed in (0, 1):
        recipe = write_recipe(
            "recipes/kd.yaml", method=KD, teacher={"recipe": "teacher.yaml"}, seed=seed
        )
        answer = run("train", recipe, "--out", f"kd{seed}", "--teacher-dir", "teachers")
        assert answer.code == 0
        assert answer.out.startswith(f"kd{seed}: test top1 ")
        assert ("training the teacher once: recipes/teacher.yaml" in answer.err) == (seed == 0)
        assert "\r" not in answer.err
        assert re.match(r"epoch 1/1  top1 [\d.]+  0 s left  ", answer.err.splitlines()[-1])
        assert "device cpu, 1 thread(s), float32\n" in answer.err
        # The device, and a line an epoch; before that the teacher, which says so first.
        assert answer.err.count("\n") == 2 + (seed == 0) * (2 + TEACHER["train"]["epochs"])
    assert len(list(Path("teachers").iterdir())) == 1
    assert metrics(next(Path("teachers").iterdir()))["test"]["top1"] > 0.9
    assert sorted(path.name for path in Path("kd1").iterdir()) == sorted(
        [*FILES, "memory.json", "student.safetensors"]
    )
    assert not Path("kd0/memory.json").exists()  # the teacher was trained in the same process
    assert {"agreement", "teacher_kl"} < set(metrics("kd1")["test"])


def test_the_default_folder_names_recipe_and_seed(run: Run) -> None:
    answer = run("train", write_recipe("classification/digits/baseline.yaml"), "--seed", 3)
    assert answer.out.startswith("runs/classification-digits-baseline-seed3: test top1")
    assert metrics("runs/classification-digits-baseline-seed3")["seed"] == 3


SIZES = {"num_labels": None, "train": {**TRAIN, "batch_size": 10}}


def test_an_image_folder_a_cifar_folder_and_fashion_mnist_take_the_same_path(
    run: Run, here: Path
) -> None:
    write_image_folder(here / "photos")
    write_cifar10(here / "cifar")
    sources = {
        "photos": (part("data.ImageFolder", root="photos", size=8), 3, 3),
        "cifar": (part("data.CIFAR10", root="cifar"), 10, 3),
    }
    if FASHION.is_dir():
        write_fashion_mnist(here / "clothes-data", FASHION)
        sources["clothes"] = (part("data.FashionMNIST", root="clothes-data"), 10, 1)
    for name, (data, classes, channels) in sources.items():
        small = network(num_classes=classes, channels=channels, width=4)
        sections = {"data": data, "task": classification(classes), "student": small, **SIZES}
        sections["num_labels"] = 20
        write_recipe(f"{name}-recipes/teacher.yaml", **sections, seed=1)
        kd = {**sections, "method": KD, "teacher": {"recipe": "teacher.yaml", "preflight": False}}
        recipe = write_recipe(f"{name}-recipes/kd.yaml", **kd)
        answer = run("train", recipe, "--out", f"{name}-run")
        assert answer.code == 0, answer.err
        figures = metrics(f"{name}-run")["test"]
        assert figures["num_samples"] == {"photos": 30, "cifar": 40, "clothes": 200}[name]
        assert ("top5" in figures) == (classes > 5)
        assert len(json.loads(Path(f"{name}-run/student.json").read_text())["classes"]) == classes


def test_two_classes_are_enough(run: Run, here: Path) -> None:
    write_image_folder(here / "photos", classes=2)
    two = {
        "data": part("data.ImageFolder", root="photos", size=8, augment=False),
        "task": classification(2),
        "student": network(num_classes=2, channels=3, width=4),
        "num_labels": None,
        "train": {**TRAIN, "batch_size": 10, "epochs": 3},
    }
    answer = run("train", write_recipe("two.yaml", **two), "--out", "run")
    assert answer.code == 0
    assert "top5" not in answer.out
    assert metrics("run")["test"]["top1"] == 1.0
    assert run("evaluate", "run").code == 0


def test_a_finished_run_resumes_to_its_figures_and_is_never_overwritten(
    run: Run, refuse: Run
) -> None:
    recipe = write_recipe("mine.yaml")
    first = run("train", recipe, "--out", "run")
    before = tree()
    again = run("train", recipe, "--out", "run", "--resume")
    assert (again.code, again.out, again.err) == (0, first.out, "")
    assert tree() == before
    refuse(
        "train", recipe, "--out", "run", says=("run holds a finished run", "choose another --out")
    )
    says = ("run/recipe.yaml was run with 'seed: 0', now it is 'seed: 4'", "choose another --out")
    refuse("train", recipe, "--out", "run", "--seed", 4, "--resume", says=says)
    Path("run/metrics.json").write_text('{"kept": "be')
    refuse(
        "train",
        recipe,
        "--out",
        "run",
        "--resume",
        says=("run/metrics.json is not whole", "remove it"),
    )
    Path("run/metrics.json").unlink()
    refuse("train", recipe, "--out", "run", says=("run holds an unfinished run", "--resume"))


def test_a_folder_in_use_is_refused(refuse: Run) -> None:
    recipe = write_recipe("mine.yaml")
    Path("thesis").mkdir()
    Path("thesis/thesis.tex").write_text("x")
    refuse(
        "train",
        recipe,
        "--out",
        "thesis",
        says=("thesis exists and is no run of ours", "choose another --out"),
    )
    refuse("train", recipe, "--out", "mine.yaml", says=("mine.yaml exists and is no run of ours",))
    refuse(
        "train",
        recipe,
        "--out",
        "mine.yaml/run",
        says=("mine.yaml/run cannot be made", "is no folder to write to"),
    )


def test_what_blows_up_in_its_last_step_is_not_finished(run: Run) -> None:
    wild = {**TRAIN, "optimizer": part("torch.optim.SGD", lr=1e30)}  # one epoch of one step
    answer = run("train", write_recipe("last.yaml", train=wild, num_labels=50), "--out", "last")
    assert answer.code == 2
    assert "the term 'task' became nan after the last step; lower the learning rate" in answer.err
    assert "Traceback" not in answer.err
    assert not Path("last/metrics.json").exists()


def test_what_ends_before_its_first_epoch_leaves_nothing(refuse: Run, teacher: Path) -> None:
    silent = {
        "method": part("methods.KD", weight=0.0),
        "teacher": {**network(width=8), "weights": str(teacher)},
    }
    refuse(
        "train", write_recipe("silent.yaml", **silent), says=("the term 'kd' sends no gradient",)
    )
    wild = {**TRAIN, "optimizer": part("torch.optim.SGD", lr=1e30)}
    refuse(
        "train",
        write_recipe("wild.yaml", train=wild),
        "--out",
        "wild",
        says=("the term 'task' became nan",),
    )
    below = {**TRAIN, "optimizer": part("torch.optim.SGD", lr=-0.1)}
    says = ("train.optimizer cannot be made", "Invalid learning rate: -0.1")
    refuse("train", write_recipe("below.yaml", train=below), "--out", "below", says=says)


def test_a_mistake_of_the_student_shows_before_its_teacher_is_trained(refuse: Run) -> None:
    write_recipe("teacher.yaml", **TEACHER)
    taps = {
        "method": part("methods.RCKA", layer_pairs={"stage9": "stage1"}),
        "teacher": {"recipe": "teacher.yaml"},
    }
    says = ("mine.yaml: a layer of the student: no module 'stage9' in SmallCNN", "did you mean")
    refuse("train", write_recipe("mine.yaml", **taps), says=says)
    write_recipe("teacher.yaml", **{**TEACHER, "student": network(width=8, channels=3)})
    says = (
        "mine.yaml: the teacher (SmallCNN) fails on a batch of inputs (50, 1, 8, 8)",
        "check its channels",
    )
    refuse(
        "train", write_recipe("mine.yaml", method=KD, teacher={"recipe": "teacher.yaml"}), says=says
    )
    write_recipe("teacher.yaml", **{**TEACHER, "lables": 3})
    refuse("train", "mine.yaml", says=("teacher.yaml: the recipe has no key 'lables'",))
    write_recipe("teacher.yaml", **{**TEACHER, "teacher": network()})
    refuse("train", "mine.yaml", says=("teacher.yaml has a teacher of its own", "teacher.weights"))
    write_recipe("mine.yaml", method=KD, teacher={"recipe": "teacher.yaml", **network()})
    refuse("train", "mine.yaml", says=("teacher has a model and a recipe",))
    Path("teacher.yaml").unlink()
    refuse(
        "train",
        write_recipe("mine.yaml", teacher={"recipe": "teacher.yaml"}),
        says=("no recipe teacher.yaml",),
    )


def test_weights_that_are_given_spare_the_training_of_the_teacher(run: Run, teacher: Path) -> None:
    write_recipe("teacher.yaml", **TEACHER)
    given = {"recipe": "teacher.yaml", "weights": str(teacher)}
    answer = run("train", write_recipe("mine.yaml", method=KD, teacher=given), "--out", "run")
    assert answer.code == 0
    assert "training the teacher" not in answer.err


def test_several_processes_are_told_how_to_train_the_teacher(
    run: Run, refuse: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_recipe("study/teacher.yaml", **TEACHER)
    recipe = write_recipe("study/mine.yaml", method=KD, teacher={"recipe": "teacher.yaml"})
    with monkeypatch.context() as two:
        two.setenv("WORLD_SIZE", "2")
        answer = refuse(
            "train", recipe, says=("several processes cannot train a teacher and then its student",)
        )
    command = answer.err.strip().rpartition(": tutelage ")[2].split()
    assert command[:3] == ["train", "study/teacher.yaml", "--out"]
    assert run(*command).code == 0
    answer = run("train", recipe, "--out", "run")
    assert answer.code == 0
    assert "training the teacher" not in answer.err
    kept = next(Path("runs/teachers").iterdir()) / "recipe.yaml"
    kept.write_text(kept.read_text().replace("seed: 0", "seed: 7"))
    refuse(
        "train",
        recipe,
        "--out",
        "again",
        says=(f"{kept} was run with 'seed: 7', now it is 'seed: 0'",),
    )


def test_teacher_and_student_may_differ_in_precision(run: Run) -> None:
    write_recipe("teacher.yaml", **TEACHER)
    half = {
        "method": KD,
        "teacher": {"recipe": "teacher.yaml"},
        "train": {**TRAIN, "precision": "bf16"},
    }
    answer = run("train", write_recipe("mine.yaml", **half), "--out", "run")
    assert answer.code == 0, answer.err


def test_a_large_seed_augments_too(run: Run) -> None:
    recipe = write_recipe("mine.yaml", data=part("data.Digits", augment=True), seed=2**32 - 1)
    assert run("train", recipe, "--out", "run").code == 0


def test_a_run_that_is_not_there_is_not_resumed(refuse: Run) -> None:
    recipe = write_recipe("mine.yaml")
    says = ("there is no run at runs/nowhere to resume", "leave --resume out")
    refuse("train", recipe, "--out", "runs/nowhere", "--resume", says=says)
    says = ("there is no option --device", "CUDA_VISIBLE_DEVICES", "ACCELERATE_USE_CPU=true")
    refuse("train", recipe, "--out", "run", "--device", "cuda:7", says=says)


def test_a_checkpoint_that_cannot_be_read_is_one_sentence(run: Run, refuse: Run) -> None:
    recipe = write_recipe("mine.yaml")
    run("train", recipe, "--out", "run")
    Path("run/metrics.json").unlink()
    Path("run/checkpoints/000000002").mkdir(parents=True)
    Path("run/checkpoints/000000002/tensors.safetensors").write_bytes(b"half of it")
    Path("run/checkpoints/000000002/state.json").write_text("{}")
    says = ("run/checkpoints cannot be read", "remove it to start again")
    refuse("train", recipe, "--out", "run", "--resume", says=says)
    shutil.rmtree("run/checkpoints")
    assert run("train", recipe, "--out", "run", "--resume").code == 0


def test_an_interruption_before_the_first_step_leaves_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(ready: object, folder: RunFolder) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(import_module("tutelage.engine.fit"), "_check_terms", interrupt)
    recipe = write_recipe("mine.yaml")
    before = tree()
    answer = run("train", recipe, "--out", "runs/deep/mine")
    assert (answer.code, answer.out, answer.err) == (130, "", "tutelage: interrupted\n")
    assert tree() == before


def test_a_run_that_was_there_before_outlives_an_error(
    refuse: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe("mine.yaml")
    folder = RunFolder(Path("run"))
    with folder.claimed():
        folder.create(parse_recipe(recipe).text())

    def stop(ready: object, folder: RunFolder) -> None:
        raise UserError("stop")

    monkeypatch.setattr(import_module("tutelage.engine.fit"), "_check_terms", stop)
    refuse("train", recipe, "--out", "run", "--resume", says=("tutelage: stop",))


@pytest.mark.skipif(
    not Path("/proc/self").exists(), reason="needs a folder that even root cannot write to"
)
def test_a_folder_that_cannot_be_made_is_one_sentence(refuse: Run) -> None:
    says = ("/proc/mine cannot be used (No such file or directory)", "check the path")
    refuse("train", write_recipe("mine.yaml"), "--out", "/proc/mine", says=says)


FIT: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "color network on gray images": (
        {"student": network("models.resnet8", num_classes=10)},
        ("the student (StagedNet) fails on a batch of inputs (50, 1, 8, 8)", "check its channels"),
    ),
    "network of another kind": (
        {"student": network("torch.nn.Linear", in_features=64, out_features=10)},
        (
            "the student (Linear) fails on a batch of inputs (50, 1, 8, 8)",
            "shapes cannot be multiplied",
        ),
    ),
    "logits for other classes": (
        {"student": network(num_classes=7)},
        ("the student gives (50, 7), but the task has 10 classes", "num_classes"),
    ),
    "no logits": (
        {"student": network("methods.Baseline")},
        ("the task cannot use what the student (Baseline) gives, a dict", "check student.model"),
    ),
    "statistics of colors": (
        {"student": {**network(), "mean": [0.1] * 3, "std": [1.0] * 3}},
        ("the student: the network expects images (N, 3, H, W), got (50, 1, 8, 8)",),
    ),
    "too few labels": ({"num_labels": 3}, ("labels is 3", "10 classes", "choose 10 to 1079")),
    "too many labels": ({"num_labels": 9999}, ("labels is 9999", "choose 10 to 1079")),
    "an augmentation that does not fit": (
        {
            "data": part(
                "data.Digits", augment=part("torchvision.transforms.v2.RandomCrop", size=16)
            )
        },
        (
            "the training data cannot be loaded: ValueError: Required crop size (16, 16)",
            "check the data",
        ),
    ),
    "no teacher": ({"method": KD}, ("needs a teacher's logits, but there is no teacher",)),
    "no network of the teacher": ({"method": KD, "teacher": {}}, ("teacher.model is missing",)),
    "an untrained teacher": (
        {"method": KD, "teacher": network(width=8)},
        ("top1", "chance level", "check its weights"),
    ),
    "no such tap of the student": (
        {
            "method": part("methods.RCKA", layer_pairs={"stage5": "stage1"}),
            "teacher": network(width=8),
        },
        ("a layer of the student: no module 'stage5' in SmallCNN", "did you mean ['stage3'"),
    ),
    "no such tap of the teacher": (
        {
            "method": part("methods.FitNet", layer_pairs={"stage1": "stagee1"}),
            "teacher": network(width=8),
        },
        ("a layer of the teacher: no module 'stagee1' in SmallCNN", "did you mean ['stage1'"),
    ),
    "no tap at all": (
        {
            "method": part("methods.RCKA", layer_pairs={"stage1:x": "stage1"}),
            "teacher": network(width=8),
        },
        ("a layer of the student: 'stage1:x' is not a tap address",),
    ),
    "a teacher of other classes": (
        {"method": KD, "teacher": network(width=8, num_classes=7)},
        ("(50, 10) from the student and (50, 7) from the teacher", "same number of classes"),
    ),
    "a teacher of other classes for RCKA": (
        {
            "method": part("methods.RCKA"),
            "teacher": {**network(width=8, num_classes=7), "preflight": False},
        },
        ("(50, 7)", "(50, 10)"),
    ),
    "a teacher for color images": (
        {"method": KD, "teacher": network(width=8, channels=3)},
        ("the teacher (SmallCNN) fails on a batch of inputs (50, 1, 8, 8)",),
    ),
}


@pytest.mark.parametrize("name", FIT)
def test_what_does_not_fit_is_one_sentence(name: str, refuse: Run) -> None:
    sections, says = FIT[name]
    refuse("train", write_recipe("mine.yaml", **sections), says=says)


def test_wrong_weights_are_one_sentence(refuse: Run, teacher: Path) -> None:
    def says(weights: str | Path, *words: str, **of: Any) -> None:
        spec = {**network(**{"width": 8, **of}), "weights": str(weights)}
        refuse("train", write_recipe("mine.yaml", method=KD, teacher=spec), says=words)

    whole = (teacher / "student.safetensors").read_bytes()
    Path("half.safetensors").write_bytes(whole[: len(whole) // 2])
    Path("empty.safetensors").touch()
    Path("text.pt").write_text("hello")
    torch.save(torch.nn.Linear(2, 2), "module.pt")
    torch.save([1, 2], "list.pt")
    says("nowhere", "there are no weights at nowhere")
    says("half.safetensors", "half.safetensors cannot be read as weights", "is the file complete?")
    says("empty.safetensors", "empty.safetensors cannot be read as weights")
    says("text.pt", "text.pt is no weights file")
    says("module.pt", "module.pt holds more than tensors and is refused", "state_dict()")
    says("list.pt", "list.pt holds no state dict")
    says(
        teacher,
        "student.safetensors holds 'classifier.weight' of shape (10, 32)",
        "needs (10, 36)",
        width=9,
    )
    foreign = {**network("torchvision.models.resnet18", num_classes=10), "weights": str(teacher)}
    says_foreign = (
        "student.safetensors does not fit ResNet: missing ['conv1.weight'",
        "unexpected",
    )
    refuse("train", write_recipe("mine.yaml", method=KD, teacher=foreign), says=says_foreign)
    refuse(
        "train",
        write_recipe("mine.yaml", student={**network(), "weights": "nowhere.pt"}),
        says=("nowhere.pt",),
    )


def test_weights_of_a_wrapped_network_are_taken(run: Run, teacher: Path) -> None:
    state = {
        f"module.{name}": value
        for name, value in load_file(teacher / "student.safetensors").items()
    }
    torch.save({"state_dict": state}, "wrapped.pt")
    for name, weights in (("plain", str(teacher)), ("wrapped", "wrapped.pt")):
        spec = {**network(width=8), "weights": weights}
        assert (
            run("train", write_recipe("mine.yaml", method=KD, teacher=spec), "--out", name).code
            == 0
        )
    assert without_seconds(metrics("plain")) == without_seconds(metrics("wrapped"))


def photos(**arguments: Any) -> dict[str, Any]:
    return {
        "data": part("data.ImageFolder", **{"root": "photos", "size": 8, **arguments}),
        "task": classification(3),
        "student": network(num_classes=3, channels=3, width=4),
        **SIZES,
    }


def test_wrong_image_folders_are_one_sentence(refuse: Run, here: Path) -> None:
    def says(*words: str, **arguments: Any) -> None:
        refuse("train", write_recipe("mine.yaml", **photos(**arguments)), says=words)

    says("not at photos: there is no such folder", "root/train/<class>/*.jpg")
    Path("photos").mkdir()
    says("photos holds 0 class folders, at least 2 are needed")
    write_image_folder(here / "photos", parts=("train",))
    says("data.size", "at least 1, got 0", size=0)
    says("data.validation is a share between 0 and 1, got 2.0", validation=2.0)
    Path("photos/val").mkdir()
    says("photos/val has no folder of a class with images in it")
    Path("photos/val/dog").mkdir()
    says("photos/val has a class 'dog' that the training part lacks")
    shutil.rmtree("photos/val")
    shutil.rmtree("photos/train/class1")
    Path("photos/train/class1").mkdir()
    says("photos/train/class1 holds no image")


@pytest.mark.parametrize("broken", ["train/class1/3.png", "val/class2/4.jpg", "test/class0/9.png"])
def test_an_unreadable_image_stops_a_run_before_it_starts(
    broken: str, refuse: Run, here: Path
) -> None:
    path = write_image_folder(here / "photos") / broken
    recipe = write_recipe("mine.yaml", **photos())
    whole = path.read_bytes()
    for content in (whole[: len(whole) * 2 // 3], b"", b"<html>404</html>"):
        path.write_bytes(content)
        refuse(
            "train",
            recipe,
            says=(f"photos/{broken} cannot be decoded as an image", "mend or remove the file"),
        )


def test_an_error_in_a_loading_process_is_one_sentence(refuse: Run, here: Path) -> None:
    write_image_folder(here / "photos")
    shapes = part("torchvision.transforms.v2.RandomCrop", size=16)
    recipe = photos(augment=shapes)
    recipe["train"] = {**recipe["train"], "num_workers": 1}
    says = ("the training data cannot be loaded: ValueError: Required crop size (16, 16)",)
    refuse("train", write_recipe("mine.yaml", **recipe), says=says)


def test_images_of_unequal_shapes_are_one_sentence(refuse: Run, here: Path) -> None:
    write_image_folder(here / "photos")
    jitter = part("torchvision.transforms.v2.RandomResize", min_size=8, max_size=12)
    says = ("images of one batch have the shapes (3, ", "let data.augment crop or resize them")
    refuse("train", write_recipe("mine.yaml", **photos(augment=jitter)), says=says)


def test_wrong_files_of_known_data_sets_are_one_sentence(refuse: Run, here: Path) -> None:
    cifar = {"data": part("data.CIFAR10", root="cifar"), "student": network(channels=3)}
    recipe = write_recipe("mine.yaml", **cifar)
    refuse(
        "train", recipe, says=("CIFAR10 is not at cifar: there is no such folder", "download=True")
    )
    Path("cifar").mkdir()
    refuse("train", recipe, says=("CIFAR10 is not at cifar", "batches.meta"))
    batch = write_cifar10(here / "cifar2") / "cifar-10-batches-py/data_batch_3"
    recipe = write_recipe("mine.yaml", **{**cifar, "data": part("data.CIFAR10", root="cifar2")})
    batch.write_bytes(batch.read_bytes()[:1000])
    refuse(
        "train", recipe, says=("data_batch_3 cannot be read as a CIFAR batch", "download it again")
    )
    batch.unlink()
    refuse("train", recipe, says=("data_batch_3", "download it again"))
    clothes = write_recipe("clothes.yaml", data=part("data.FashionMNIST", root="cifar"))
    refuse(
        "train",
        clothes,
        says=("FashionMNIST at cifar lacks train-images-idx3-ubyte", "dataset-fashion-mnist"),
    )


def test_the_teachers_alone_can_be_trained(run: Run, refuse: Run) -> None:
    write_recipe("teacher.yaml", **TEACHER)
    recipe = write_recipe(
        "mine.yaml", method=part("methods.KD"), teacher={"recipe": "teacher.yaml"}
    )
    answer = run("train", recipe, "--teachers-only", "--teacher-dir", "teachers")
    assert answer.code == 0
    folder = Path(answer.out.strip())
    assert folder.parent == Path("teachers")
    assert (folder / "metrics.json").exists()
    assert not Path("runs").exists()
    refuse("train", recipe, "--teachers-only", "--resume", says=("leave --out and --resume out",))
    says = ("names no recipe of a teacher",)
    refuse("train", write_recipe("alone.yaml"), "--teachers-only", says=says)
