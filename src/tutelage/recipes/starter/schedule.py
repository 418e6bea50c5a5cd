"""The `train` section of recipes for one's own data."""

from __future__ import annotations

import os

from tutelage.recipes.starter.yaml_text import comment, entry

SMALL, MEDIUM = 5_000, 50_000  # training items


def schedule(num_train: int, *, batch_size: int, lr: float, is_large: bool) -> str:
    """Return the section: epochs by the number of items, AdamW with a cosine schedule.

    Args:
        num_train: number of training items.
        batch_size: at most.
        lr: learning rate.
        is_large: whether images are decoded in every epoch, for which processes are of use.
    """
    epochs = 60 if num_train <= SMALL else 30 if num_train <= MEDIUM else 20
    while batch_size > 4 and 4 * batch_size > num_train:
        batch_size //= 2
    optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"lr": lr, "weight_decay": 0.05}}
    workers = min(8, os.cpu_count() or 1) if is_large else 0
    lines = [
        "train:",
        entry("epochs", epochs, "passes over the training images; more for better", depth=1),
        entry("batch_size", batch_size, "halve it if memory runs out", depth=1),
        entry("eval_batch_size", batch_size, depth=1),
        entry("optimizer", optimizer, depth=1),
        entry("warmup_epochs", 1, depth=1),
        entry("max_grad_norm", 5.0, depth=1),
        entry("eval_every", max(1, epochs // 20), "epochs between validations", depth=1),
        entry("num_workers", workers, "processes that read images", depth=1),
        comment("precision: bf16  # faster on a GPU", depth=1),
        comment(
            "patience: 5  # ends the run after so many validations without a better one", depth=1
        ),
    ]
    return "\n".join(lines) + "\n"
