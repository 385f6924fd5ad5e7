"""The loop: labels from review become the next dataset, and that the next candidate for champion."""
