"""Several processes of one run: how many were launched, and what the first one says to all."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from accelerate import Accelerator

from tutelage.errors import UserError

# Of torchrun and `accelerate launch`, and of MPI's launchers, as Accelerate reads them.
RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")

# What `accelerate launch` sets where a network is to be sharded.
SHARDING = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
}

T = TypeVar("T")


def launched_world() -> int:
    """Return how many processes torchrun or `accelerate launch` started; 1 without them."""
    return _number("WORLD_SIZE", 1)


def is_first_launched() -> bool:
    """Return whether this is the first process of its launcher; to ask before there is a group."""
    return all(_number(name, 0) == 0 for name in RANKS)


def needs_cpu() -> bool:
    """Return whether several processes have to share the CPU, since there is nothing else.

    Accelerate would take each of them for a run of its own unless `cpu` is set.
    """
    accelerators = getattr(torch, "accelerator", torch.cuda)  # torch 2.4 and 2.5 lack the first
    # Without a local rank nothing launched this process, and Accelerate would wait for others.
    is_launched = launched_world() > 1 and "LOCAL_RANK" in os.environ
    return is_launched and not accelerators.is_available()


def check_launch(accelerator: Accelerator) -> None:
    """Refuse processes that do not know of each other: each would be a whole run.

    Raises:
        UserError: If Accelerate found another number of processes than were launched.
    """
    launched = launched_world()
    found = accelerator.num_processes
    if "WORLD_SIZE" in os.environ and launched != found:
        raise UserError(
            f"{launched} processes were launched (WORLD_SIZE), but Accelerate found {found}, so "
            "each of them would be a run of its own; set ACCELERATE_USE_CPU=true to use CPUs, or "
            "unset WORLD_SIZE for a run of one process"
        )


def check_devices() -> None:
    """Refuse more processes on a machine than it has GPUs.

    Raises:
        UserError: The message has the number of GPUs.
    """
    local = _number("LOCAL_WORLD_SIZE", 1)
    uses_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes", "on", "y")
    if local > 1 and torch.cuda.is_available() and not uses_cpu:
        count = torch.cuda.device_count()
        if local > count:
            raise UserError(
                f"{local} processes were launched on a machine with {count} GPU(s); launch as many "
                "as it has GPUs, or set ACCELERATE_USE_CPU=true"
            )


def refuse_sharding() -> None:
    """Refuse to shard the student over processes.

    Raises:
        UserError: If the settings of `accelerate launch` ask for it.
    """
    for variable, name in SHARDING.items():
        if os.environ.get(variable, "").lower() in ("1", "true", "yes", "on", "y"):
            raise UserError(
                f"Accelerate is set to {name}, but training is data parallel (DDP) only: checks, "
                "gradient cap and checkpoints take whole parameters; choose another type of "
                "distributed training, and train.accumulate where memory is short"
            )


def end_group_at_exit() -> None:
    """Take the process group down when the interpreter ends.

    Threads of a group that is left standing abort a process which ends before the others.
    """
    atexit.unregister(_end_group)  # once, however many runs there are
    atexit.register(_end_group)


def _end_group() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def on_first(action: Callable[[], T], accelerator: Accelerator) -> T:
    """Return what the first process's call returns, on all of them.

    Raises:
        UserError: On all of them, if the call raised it.
    """
    if accelerator.num_processes == 1:
        return action()
    outcome: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            outcome[0] = action()
        except UserError as error:
            outcome[1] = str(error)
    torch.distributed.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        raise UserError(outcome[1])
    value: T = outcome[0]
    return value


def gather(own: Any, accelerator: Accelerator) -> list[Any]:
    """Return the values of all ranks."""
    if accelerator.num_processes == 1:
        return [own]
    everyone: list[Any] = [None] * accelerator.num_processes
    torch.distributed.all_gather_object(everyone, own)
    return everyone


def lost_rank(error: BaseException) -> UserError | None:
    """Return the sentence for an error that only says that another process is gone; else None.

    The connection to a process that ended is closed at once, and whoever waits for it in a
    collective call gets an error of the transport.

    Args:
        error: what a run raised.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return None
    if torch.distributed.get_world_size() == 1:
        return None
    is_of_group = isinstance(error, torch.distributed.DistError)
    is_of_gloo = isinstance(error, RuntimeError) and "gloo" in str(error)
    if not (is_of_group or is_of_gloo):
        return None
    return UserError(
        "another process of this run has ended, so this one ends too; see what that one said, and "
        "start all of them again with --resume: the last checkpoint is kept"
    )


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdigit() else default
