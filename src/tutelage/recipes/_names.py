"""The names that a message offers in place of a wrong one."""

from __future__ import annotations

from collections.abc import Iterable

import torch

import tutelage.data
import tutelage.methods
import tutelage.models
import tutelage.tasks
from tutelage.errors import close_names, near_misses

# What a name was called before, where the new one is too unlike to be guessed.
FORMER_NAMES = {
    "Alone": "Baseline",
    "Mimic": "FitNet",
    "Together": "CombinedMethod",
    "alone": "student_task_weight",
    "budget": "share",
    "checkpoint_every": "save_every",
    "clip_norm": "max_grad_norm",
    "decay_vectors": "weight_decay_norm_and_bias",
    "ema": "ema_decay",
    "feature": "feature_weight",
    "image": "input_shape",
    "inter": "inter_weight",
    "intra": "intra_weight",
    "keep": "checkpoint",
    "map_every": "cka_every",
    "network": "model",
    "remember": "cache",
    "scheme": "schedule",
    "trackers": "log_with",
    "undecayed": "no_weight_decay",
}
# Classes that moved to another module.
FORMER_CLASSES = {
    "Absent": "tutelage.NoTeacher",
    "Network": "tutelage.FrozenTeacher",
    "OpenImages": "tutelage.data.LabeledWithPools",
    "Remembered": "tutelage.CachedTeacher",
    "Together": "tutelage.CombinedMethod",
    "Unlabelled": "tutelage.methods.UnlabeledData",
}
# Where the classes of a section are, and one of them.
MODULES = {
    "data": (tutelage.data, "tutelage.data.Digits"),
    "method": (tutelage.methods, "tutelage.methods.KD"),
    "methods": (tutelage.methods, "tutelage.methods.KD"),
    "model": (tutelage.models, "tutelage.models.small_cnn"),
    "optimizer": (torch.optim, "torch.optim.AdamW"),
    "task": (tutelage.tasks, "tutelage.tasks.Classification"),
}


def suggest(wrong: str, known: Iterable[str]) -> str:
    """Return the end of a sentence with the names that were perhaps meant.

    That is the new name of a former one, or names that hold the wrong one, or the nearest ones.

    >>> suggest("keep", ["checkpoint", "epochs"]), suggest("epoch", ["train.epochs", "seed"])
    ("; did you mean ['checkpoint']?", "; did you mean ['train.epochs']?")
    """
    known = list(known)
    section, dot, name = wrong.rpartition(".")
    renamed = f"{section}{dot}{FORMER_NAMES.get(name)}"
    in_section = [key for key in known if key.endswith(f".{wrong}")]
    longer = [key for key in known if wrong in key and len(wrong) > 2]
    for names in ([renamed] if renamed in known else [], in_section, longer[:3]):
        if names:
            return f"; did you mean {names}?"
    return near_misses(wrong, known)


def example_of(key: str) -> str:
    """Return a class path that a key of a recipe takes.

    >>> example_of("train.optimizer"), example_of("teachers.large.model")
    ('torch.optim.AdamW', 'tutelage.models.small_cnn')
    """
    return MODULES.get(key.rpartition(".")[2], MODULES["method"])[1]


def suggest_class(key: str, wrong: str) -> str:
    """Return the end of a sentence with the classes near a bare name; nothing if none is near.

    >>> suggest_class("train.optimizer", "adamw")
    "; did you mean ['torch.optim.AdamW']?"
    >>> suggest_class("student.model", "perceptron")
    ''
    """
    if key.rpartition(".")[2] not in MODULES:
        return ""
    module, example = MODULES[key.rpartition(".")[2]]
    names = list(module.__all__)
    package = example.rpartition(".")[0]
    close = [f"{package}.{name}" for name in close_names(wrong, names)]
    return f"; did you mean {close}?" if close else ""
