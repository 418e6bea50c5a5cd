"""The student of a finished run, ready to answer images, users, queries: what its task reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.core import Batch, Overlay, Task
from tutelage.core.modes import device_of
from tutelage.core.prediction import (
    Prediction,
    Predicts,
    PredictsFromRun,
    ReadsInput,
)
from tutelage.core.taps import call
from tutelage.data import Data
from tutelage.data.image_input import ImageInput, as_pixels
from tutelage.deploy.student_record import class_map, input_rule, temperature_of
from tutelage.deploy.trust import check_trusted
from tutelage.engine.calibration import Calibrates
from tutelage.engine.checks.student_facts import FIX, STUDENT, StudentFacts, read_student_facts
from tutelage.engine.finished_run import shipped_student
from tutelage.engine.hub import is_hub
from tutelage.engine.weights import weights_file
from tutelage.errors import UserError
from tutelage.recipes import Recipe, parse_recipe
from tutelage.recipes.rebuild import build_student_recipe

BATCH_SIZE = 32
NUM_ITEMS = 10  # or documents that an input gets, if nobody says how many


class Predictor:
    """The student of a finished run, with what belongs to it; see `load`.

    Attributes:
        folder: of the run.
        network: the bare network in eval mode, with its weights; it subtracts mean and divides by
            std itself.
        task: what it was trained for.
        data: the settings of the data that it was trained on; the files need not be there.
        transform: makes an image (a path, a PIL image, a tensor) the network's input (C, H, W);
            None where inputs are no images, or where the data reads them itself.
        classes: names by label, and the data's own ids.
        temperature: of the probabilities, fitted after training; 1 without.
    """

    def __init__(
        self, folder: Path, network: nn.Module | None, recipe: Recipe, facts: StudentFacts
    ) -> None:
        self.folder = folder
        self.task: Task = recipe.task
        self.data: Data = recipe.data
        self.recipe = recipe
        self.facts = facts
        self.classes = class_map(facts, recipe.task)
        self.temperature = temperature_of(facts)
        self.transform = input_rule(facts)
        self._network = network

    @property
    def network(self) -> nn.Module:
        """The bare network in eval mode, with its weights.

        Raises:
            UserError: If the task answers from other files of the run, and the data or the teacher
                that its network is built from is missing.
        """
        if self._network is None:
            try:
                self._network = shipped_student(self.recipe, self.folder).eval()
            except UserError as error:
                encoder = self.folder / "student"
                if encoder.is_dir():
                    raise UserError(
                        f"the network of {self.folder} cannot be built alone ({error}); "
                        f"sentence_transformers.SentenceTransformer({str(encoder)!r}) opens it"
                    ) from error
                raise
        return self._network

    def predict(self, inputs: Any, top: int | None = None) -> Any:
        """Return the answer for an input, or a list of answers for a list of inputs.

        What an answer holds is a matter of the task: `classes` with probabilities, `boxes` with
        scores in pixels of the image, `classes` with the share of the image, `joints`, `items`,
        `documents`.

        Args:
            inputs: what the task reads, such as the path of an image, a PIL image, a tensor
                (3, H, W) of uint8 or of floats in [0, 1], the id of a user, or the text of a query;
                or a list of these.
            top: how many answers an input gets, where they are ranked; None is 5 classes, 100
                boxes, all classes of a mask, 10 items or documents.

        Raises:
            UserError: If an input cannot be read.
        """
        if isinstance(inputs, (list, tuple)):
            return [dict(answer.record) for _, answer in self.answers(inputs, top)]
        ((_, answer),) = self.answers([inputs], top)
        return dict(answer.record)

    def answers(
        self, inputs: Iterable[Any], top: int | None = None
    ) -> Iterator[tuple[Batch, Prediction]]:
        """Give the answer for each input, beside a batch of one with what was read of it.

        Args:
            inputs: as `predict`.
            top: as `predict`.

        Raises:
            UserError: As `predict`.
        """
        if isinstance(self.task, PredictsFromRun):
            answer = self.answerer(top)
            for source in inputs:
                yield Batch({"inputs": source}), answer(str(source))
            return
        yield from self.answers_to(map(self.reader(), inputs), top)

    def answerer(self, top: int | None = None) -> Callable[[str], Prediction]:
        """Return what answers a text, such as a user's id, from the files of the run alone.

        Raises:
            UserError: If `top` is no number of answers, the files are damaged, or the network
                needs inputs.
        """
        _check_top(top)
        if not isinstance(self.task, PredictsFromRun):
            raise UserError("this network reads inputs; call predict, or answers")
        return self.task.predictor(self.folder, NUM_ITEMS if top is None else top)

    def answers_to(
        self, batches: Iterable[Batch], top: int | None = None
    ) -> Iterator[tuple[Batch, Prediction]]:
        """Give the answer for each input that was read, beside it.

        Args:
            batches: of one, by `reader`.
            top: as `predict`.

        Raises:
            UserError: If `top` is no number of answers.
        """
        _check_top(top)
        waiting: list[Batch] = []
        for batch in batches:
            if waiting and (len(waiting) == BATCH_SIZE or not _can_join(waiting[0], batch)):
                yield from self._run(waiting, top)
                waiting = []
            waiting.append(batch)
        if waiting:
            yield from self._run(waiting, top)

    def read(self, source: Any) -> Batch:
        """Return an input as a batch of one, as the network takes it.

        Raises:
            UserError: If it cannot be read, or the run answers no single inputs.
        """
        return self.reader()(source)

    def reader(self) -> Callable[[Any], Batch]:
        """Return what `read` does, as a function for many inputs.

        Raises:
            UserError: If there is none, or the task does not put outputs into words.
        """
        if isinstance(self.task, Predicts):
            if isinstance(self.data, ReadsInput):
                return self.data.read_input
            if self.transform is not None:
                return lambda image: _read(self.transform, image)  # type: ignore[arg-type]
        raise UserError(
            f"{self.folder} was trained for {type(self.task).__name__} on "
            f"{type(self.data).__name__}, which cannot answer single inputs; use tutelage evaluate"
        )

    def _run(self, batches: Sequence[Batch], top: int | None) -> Iterator[tuple[Batch, Prediction]]:
        assert isinstance(self.task, Predicts)
        joined = batches[0].cat(batches[1:]).to(device_of(self.network))
        context: Any = nullcontext()
        if isinstance(self.task, Calibrates) and self.temperature != 1:
            context = self.task.at_temperature(self.network, self.temperature)
        with torch.no_grad(), context:
            output = call(self.network, self.task.inputs(joined))
        predictions = self.task.predictions(output, joined, self.classes, top)
        for batch, prediction in zip(batches, predictions, strict=True):
            yield batch, _on_source(prediction, batch)

    def __repr__(self) -> str:
        classes = len(self.classes.names)
        return f"Predictor({str(self.folder)!r}, {type(self._network).__name__}, {classes} classes)"


def load(run: str | Path, recipe: Recipe | None = None, *, trust_code: bool = False) -> Predictor:
    """Return the student of a finished run in eval mode, with its preprocessing and its classes.

    Neither the data nor the teacher of the run is needed, only `student.safetensors` and
    `student.json`. The class paths in `student.json` are imported, which runs their code: load runs
    that you trust.

        model = tutelage.load("runs/flowers")
        model.predict("rose.jpg")  # {'classes': [{'class': 'rose', 'label': 2, ...
        model.network, model.transform, model.classes

    Args:
        run: folder of a finished run, or of one that was pushed; `hf://owner/name` or
            `hf://owner/name@revision` for one on the Hugging Face Hub.
        recipe: of a run that was made in Python, whose network has no class path.
        trust_code: let a run from the Hub name code outside of the libraries that build networks.

    Raises:
        UserError: If there is no finished run, its files are damaged, its network cannot be built,
            or it is from the Hub and names code of unknown origin.
    """
    if not isinstance(run, (str, Path)):
        raise UserError(f"a run is the path of its folder, got {type(run).__name__}")
    weights = weights_file(run)
    if weights.name != STUDENT[0]:
        raise UserError(f"{run} is no folder of a run; {FIX}")
    folder = weights.parent
    facts = read_student_facts(folder)
    if facts is None:
        raise UserError(f"{folder / 'student.json'} is missing; {FIX}")
    if recipe is None:
        if is_hub(run) and not trust_code:
            check_trusted(facts.entries.get("recipe"), str(run))
        recipe = _recipe_of(folder, facts)
    else:
        recipe = replace(recipe, teacher=None, teachers=None)
    network = None
    if not isinstance(recipe.task, PredictsFromRun):
        network = shipped_student(recipe, folder).eval()
    return Predictor(folder, network, recipe, facts)


def _recipe_of(folder: Path, facts: StudentFacts) -> Recipe:
    sections = facts.entries.get("recipe")
    if isinstance(sections, dict):
        return build_student_recipe(sections, facts.path)
    resolved = folder / "recipe.yaml"
    if resolved.is_file() and resolved.read_text(encoding="utf-8").startswith("Recipe("):
        raise UserError(
            f"{folder} was made in Python, so its files do not say how its network is built; give "
            "the recipe again: tutelage.load(run, recipe)"
        )
    parsed = parse_recipe(resolved)
    return parsed.replace({"teacher": None, "teachers": None}).build()


def _check_top(top: Any) -> None:
    is_number = isinstance(top, int) and not isinstance(top, bool)
    if top is not None and not (is_number and top >= 1):
        raise UserError(
            f"the number of answers (--top) is a whole number of at least 1, got {top!r}"
        )


def _read(rule: ImageInput, image: Any) -> Batch:
    """Return an image as a batch of one, beside the image itself in uint8."""
    pixels = as_pixels(image)
    inputs = rule(pixels)
    if pixels.is_floating_point():
        pixels = (pixels.clamp(0, 1) * 255).round().to(torch.uint8)
    if pixels.shape[0] == 1:
        pixels = pixels.expand(3, -1, -1)
    is_list = rule.batch == "list"
    return Batch({"inputs": [inputs] if is_list else inputs[None], "source_image": [pixels]})


def _can_join(first: Batch, batch: Batch) -> bool:
    """Return whether two batches of one can be one batch."""
    if isinstance(first.inputs, Tensor) and isinstance(batch.inputs, Tensor):
        return first.inputs.shape[1:] == batch.inputs.shape[1:]
    return False


def _on_source(prediction: Prediction, batch: Batch) -> Prediction:
    """Return a prediction whose mask has the size of the user's own image."""
    overlay = prediction.overlay
    if overlay is None or overlay.mask is None or "source_image" not in batch:
        return prediction
    (image,) = batch["source_image"]
    mask = overlay.mask
    if mask.shape != image.shape[-2:]:
        values = mask[None, None].float()
        resized = torch.nn.functional.interpolate(values, image.shape[-2:], mode="nearest-exact")
        mask = resized[0, 0].to(overlay.mask.dtype)
    return Prediction(prediction.record, Overlay(mask=mask.cpu()))
