"""Recommendation from implicit feedback: the BPR loss, and metrics of full rankings."""

from __future__ import annotations

from tutelage.tasks.recommendation.losses import bpr_loss, row_norms
from tutelage.tasks.recommendation.metrics import RankingMetrics
from tutelage.tasks.recommendation.task import Recommendation

__all__ = ["RankingMetrics", "Recommendation", "bpr_loss", "row_norms"]
