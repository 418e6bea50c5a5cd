"""From a finished run to use: load its student, predict with it, export it."""

from __future__ import annotations

from tutelage.deploy.predictor import Predictor, load

__all__ = ["Predictor", "load"]
