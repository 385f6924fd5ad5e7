"""Documents keep the order in which they were written, on PostgreSQL too: classes have one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

COLUMNS = {
    "erasures": ("counts", "learned"),
    "idempotency_keys": ("body",),
    "jobs": ("payload",),
    "cases": ("payload",),
    "scans": ("result", "failure"),
    "case_entries": ("payload",),
    "predictions": ("reasons", "quality", "answer"),
    "rejections": ("predictions", "payload"),
    "features": ("colour",),
    "batches": ("entries",),
    "queue": ("reasons",),
}


def upgrade() -> None:
    """From ``jsonb``, which sorts keys by their length, to ``json``. What was sorted already stays so."""
    _turn(postgresql.JSONB(), sa.JSON(), "json")


def downgrade() -> None:
    """Back to ``jsonb``."""
    _turn(sa.JSON(), postgresql.JSONB(), "jsonb")


def _turn(before: sa.JSON, after: sa.JSON, name: str) -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    for table, columns in COLUMNS.items():
        for column in columns:
            op.alter_column(
                table, column, type_=after, existing_type=before, postgresql_using=f"{column}::{name}"
            )
