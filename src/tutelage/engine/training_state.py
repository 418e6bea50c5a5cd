"""What a checkpoint holds: the state of a trainer as tensors and JSON, and back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate.utils import set_seed
from torch import Tensor

from tutelage.engine.checkpoint import (
    pack_optimizer,
    pack_rng,
    prefixed,
    unpack_optimizer,
    unpack_rng,
    unprefixed,
)
from tutelage.engine.loader import PRIME
from tutelage.engine.ranks import gather
from tutelage.errors import UserError, reason

if TYPE_CHECKING:
    from tutelage.engine.trainer import Trainer


def pack(trainer: Trainer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return all that the next step depends on; every rank calls it, the first one's counts."""
    accelerator = trainer.accelerator
    generators = gather(pack_rng(), accelerator)
    slots, optimizer = pack_optimizer(trainer.optimizer)
    tensors = {
        **prefixed("model", trainer.distiller.state_dict()),
        **prefixed("optimizer", slots),
        **prefixed("best", trainer.best_weights),
    }
    if trainer.ema is not None:
        tensors.update(prefixed("ema", trainer.ema.state_dict()))
    if trainer.cap is not None:
        tensors.update(prefixed("cap", trainer.cap.state_dict()))
    if trainer.sums.values is not None:
        # The mean over ranks, so that any number of ranks can go on from it.
        tensors["sums"] = trainer.mean_over_ranks(trainer.sums.values)
    for rank, (own, _) in enumerate(generators):
        tensors.update(prefixed(f"rng{rank}", own))
    scaler = accelerator.scaler
    state = {
        "step": trainer.step,
        "samples": _num_samples(trainer),
        "data": trainer.ready.setup.recipe.data.input_info(trainer.distiller.student),
        "seconds": trainer.seconds,
        "names": list(trainer.sums.names),
        "best": trainer.best,
        "optimizer": optimizer,
        "rng": [rest for _, rest in generators],
        "scaler": None if scaler is None else scaler.state_dict(),
    }
    return tensors, state


def unpack(
    trainer: Trainer, tensors: dict[str, Tensor], state: dict[str, Any], source: Path
) -> None:
    """Give a trainer the state that `pack` returned.

    Args:
        trainer: of the same recipe, on any number of ranks.
        tensors: by name.
        state: the rest.
        source: for messages.

    Raises:
        UserError: If it does not fit, because the code of a network or a method has changed, or
            the data is another.
    """
    _check_samples(trainer, state, source)
    trainer.ready.setup.recipe.data.check_network(state.get("data", {}), str(source))
    try:
        _unpack(trainer, tensors, state)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{source} does not fit the networks or the method ({reason(error)}), whose code has "
            "changed since; go on with that code, or choose another --out"
        ) from error
    _restore_generators(trainer, tensors, state["rng"])


def _unpack(trainer: Trainer, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    trainer.distiller.load_state_dict(unprefixed("model", tensors))
    slots = unprefixed("optimizer", tensors)
    unpack_optimizer(trainer.optimizer, slots, state["optimizer"])
    trainer.best = state["best"]
    trainer.best_weights = unprefixed("best", tensors)
    if trainer.ema is not None:
        trainer.ema.load_state_dict(unprefixed("ema", tensors))
    trainer.sums.names = tuple(state["names"])
    sums = tensors.get("sums")
    trainer.sums.values = None if sums is None else sums.to(trainer.accelerator.device)
    if trainer.cap is not None:
        trainer.cap.load_state_dict(unprefixed("cap", tensors))
    trainer.step = state["step"]
    trainer.seconds = state["seconds"]
    scaler = trainer.accelerator.scaler
    if state["scaler"] is not None and scaler is not None:
        scaler.load_state_dict(state["scaler"])


def _num_samples(trainer: Trainer) -> dict[str, int]:
    return {name: len(samples) for name, samples in trainer.ready.setup.parts.items()}


def _check_samples(trainer: Trainer, state: dict[str, Any], source: Path) -> None:
    """Raise if the data has grown or shrunk: its parts would be cut otherwise, in other epochs."""
    now = _num_samples(trainer)
    before = state.get("samples", now)
    changed = [name for name in before if before[name] != now.get(name)]
    if changed:
        counts = ", ".join(f"{name} {before[name]} and now {now.get(name, 0)}" for name in changed)
        raise UserError(
            f"{source} is of data with other numbers of samples ({counts}); bring the data back as "
            "it was, or choose another --out"
        )


def _restore_generators(
    trainer: Trainer, tensors: dict[str, Tensor], states: list[dict[str, Any]]
) -> None:
    """Restore the random generators of this rank; new ones if the number of ranks is another."""
    accelerator = trainer.accelerator
    rank = accelerator.process_index
    if len(states) == accelerator.num_processes:
        unpack_rng(unprefixed(f"rng{rank}", tensors), states[rank])
        return
    if accelerator.is_main_process:
        print(
            f"note: the checkpoint is of {len(states)} process(es) and goes on on "
            f"{accelerator.num_processes}; dropout and the like draw other random numbers than "
            "in a run that was not interrupted",
            file=sys.stderr,
        )
    seed = trainer.ready.setup.recipe.seed
    # Not those of the first step again; a seed of NumPy has 32 bits.
    set_seed((seed + rank + PRIME * trainer.step) % 2**32)
