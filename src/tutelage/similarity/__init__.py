"""Similarity of representations: pure functions on tensors, and accumulators over batches.

The package needs torch only.
"""

from __future__ import annotations

from tutelage.similarity._checks import SimilarityWarning
from tutelage.similarity._cka_result import CKAResult
from tutelage.similarity._layer_gram import gram_of
from tutelage.similarity._map_objective import behavior_loss, cka_map, map_loss, next_map_weight
from tutelage.similarity._subset_translation import (
    subset_translation,
    subset_translation_cka,
    subset_translation_limit,
)
from tutelage.similarity._weakest_subset import Translation, weakest_subset
from tutelage.similarity.alignment import alignment, alignment_pair
from tutelage.similarity.cka import (
    angular_cka,
    cka,
    expected_cka_by_chance,
    expected_cka_of_gaussians,
    participation_ratio,
)
from tutelage.similarity.cka_matrix import CKAMatrix
from tutelage.similarity.hsic import hsic
from tutelage.similarity.kernels import CosineKernel, KernelFunction, LinearKernel, RBFKernel
from tutelage.similarity.mmd import AlignmentBound, alignment_mmd_bound, mmd2
from tutelage.similarity.reliability import ReliabilityReport, reliability_report, row_shares

__all__ = [
    "AlignmentBound",
    "CKAMatrix",
    "CKAResult",
    "CosineKernel",
    "KernelFunction",
    "LinearKernel",
    "RBFKernel",
    "ReliabilityReport",
    "SimilarityWarning",
    "Translation",
    "alignment",
    "alignment_mmd_bound",
    "alignment_pair",
    "angular_cka",
    "behavior_loss",
    "cka",
    "cka_map",
    "expected_cka_by_chance",
    "expected_cka_of_gaussians",
    "gram_of",
    "hsic",
    "map_loss",
    "mmd2",
    "next_map_weight",
    "participation_ratio",
    "reliability_report",
    "row_shares",
    "subset_translation",
    "subset_translation_cka",
    "subset_translation_limit",
    "weakest_subset",
]
