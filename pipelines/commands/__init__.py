"""The subcommands that this package brings; ``pipelines.cli`` imports the one that is asked for."""
