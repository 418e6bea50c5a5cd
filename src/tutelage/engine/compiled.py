"""Compile student and teacher."""

from __future__ import annotations

from torch import nn


def compile_networks(*networks: nn.Module) -> None:
    """Compile networks in place, so that several gradients of one pass can be taken."""
    from torch._dynamo import config as dynamo_config
    from torch._functorch import config as functorch_config

    # Else the buffers of a pass are given away in its first backward, and the checks of the terms
    # and the gradient cap take one for each term.
    functorch_config.donated_buffer = False
    # Else a student whose class was compiled before, without taps or with others, runs that code,
    # and its own taps stay empty.
    dynamo_config.skip_nnmodule_hook_guards = False
    for network in networks:
        network.compile()
