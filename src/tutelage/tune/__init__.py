"""Searches for a method and its numbers, by Optuna, on validation data alone."""
