"""Similarity of representations: pure functions on tensors that need torch only."""

from __future__ import annotations

from tutelage.similarity.alignment import Kernel, alignment, alignment_pair

__all__ = ["Kernel", "alignment", "alignment_pair"]
