"""The gateway: what it costs beside its models, and what it does under load."""
