"""What training writes and serving reads, without torch, kfp, mlflow or a web framework."""
