"""Alembic's environment and its revisions. ``migrate.py`` runs them."""
