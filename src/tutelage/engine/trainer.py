"""The loop: optimiser steps over Accelerate, validation, checkpoints. It knows no method."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tutelage.engine import checkpoint
from tutelage.engine.assemble import Assembly
from tutelage.engine.evaluate import evaluate
from tutelage.engine.guard import check_end, refuse_non_finite
from tutelage.engine.interrupt import Interrupt
from tutelage.engine.parameters import parameter_groups
from tutelage.engine.progress import Progress
from tutelage.engine.recipe import Recipe
from tutelage.engine.run_folder import MAPS, RunFolder
from tutelage.engine.schedule import lr_factor
from tutelage.engine.watch import PROBES, LayerWatch
from tutelage.errors import UserError

GPU_CHECK_STEPS = 16


class Trainer:
    """Trains an assembled recipe; all its state can be saved and restored exactly.

    Args:
        recipe: what to run.
        parts: the recipe, assembled.
        accelerator: devices, precision, ranks.
        folder: where the log and the checkpoints go.
    """

    def __init__(self, recipe: Recipe, parts: Assembly, accelerator: Accelerator, folder: RunFolder) -> None:
        self.train, self.parts, self.accelerator, self.folder = recipe.train, parts, accelerator, folder
        self.task, self.distiller = recipe.task, parts.distiller
        optimizer = self.train.optimizer(parameter_groups(self.distiller, self.train))
        self.base_lr = [group["lr"] for group in optimizer.param_groups]
        self.model, wrapped = accelerator.prepare(self.distiller, optimizer)
        self.scaled = accelerator.scaler is not None
        self.optimizer = wrapped if self.scaled else wrapped.optimizer  # the wrapper only costs time without a scaler
        self.ema: AveragedModel | None = None
        if self.train.ema is not None:
            average = get_ema_multi_avg_fn(self.train.ema)  # type: ignore[no-untyped-call]
            self.ema = AveragedModel(self.distiller.student, multi_avg_fn=average, use_buffers=True)
        self.steps_per_epoch = len(parts.sampler)
        self.total = self.steps_per_epoch * self.train.epochs
        self.step = 0
        self.seconds = 0.0
        self.names: Sequence[str] = ()
        self.sums: Tensor | None = None
        self.watch = _watch(recipe, parts) if folder.writes else None
        self.best: dict[str, Any] = {}
        self.best_weights: dict[str, Tensor] = {}

    @property
    def evaluated(self) -> nn.Module:
        """The network that is validated and shipped: the average, or the student itself."""
        return self.distiller.student if self.ema is None else self.ema.module

    def run(self, interrupt: Interrupt) -> bool:
        """Train to the end; return False when interrupted (a checkpoint is then written)."""
        if self.step == 0:
            self._map(0)
        progress = Progress(self.total, self.step, self.accelerator.is_main_process)
        try:
            while self.step < self.total:
                if not self._epoch(progress, interrupt):
                    self.save()
                    return False
            return True
        finally:
            progress.close()

    def _epoch(self, progress: Progress, interrupt: Interrupt) -> bool:
        epoch, self.parts.sampler.start = divmod(self.step, self.steps_per_epoch)
        self.parts.sampler.epoch = epoch
        self.model.train()
        started = time.monotonic()
        alone = self.accelerator.num_processes == 1
        for batch in self.parts.training:
            self._step(self.parts.move(batch))
            progress.step()
            if interrupt.asked and alone and self.step % self.steps_per_epoch:
                self.seconds += time.monotonic() - started
                return False
        self.seconds += time.monotonic() - started
        if self.step == self.total:
            check_end(self.distiller, self.parts.example)
        self._end_epoch(epoch + 1, progress)
        return not (self._agree(interrupt.asked) and self.step < self.total)

    def _step(self, batch: Any) -> None:
        factor = lr_factor(self.step, self.steps_per_epoch, self.train)
        for group, base in zip(self.optimizer.param_groups, self.base_lr, strict=True):
            group["lr"] = base * factor
        terms = self.model(batch, self.step / self.total)
        loss = reduce(add, terms.values())
        if self.scaled:
            self.accelerator.backward(loss)
        else:
            loss.backward()
        self._count(terms)
        if self.train.clip_norm is not None:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.train.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.ema is not None:
            self.ema.update_parameters(self.distiller.student)
        self.step += 1

    def _count(self, terms: dict[str, Tensor]) -> None:
        """Add the terms up without waiting for the device; stop when one is not finite."""
        values = torch.stack([value.detach().float() for value in terms.values()])
        if self.sums is None:
            self.names, self.sums = tuple(terms), torch.zeros_like(values)
        self.sums += values
        looks = values.device.type == "cpu" or self.step % GPU_CHECK_STEPS == 0
        if looks and not math.isfinite(float(self.sums.sum())):
            where = f"in epoch {self.step // self.steps_per_epoch + 1} at step {self.step + 1}"
            refuse_non_finite(dict(zip(self.names, self.sums.tolist(), strict=True)), where)

    def _end_epoch(self, epoch: int, progress: Progress) -> None:
        assert self.sums is not None
        means = (self.sums / self.steps_per_epoch).tolist()
        terms = dict(zip(self.names, means, strict=True))
        refuse_non_finite(terms, f"in epoch {epoch}")
        self.sums = None
        figures: dict[str, float] = {}
        if epoch % self.train.evaluate_every == 0 or epoch == self.train.epochs:
            figures = self.validate()
            if not self.best or figures[self.task.select] > self.best["figures"][self.task.select]:
                self.best = {"epoch": epoch, "figures": figures}
                self.best_weights = {k: v.detach().cpu().clone() for k, v in self.evaluated.state_dict().items()}
        lr = self.optimizer.param_groups[0]["lr"]
        record = {"epoch": epoch, "step": self.step, "lr": lr, "seconds": round(self.seconds, 3)}
        self.folder.log({**record, "terms": terms, "validation": figures})
        self.accelerator.log({**terms, **{f"validation/{k}": v for k, v in figures.items()}, "lr": lr}, step=self.step)
        progress.epoch(epoch, {**terms, **{k: v for k, v in figures.items() if k == self.task.select}})
        self._map(epoch)
        if epoch % self.train.checkpoint_every == 0 and epoch < self.train.epochs:
            self.save()

    def _map(self, epoch: int) -> None:
        if self.watch is not None and (epoch % self.train.map_every == 0 or epoch == self.train.epochs):
            self.folder.log({"epoch": epoch, "step": self.step, **self.watch.record(self.evaluated)}, MAPS)

    def _agree(self, asked: bool) -> bool:
        """Return whether any rank was asked to stop: all stop at the same epoch's end."""
        flag = torch.tensor(float(asked), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, "sum") > 0)

    def validate(self) -> dict[str, float]:
        """Return the figures of the evaluated network on validation data."""
        self.share_buffers()
        return evaluate(self.evaluated, self.task, self.parts.validation, self.parts.move)

    def share_buffers(self) -> None:
        """Give every rank the first rank's buffers: batch-norm statistics differ between ranks after a step."""
        if self.accelerator.num_processes > 1:
            for value in self.distiller.buffers():
                torch.distributed.broadcast(value, src=0)

    def save(self) -> None:
        """Write a checkpoint: all that the next step depends on."""
        random_tensors, random_state = checkpoint.pack_rng()
        ranks = _gather([(random_tensors, random_state)], self.accelerator)
        if not self.folder.writes:
            return
        slots, optimizer = checkpoint.pack_optimizer(self.optimizer)
        tensors = {
            **checkpoint.prefixed("model", self.distiller.state_dict()),
            **checkpoint.prefixed("optimizer", slots),
            **checkpoint.prefixed("best", self.best_weights),
        }
        if self.ema is not None:
            tensors.update(checkpoint.prefixed("ema", self.ema.state_dict()))
        if self.sums is not None:
            tensors["sums"] = self.sums
        for rank, (generators, _) in enumerate(ranks):
            tensors.update(checkpoint.prefixed(f"rng{rank}", generators))
        scaler = self.accelerator.scaler
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "names": list(self.names),
            "best": self.best,
            "optimizer": optimizer,
            "rng": [rest for _, rest in ranks],
            "scaler": None if scaler is None else scaler.state_dict(),
        }
        checkpoint.save_checkpoint(self.folder.checkpoints, self.step, tensors, state)

    def restore(self) -> bool:
        """Go back to the newest checkpoint; return False when there is none."""
        found = checkpoint.load_checkpoint(self.folder.checkpoints)
        if found is None:
            return False
        tensors, state = found
        self.distiller.load_state_dict(checkpoint.unprefixed("model", tensors))
        checkpoint.unpack_optimizer(self.optimizer, checkpoint.unprefixed("optimizer", tensors), state["optimizer"])
        self.best, self.best_weights = state["best"], checkpoint.unprefixed("best", tensors)
        if self.ema is not None:
            self.ema.load_state_dict(checkpoint.unprefixed("ema", tensors))
        self.names, self.sums = tuple(state["names"]), tensors.get("sums")
        if self.sums is not None:
            self.sums = self.sums.to(self.accelerator.device)
        self.step, self.seconds = state["step"], state["seconds"]
        if state["scaler"] is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        rank = self.accelerator.process_index
        checkpoint.unpack_rng(checkpoint.unprefixed(f"rng{rank}", tensors), state["rng"][rank])
        self.folder.rewind(self.step)
        return True


def _watch(recipe: Recipe, parts: Assembly) -> LayerWatch | None:
    if not recipe.train.map_every:
        return None
    if parts.teacher is None:
        raise UserError("train.map_every compares the student's layers with a teacher's; give the recipe a teacher")
    batch = parts.move(parts.splits.validation.__getitems__(range(min(PROBES, len(parts.splits.validation)))))
    images = recipe.task.inputs(batch)[0]
    if not isinstance(images, Tensor):
        raise UserError("train.map_every maps networks that take one tensor of images; leave it out for this task")
    return LayerWatch(parts.teacher.network, images)


def _gather(mine: list[Any], accelerator: Accelerator) -> list[Any]:
    if accelerator.num_processes == 1:
        return mine
    everyone: list[Any] = [None] * accelerator.num_processes
    torch.distributed.all_gather_object(everyone, mine[0])
    return everyone
