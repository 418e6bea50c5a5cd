"""Checks before training: of the parts, of the teacher, of every term."""
