"""Drift in a model's own terms and as Evidently's page: what ``retiderm drift`` and the component call."""
