"""From a bundle to an answer: predictor, transformer, and the pure core that training shares."""
