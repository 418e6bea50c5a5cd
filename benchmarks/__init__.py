"""Speed, memory and accuracy, measured.

Each script writes JSON with its provenance to benchmarks/results.
"""
