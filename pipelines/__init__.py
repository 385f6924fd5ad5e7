"""The pipelines, and the command line that runs or submits them."""
