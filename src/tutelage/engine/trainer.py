"""The training loop: optimizer steps over Accelerate, validation, checkpoints."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from tutelage.core import Batch
from tutelage.engine import checkpoint, ranks
from tutelage.engine.checks.terms import check_after_last_step, refuse_non_finite
from tutelage.engine.epoch_sums import EpochSums, sum_terms
from tutelage.engine.evaluate import evaluate, evaluation
from tutelage.engine.interrupt import Interrupt
from tutelage.engine.layer_maps import layer_tracker
from tutelage.engine.moving_average import MovingAverage
from tutelage.engine.optim import lr_factor
from tutelage.engine.patience import is_out_of_patience
from tutelage.engine.progress import Progress, device_line
from tutelage.engine.run_folder import LAYER_MAPS, RunFolder
from tutelage.engine.setup import TrainingSetup
from tutelage.engine.trackers import Trackers
from tutelage.engine.training_state import pack, unpack
from tutelage.errors import NonFiniteError

GPU_CHECK_STEPS = 16
STOP_CHECK_STEPS = 16  # several ranks ask each other that often whether one shall stop


class Trainer:
    """Trains a recipe that is ready; all its state can be saved and restored exactly.

    Args:
        ready: distiller, optimizer and data.
        accelerator: devices, precision, ranks.
        folder: where the log and the checkpoints go.
        trackers: where the figures go besides; None is nowhere.
        ends_early: asked before every epoch whether the run ends there; None never ends it.
    """

    def __init__(
        self,
        ready: TrainingSetup,
        accelerator: Accelerator,
        folder: RunFolder,
        trackers: Trackers | None = None,
        ends_early: Callable[[], bool] | None = None,
    ) -> None:
        self.ready = ready
        self.ends_early = ends_early
        self.accelerator = accelerator
        self.folder = folder
        self.trackers = Trackers(accelerator, folder) if trackers is None else trackers
        self.train = ready.setup.recipe.train
        self.task = ready.setup.recipe.task
        self.distiller = ready.distiller
        self.base_lr = [group["lr"] for group in ready.optimizer.param_groups]
        self.model, wrapped = accelerator.prepare(self.distiller, ready.optimizer)
        # Accelerate's wrapper of the optimizer only costs time without a gradient scaler.
        self.scaled = accelerator.scaler is not None
        self.optimizer = wrapped if self.scaled else wrapped.optimizer
        self.ema: MovingAverage | None = None
        if self.train.ema_decay is not None:
            self.ema = MovingAverage(self.distiller.student, self.train.ema_decay)
        self.steps_per_epoch = len(ready.sampler)
        self.total = self.steps_per_epoch * self.train.epochs
        self.step = 0
        self.seconds = 0.0
        self.cap = ready.cap
        self.sums = EpochSums()
        self.layer_tracker = layer_tracker(ready) if folder.writes else None
        self.best: dict[str, Any] = {}
        self.best_weights: dict[str, Tensor] = {}
        # Buffers may hold -inf by design, such as the mask of a causal attention.
        self._masks = set(checkpoint.non_finite(self.distiller.state_dict()))
        self._saved_step = -1

    @property
    def averaged_student(self) -> nn.Module:
        """The student that is validated and shipped: the moving average, if there is one."""
        return self.distiller.student if self.ema is None else self.ema.module

    def run(self, interrupt: Interrupt) -> bool:
        """Train to the end; return False if interrupted, after writing a checkpoint."""
        if self.step == 0:
            self._log_layer_map(0)
        progress = Progress(
            self.total,
            self.step,
            self.accelerator.is_main_process,
            self.train.epochs,
            device_line(self.accelerator),
        )
        try:
            while self.step < self.total:
                if is_out_of_patience(self.best, self.step / self.steps_per_epoch, self.train):
                    break
                if self.ends_early is not None and self.ends_early():
                    break
                if not self._epoch(progress, interrupt):
                    if self._saved_step != self.step:
                        self.save()
                    return False
            return True
        finally:
            progress.close()

    def _epoch(self, progress: Progress, interrupt: Interrupt) -> bool:
        sampler = self.ready.sampler
        sampler.epoch, sampler.start = divmod(self.step, self.steps_per_epoch)
        epoch = sampler.epoch
        self.model.train()
        start = time.monotonic()
        for batch in self.ready.training_batches():
            self._step(batch)
            progress.step()
            if self._stops(interrupt) and self.step % self.steps_per_epoch:
                self.seconds += time.monotonic() - start
                return False
        self.seconds += time.monotonic() - start
        if self.step == self.total:
            check_after_last_step(self.distiller, self.ready.example)
        self._end_epoch(epoch + 1, progress)
        return not self._any_rank(interrupt.requested)

    def _step(self, batch: Batch) -> None:
        factor = lr_factor(self.step, self.steps_per_epoch, self.train)
        for group, base in zip(self.optimizer.param_groups, self.base_lr, strict=True):
            group["lr"] = base * factor
        terms = self.model(batch, self.step / self.total)
        loss = sum_terms(terms) if self.cap is None else self.cap(terms)
        if self.scaled:
            self.accelerator.backward(loss)
        else:
            loss.backward()
        self._add_up(terms)
        if self.train.max_grad_norm is not None:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.train.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.ema is not None:
            self.ema.update_parameters(self.distiller.student)
        self.step += 1

    def _add_up(self, terms: dict[str, Tensor]) -> None:
        """Add the terms to the epoch's sums; stop if one is not finite.

        Reading a value makes an accelerator wait, so there it happens every few steps only.
        """
        self.sums.add(terms)
        checks_now = self.accelerator.device.type == "cpu" or self.step % GPU_CHECK_STEPS == 0
        if checks_now and not self.sums.are_finite():
            epoch = self.step // self.steps_per_epoch + 1
            refuse_non_finite(self.sums.by_name(), f"in epoch {epoch} at step {self.step + 1}")

    def _end_epoch(self, epoch: int, progress: Progress) -> None:
        assert self.sums.values is not None
        self.sums.values = self.mean_over_ranks(self.sums.values) / self.steps_per_epoch
        terms = self.sums.by_name()
        refuse_non_finite(terms, f"in epoch {epoch}")
        self._refuse_non_finite_weights()
        self.sums = EpochSums()
        metrics: dict[str, float] = {}
        if epoch % self.train.eval_every == 0 or epoch == self.train.epochs:
            metrics = self.validate()
            self._remember_best(epoch, metrics)
        lr = self.optimizer.param_groups[0]["lr"]
        cap = {} if self.cap is None else self.cap.record()
        self.folder.log(
            {
                "epoch": epoch,
                "step": self.step,
                "lr": lr,
                "seconds": round(self.seconds, 3),
                "terms": terms,
                **({"gradient_cap": cap} if cap else {}),
                "validation": metrics,
            }
        )
        named = {f"validation/{name}": value for name, value in metrics.items()}
        named |= {f"gradient_cap/{name}": value for name, value in cap.items()}
        self.trackers.log({**terms, **named, "lr": lr}, self.step)
        monitored = {name: v for name, v in metrics.items() if name == self.task.monitor}
        progress.epoch(epoch, monitored, terms)
        self._log_layer_map(epoch)
        # The last one is for the evaluation on test data, which may be long, and what follows.
        if epoch % self.train.save_every == 0 or epoch == self.train.epochs:
            self.save()

    def _remember_best(self, epoch: int, metrics: dict[str, float]) -> None:
        monitor = self.task.monitor
        best = self.best["metrics"][monitor] if self.best else math.nan
        if not (metrics[monitor] > best or math.isnan(best)):  # NaN is never better
            return
        self.best = {"epoch": epoch, "metrics": metrics}
        state = self.averaged_student.state_dict()
        self.best_weights = {name: value.detach().cpu().clone() for name, value in state.items()}

    def _log_layer_map(self, epoch: int) -> None:
        if self.layer_tracker is None:
            return
        if epoch % self.train.cka_every == 0 or epoch == self.train.epochs:
            record = self.layer_tracker.record(self.averaged_student)
            self.folder.log({"epoch": epoch, "step": self.step, **record}, LAYER_MAPS)
            self.trackers.layer_map(record, self.step)

    def mean_over_ranks(self, value: Tensor) -> Tensor:
        """Return the mean of a tensor over all ranks; each has an equal share of every batch."""
        mean: Tensor = self.accelerator.reduce(value.clone(), "mean")
        return mean

    def _stops(self, interrupt: Interrupt) -> bool:
        """Return whether to stop after this step; all ranks get the same answer.

        One that stopped alone would leave the others waiting in a collective call.
        """
        if self.accelerator.num_processes == 1:
            return interrupt.requested
        return self.step % STOP_CHECK_STEPS == 0 and self._any_rank(interrupt.requested)

    def _any_rank(self, flag: bool) -> bool:
        """Return whether the flag is set on any rank, so that all stop at the same step."""
        value = torch.tensor(float(flag), device=self.accelerator.device)
        return bool(self.accelerator.reduce(value, "sum") > 0)

    def validate(self) -> dict[str, float]:
        """Return the metrics on validation data of the network that the method is judged by."""
        self.share_buffers()
        model = self.distiller.method.eval_model(self.averaged_student)
        run = evaluation("validation", self.ready.loading)
        return evaluate(model, self.task, self.ready.setup.parts, run)

    def share_buffers(self) -> None:
        """Give every rank the first rank's buffers; batch-norm statistics differ after a step.

        Those of the moving average too: it is what is validated and shipped.
        """
        if self.accelerator.num_processes == 1:
            return
        for module in filter(None, (self.distiller, self.ema)):
            for value in module.buffers():
                torch.distributed.broadcast(value, src=0)

    def save(self) -> None:
        """Write a checkpoint: all that the next step depends on.

        Raises:
            NonFiniteError: If a weight is NaN or infinite; earlier checkpoints stay.
        """
        self._refuse_non_finite_weights()
        tensors, state = pack(self)
        if self.folder.writes:
            checkpoint.save_checkpoint(self.folder.checkpoints, self.step, tensors, state)
        self._saved_step = self.step

    def restore(self) -> bool:
        """Restore the newest checkpoint that is whole; return False if there is none.

        Raises:
            UserError: If there are checkpoints and none can be used.
        """
        path = self._common_checkpoint()
        if path is None:
            return False
        tensors, state = checkpoint.load_checkpoint(path)
        unpack(self, tensors, state, path)
        self.folder.rewind(self.step)
        self._saved_step = self.step
        return True

    def _common_checkpoint(self) -> Path | None:
        """Return the checkpoint that all ranks restore, as the first one chooses it."""

        def choose() -> Path | None:
            path, problems = checkpoint.newest_checkpoint(self.folder.checkpoints)
            for problem in problems:
                print(f"warning: {problem}; going on from {path}", file=sys.stderr)
            if problems and path is not None:
                checkpoint.remove_newer(path)
            return path

        return ranks.on_first(choose, self.accelerator)

    def _refuse_non_finite_weights(self) -> None:
        """Stop before weights that became NaN or infinite are validated or saved."""
        weights = self.distiller.state_dict()
        wrong = [name for name in checkpoint.non_finite(weights) if name not in self._masks]
        if wrong:
            raise NonFiniteError(
                wrong[0],
                f"the weight '{wrong[0]}' is not finite after step {self.step}; lower the learning "
                "rate or check the data (checkpoints from before that are kept)",
            )
