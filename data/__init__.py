"""Everything about images before a model sees them: sources, datasets, checks, quality, preprocessing."""
