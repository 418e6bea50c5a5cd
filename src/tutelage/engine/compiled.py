"""Compile student and teacher."""

from __future__ import annotations

from torch import nn


def compile_networks(*networks: nn.Module) -> None:
    """Compile networks in place, so that several gradients of one pass can be taken."""
    from torch._functorch import config

    # Else the buffers of a pass are given away in its first backward, and the checks of the terms
    # and the gradient cap take one for each term.
    config.donated_buffer = False
    for network in networks:
        network.compile()
