"""Analysis of networks: which layers agree, how reliable that number is, and which to pair."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tutelage._lazy import lazy_names

if TYPE_CHECKING:
    from tutelage.analysis._inputs import split_inputs
    from tutelage.analysis.files import write_comparison
    from tutelage.analysis.layer_cka import (
        compare_layers,
        layer_map,
        monotone_pairs,
        reliability_matrix,
        suggest_pairs,
    )
    from tutelage.analysis.layer_tracker import LayerTracker
    from tutelage.analysis.layers import layers_of
else:
    __getattr__, __dir__ = lazy_names(__name__)

__all__ = [
    "LayerTracker",
    "compare_layers",
    "layer_map",
    "layers_of",
    "monotone_pairs",
    "reliability_matrix",
    "split_inputs",
    "suggest_pairs",
    "write_comparison",
]
