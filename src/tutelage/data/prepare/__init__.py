"""Data sets made of what packages and archives hold: whole folders in a standard format, or none."""
