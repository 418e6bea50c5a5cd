"""Faults put into tiny runs, files and arguments: kills, signals, full disks, races, damage."""
