"""EmbedDistill (Kim et al., 2023): embeddings and scores of a dual encoder, in a student's."""

from __future__ import annotations

from tutelage.methods.embed_distill.embed_distill import EmbedDistill
from tutelage.methods.embed_distill.losses import (
    embed_matching_loss,
    margin_mse_loss,
    score_distillation_loss,
)
from tutelage.models.text.dual_pooling import dual_pooling

__all__ = [
    "EmbedDistill",
    "dual_pooling",
    "embed_matching_loss",
    "margin_mse_loss",
    "score_distillation_loss",
]
