"""What the loop from answers to labels keeps."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ID = sa.String(36)
SHORT = sa.String(200)
MOMENT = sa.DateTime(timezone=True)
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    """Two columns for predictions, then the features, the batches and the queue."""
    op.add_column("predictions", sa.Column("role", sa.String(16), server_default="champion", nullable=False))
    op.add_column(
        "predictions", sa.Column("returned", sa.Boolean(), server_default=sa.true(), nullable=False)
    )
    op.create_table(
        "features",
        sa.Column("tenant_id", ID, nullable=False),
        sa.Column("prediction_id", ID, nullable=False),
        sa.Column("embedding", sa.LargeBinary(), nullable=True),
        sa.Column("unusual", sa.Double(), nullable=True),
        sa.Column("colour", JSON, nullable=True),
        sa.Column("sharpness", sa.Double(), nullable=True),
        sa.Column("exposure", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["tenant_id", "prediction_id"],
            ["predictions.tenant_id", "predictions.id"],
            name="fk_features_tenant_id_prediction_id",
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_features_tenant_id"),
        sa.PrimaryKeyConstraint("tenant_id", "prediction_id", name="pk_features"),
    )
    op.create_table(
        "batches",
        sa.Column("tenant_id", ID, nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("task", SHORT, nullable=False),
        sa.Column("head", SHORT, nullable=False),
        sa.Column("strategy", SHORT, nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("pool_digest", sa.String(64), nullable=False),
        sa.Column("entries", JSON, nullable=False),
        sa.Column("made_by", SHORT, nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_batches_tenant_id"),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_batches"),
    )
    op.create_index("ix_batches_number", "batches", ["tenant_id", "number"])
    op.create_table(
        "queue",
        sa.Column("tenant_id", ID, nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("task", SHORT, nullable=False),
        sa.Column("image_id", ID, nullable=False),
        sa.Column("prediction_id", ID, nullable=False),
        sa.Column("case_id", ID, nullable=True),
        sa.Column("reasons", JSON, nullable=False),
        sa.Column("priority", sa.Double(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("readers_needed", sa.Integer(), nullable=False),
        sa.Column("batch_id", ID, nullable=True),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.CheckConstraint("state IN ('waiting', 'adjudicate', 'done', 'skipped')", name="ck_queue_state"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_queue_tenant_id"),
        *(
            sa.ForeignKeyConstraint(
                ["tenant_id", column],
                [f"{table}.tenant_id", f"{table}.id"],
                name=f"fk_queue_tenant_id_{column}",
            )
            for column, table in (
                ("image_id", "images"),
                ("prediction_id", "predictions"),
                ("case_id", "cases"),
                ("batch_id", "batches"),
            )
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_queue"),
        sa.UniqueConstraint("tenant_id", "task", "image_id", name="uq_queue_tenant_id_task_image_id"),
    )
    op.create_index("ix_queue_waiting", "queue", ["tenant_id", "task", "state", "number"])
    op.create_index("ix_queue_urgent", "queue", ["tenant_id", "state", "priority", "number"])
    for column in ("image", "prediction", "batch"):
        op.create_index(f"ix_queue_{column}", "queue", ["tenant_id", f"{column}_id"])


def downgrade() -> None:
    """Remove them, with everything in them."""
    for table in ("queue", "batches", "features"):
        op.drop_table(table)
    op.drop_column("predictions", "returned")
    op.drop_column("predictions", "role")
