"""From a checked dataset to a registered bundle."""
