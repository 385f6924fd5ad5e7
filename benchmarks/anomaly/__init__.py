"""PatchCore side by side with anomalib's current release: ``python -m benchmarks.anomaly``."""
