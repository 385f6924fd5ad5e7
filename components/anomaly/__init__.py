"""The steps that only the anomaly pipeline has; the others are the classifier's own."""
