"""Faults put into tiny runs: kills, signals, full disks, races and damaged files."""
