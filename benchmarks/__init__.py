"""Speed, memory and accuracy, measured; each script writes JSON with its provenance into benchmarks/results."""
