"""Similarity of representations: pure functions on tensors, and accumulators over batches, that need torch only."""

from __future__ import annotations

from tutelage.similarity.alignment import Kernel, alignment, alignment_pair
from tutelage.similarity.checks import SimilarityWarning
from tutelage.similarity.cka import angular_cka, chance_level, cka, gaussian_chance_level, participation_ratio
from tutelage.similarity.cka_matrix import CKAMatrix
from tutelage.similarity.cka_result import CKAResult
from tutelage.similarity.hsic import hsic
from tutelage.similarity.kernels import CosineKernel, KernelFunction, LinearKernel, RBFKernel
from tutelage.similarity.layer_gram import gram_of
from tutelage.similarity.map_objective import behaviour_loss, cka_map, map_loss, next_map_weight
from tutelage.similarity.mmd import AlignmentBound, alignment_mmd_bound, mmd2
from tutelage.similarity.reliability import ReliabilityReport, reliability_report, row_shares
from tutelage.similarity.subset_translation import (
    Translation,
    subset_translation,
    subset_translation_cka,
    subset_translation_limit,
    weakest_subset,
)

__all__ = [
    "AlignmentBound",
    "CKAMatrix",
    "CKAResult",
    "CosineKernel",
    "Kernel",
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
    "behaviour_loss",
    "chance_level",
    "cka",
    "cka_map",
    "gaussian_chance_level",
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
