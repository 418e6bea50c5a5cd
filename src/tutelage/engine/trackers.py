"""Trackers of experiments, over Accelerate: figures, the recipe, pictures.

`train.log_with` names them. Pictures are the maps of layers (`train.cka_every`) and, at the end,
those of `engine.previews`. What each takes:

tensorboard  figures, the recipe as text, pictures, test figures beside the settings
wandb        figures, the recipe as config, pictures
mlflow       figures, the recipe as parameters, pictures
trackio      figures, the recipe as config, pictures
any other    figures and the recipe, as Accelerate hands them on

A run goes on without a tracker that fails, and says so once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import yaml
from accelerate import Accelerator

from tutelage.drawing.maps import map_picture
from tutelage.engine.previews import Pictures, picture_action
from tutelage.engine.run_folder import TRACKERS, RunFolder
from tutelage.errors import UserError, reason

TENSORBOARD = "tensorboard"


class Trackers:
    """The trackers of one run; on other ranks than the first they do nothing.

    Args:
        accelerator: knows them.
        folder: of the run.
    """

    def __init__(self, accelerator: Accelerator, folder: RunFolder) -> None:
        self._accelerator = accelerator
        self._folder = folder
        self._settings: dict[str, Any] = {}
        self._failed: set[str] = set()

    def start(self, names: Sequence[str], recipe: str) -> None:
        """Begin a run in each tracker, and hand the recipe on.

        Args:
            names: of the trackers.
            recipe: the resolved recipe as text.

        Raises:
            UserError: If one cannot begin, such as without a login.
        """
        if not names:
            return
        run = self._folder.path.absolute().name
        arguments = {
            "wandb": {"name": run, "dir": str(self._folder.path)},
            "mlflow": {"run_name": run},
            "trackio": {"name": run},
        }
        chosen = {name: arguments[name] for name in names if name in arguments}
        try:
            self._accelerator.init_trackers(TRACKERS, init_kwargs=chosen)
        except Exception as error:
            raise UserError(
                f"train.log_with: {list(names)} cannot begin ({reason(error)}); log in, or run "
                "without a connection as the tracker says (WANDB_MODE=offline), or leave it out"
            ) from error
        self._settings = flattened(recipe)
        for tracker in self._trackers():
            if tracker.name == TENSORBOARD:
                text = "\n".join(f"    {line}" for line in recipe.splitlines())  # a code block
                self._try(tracker, partial(tracker.writer.add_text, "recipe", text))
            else:
                # MLflow, for one, has no null.
                settings = {key: str(value) for key, value in self._settings.items()}
                self._try(tracker, partial(tracker.store_init_configuration, settings))

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Log figures.

        Args:
            figures: by name, such as `validation/top1`.
            step: the number of optimizer steps that were made.
        """
        for tracker in self._trackers():
            values = dict(figures)
            if tracker.name == "mlflow":  # whose names have no @
                values = {name.replace("@", "_at_"): value for name, value in values.items()}
            self._try(tracker, partial(tracker.log, values, step=step))

    def layer_map(self, record: Mapping[str, Any], step: int) -> None:
        """Log the map of the layers as a picture, where the tracker takes some.

        Args:
            record: `value`, CKA by layer of the teacher and the student.
            step: as `log`.
        """
        if self._trackers():
            self.pictures({"layers/cka": map_picture(record["value"])}, step)

    def pictures(self, pictures: Pictures, step: int) -> None:
        """Log pictures, where the tracker takes some.

        Args:
            pictures: (H, W, 3) by name, such as `previews/0`.
            step: as `log`.
        """
        for name, picture in pictures.items():
            for tracker in self._trackers():
                action = picture_action(tracker, name, picture, step)
                if action is not None:
                    self._try(tracker, action)

    def finish(self, test: Mapping[str, float], step: int) -> None:
        """Log the figures on test data.

        Args:
            test: by name.
            step: as `log`.
        """
        figures = {f"test/{name}": value for name, value in test.items()}
        self.log(figures, step)
        settings = {
            key: value if isinstance(value, (bool, int, float)) else str(value)
            for key, value in self._settings.items()
        }
        final = {f"final/{name}": value for name, value in figures.items()}
        for tracker in self._trackers():
            if tracker.name == TENSORBOARD:  # its table of runs has settings beside figures
                add = tracker.writer.add_hparams
                self._try(tracker, partial(add, settings, final, run_name="."))

    def close(self) -> None:
        """End the runs of the trackers."""
        self._accelerator.end_training()

    def _trackers(self) -> list[Any]:
        if not self._accelerator.is_main_process:
            return []
        return [t for t in self._accelerator.trackers if t.name not in self._failed]

    def _try(self, tracker: Any, action: Callable[[], Any]) -> None:
        """Do without a tracker that fails: hours of training are worth more than its figures."""
        try:
            action()
        except Exception as error:
            self._failed.add(tracker.name)
            print(
                f"warning: {tracker.name} fails and is left out from now on ({reason(error)}); "
                f"all figures are in {self._folder.path}",
                file=sys.stderr,
            )


def flattened(recipe: str) -> dict[str, Any]:
    """Return the keys of a recipe as the command line would set them; lists are one text.

    >>> flattened("seed: 1\\ntrain: {epochs: 3, milestones: [1, 2]}")
    {'seed': 1, 'train.epochs': 3, 'train.milestones': '[1, 2]'}
    >>> flattened("Recipe(data=Digits())")
    {'recipe': 'Recipe(data=Digits())'}
    """
    try:
        content = yaml.safe_load(recipe)
    except yaml.YAMLError:
        content = None
    if not isinstance(content, dict):  # made in Python
        return {"recipe": recipe.strip()}
    flat: dict[str, Any] = {}
    _flatten("", content, flat)
    return flat


def _flatten(prefix: str, value: Any, flat: dict[str, Any]) -> None:
    if isinstance(value, dict) and value:
        for key, entry in value.items():
            _flatten(f"{prefix}.{key}" if prefix else str(key), entry, flat)
    elif isinstance(value, (list, dict)):
        flat[prefix] = str(value)
    else:
        flat[prefix] = value
