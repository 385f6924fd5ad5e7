"""What an answer costs over REST and gRPC, step by step and under load: ``python -m benchmarks.serving``."""
