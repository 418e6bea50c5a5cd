"""Recommenders, and what they are made for: which user has which items."""

from __future__ import annotations

from tutelage.models.recommendation.bprmf import BPRMF
from tutelage.models.recommendation.factors import FactorTables, ScoreFunction
from tutelage.models.recommendation.interactions import (
    HasInteractions,
    Interactions,
    TakesInteractions,
    item_scores,
    score_block,
)
from tutelage.models.recommendation.lightgcn import LightGCN
from tutelage.models.recommendation.popularity import Partition, popularity_groups

__all__ = [
    "BPRMF",
    "FactorTables",
    "HasInteractions",
    "Interactions",
    "LightGCN",
    "Partition",
    "ScoreFunction",
    "TakesInteractions",
    "item_scores",
    "popularity_groups",
    "score_block",
]
