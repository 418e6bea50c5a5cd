"""Short recipes on real digits."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import nn

from tutelage import Classification, Method
from tutelage.data import Digits
from tutelage.engine import Recipe, StudentConfig, TeacherConfig, TrainConfig


def make_net(width: int) -> nn.Sequential:
    """Return a two-layer convolutional network for 8x8 digits, with batch norm and dropout."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(width * 16, 10),
    )


def make_recipe(method: Method, teacher: Path | None, width: int = 4, **train: object) -> Recipe:
    """Return a short recipe on 200 labeled digits."""
    torch.manual_seed(0)
    settings: dict[str, object] = {
        "epochs": 2,
        "batch_size": 50,
        "num_threads": 1,
        "eval_batch_size": 256,
        **train,
    }
    return Recipe(
        data=Digits(),
        task=Classification(num_classes=10),
        student=StudentConfig(make_net(width)),
        method=method,
        teacher=None if teacher is None else TeacherConfig(make_net(16), weights=str(teacher)),
        train=TrainConfig(optimizer=partial(torch.optim.AdamW, lr=3e-3), **settings),
        num_labels=200,
    )
