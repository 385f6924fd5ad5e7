"""What watching for drift keeps, and the way to a bundle's answers in their order."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

ID = sa.String(36)
SHORT = sa.String(200)
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Two tables; an index that has the answers' order takes the place of one that had not."""
    op.drop_index("ix_predictions_bundle", "predictions")
    op.create_index("ix_predictions_window", "predictions", ["tenant_id", "bundle_digest", "role", "number"])
    op.create_table(
        "glances",
        sa.Column("tenant_id", ID, nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("task", SHORT, nullable=False),
        sa.Column("model_version", SHORT, nullable=False),
        sa.Column("bundle_digest", SHORT, nullable=False),
        sa.Column("verdict", sa.String(40), nullable=False),
        sa.Column("sharpness", sa.Double(), nullable=True),
        sa.Column("exposure", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_glances_tenant_id"),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_glances"),
    )
    op.create_index("ix_glances_window", "glances", ["tenant_id", "bundle_digest", "number"])
    op.create_table(
        "drift_windows",
        sa.Column("tenant_id", ID, nullable=False),
        sa.Column("bundle_digest", SHORT, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("task", SHORT, nullable=False),
        sa.Column("first_number", sa.BigInteger(), nullable=False),
        sa.Column("last_number", sa.BigInteger(), nullable=False),
        sa.Column("report", sa.JSON(), nullable=True),
        sa.Column("running", sa.JSON(), nullable=True),
        sa.Column("judged_at", MOMENT, nullable=False),
        sa.CheckConstraint("kind IN ('images', 'labels')", name="ck_drift_windows_kind"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_drift_windows_tenant_id"),
        sa.PrimaryKeyConstraint("tenant_id", "bundle_digest", "kind", name="pk_drift_windows"),
    )


def downgrade() -> None:
    """Remove them, with everything in them."""
    for table in ("drift_windows", "glances"):
        op.drop_table(table)
    op.drop_index("ix_predictions_window", "predictions")
    op.create_index("ix_predictions_bundle", "predictions", ["tenant_id", "bundle_digest"])
