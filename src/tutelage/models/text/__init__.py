"""Encoders of queries and documents, and what is put around them."""

from __future__ import annotations

from tutelage.models.text.cross_encoder import CrossEncoder
from tutelage.models.text.dual_encoder import DualEncoder, Role
from tutelage.models.text.projected import InheritedDocuments, ProjectedEncoder
from tutelage.models.text.sentence import SentenceEncoder
from tutelage.models.text.static import StaticEncoder
from tutelage.models.text.towers import TwoTowers, VectorEncoder

__all__ = [
    "CrossEncoder",
    "DualEncoder",
    "InheritedDocuments",
    "ProjectedEncoder",
    "Role",
    "SentenceEncoder",
    "StaticEncoder",
    "TwoTowers",
    "VectorEncoder",
]
