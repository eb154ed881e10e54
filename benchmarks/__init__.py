"""Speed measurements against plain baselines: ``python -m benchmarks``."""
