"""From answers to labels and back: which images a reader should see, challengers, windows for drift."""
