"""What a student is trained for."""

from __future__ import annotations

from tutelage.tasks.classification import Classification

__all__ = ["Classification"]
